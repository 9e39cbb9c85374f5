//! Who has to go when the tables are full: none of the connections that are open, however they became so, and whatever was
//! guessed about them.

use super::super::flood::source::{BATCH, Side, Source, spoofed};
use super::sweeps::{END, FIRST, Guess, RESET, VICTIM, close, open, sweep, text};
use super::{SYN, Segment, answer, ask_all, let_workers_catch_up};
use crate::rig::config::FREE;
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, dial};
use crate::rig::packet::Dice;
use crate::rig::requests::{sum_of, url};
use crate::rig::wire::Sender;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Of each family: two workers have 4,096 places.
const SOURCES: u32 = 12_000;
/// A new flow is the first to go only after a second, and so is one that was reset.
const GRACE: Duration = Duration::from_millis(2100);

fn start(lab: &Lab) -> (Loaded, Sender) {
    let [four, six] = Family::BOTH.map(|family| family.client(1));
    lab.sh("lb", &format!("ip route add 10.0.0.0/8 via {four}; ip route add fd00::/8 via {six}"));
    (Loaded::toml(lab, &format!("flows = 1024\n{}", text(FREE))), Sender::to_balancer(lab, "client", "eth0"))
}

/// More openings than there are places, and all within their first second.
fn fill(lab: &Lab, sender: &Sender) {
    let opening = |family: Family| {
        let (from, to) = (SocketAddr::new(spoofed(family, 0), 40_000), SocketAddr::new(family.vip(), 80));
        Segment { from, to, flags: SYN, sequence: 1, acknowledged: 0 }.wrong()
    };
    let mut sources = Family::BOTH.map(|family| Source::of(sender, Side::Source, &opening(family)));
    for first in (0..SOURCES).step_by(BATCH) {
        sources.iter_mut().for_each(|source| {
            source.send(sender, first);
        });
        let_workers_catch_up(lab);
    }
    assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
}

/// Runs `act` while the clients' host loses what this rule says.
fn losing<T>(lab: &Lab, hook: &str, rule: &str, act: impl FnOnce() -> T) -> T {
    let table = format!("table inet lost {{ chain c {{ type filter hook {hook} priority 0; {rule} drop; }}; }}");
    lab.sh("client", &format!("nft '{table}'"));
    let done = act();
    lab.sh("client", "nft 'delete table inet lost' 2>/dev/null || true");
    done
}

/// Connections whose beginning was not smooth, and one whose was. None has been used for more than one request.
fn honest(lab: &Lab, family: Family) -> Vec<TcpStream> {
    const ACKS: &str = "tcp dport 80 tcp flags & (fin | syn | rst | psh | ack) == ack";
    const ANSWERS: &str = "tcp sport 80 tcp flags & (syn | ack) == syn | ack";
    let connect = |n: u16| lab.within("client", || dial(family.client(n), SocketAddr::new(family.vip(), 80))).unwrap();
    let smooth = connect(10);
    let silent = losing(lab, "output", ACKS, || connect(11));
    let mut asking = losing(lab, "output", ACKS, || {
        let mut stream = connect(12);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n").unwrap();
        stream
    });
    let unheard = std::thread::scope(|scope| {
        losing(lab, "input", ANSWERS, || {
            let late = scope.spawn(|| connect(13));
            std::thread::sleep(Duration::from_millis(300));
            late
        })
        .join()
        .unwrap()
    });
    answer(&mut asking).unwrap();
    vec![smooth, silent, asking, unheard]
}

/// How many connections do not answer any more, and how many have to be balanced anew, which may have ended well.
fn lost(loaded: &Loaded, streams: &mut Vec<TcpStream>) -> [u64; 2] {
    let (all, before) = (streams.len(), loaded.count("forwarded_new"));
    let lost = ask_all(streams);
    let forgotten = loaded.count("forwarded_new") - before;
    println!("of {all} {lost} lost, {forgotten} forgotten; flow_evicted={}", loaded.count("flow_evicted"));
    [u64::try_from(lost).unwrap(), forgotten]
}

#[test]
fn connections_that_have_begun_with_losses_are_open() {
    paired(keeps_honest);
}

fn keeps_honest(lab: &Lab) {
    let (loaded, sender) = start(lab);
    let mut streams: Vec<_> = Family::BOTH.into_iter().flat_map(|family| honest(lab, family)).collect();
    std::thread::sleep(GRACE);
    fill(lab, &sender);
    let lost = lost(&loaded, &mut streams);
    assert_eq!(lost, [0; 2]);
    loaded.stop();
}

/// Guesses at all ports, silence, and then the flood.
fn keeps_all(lab: &Lab, guess: Guess) {
    let (loaded, sender) = start(lab);
    let mut streams: Vec<_> = Family::BOTH.into_iter().flat_map(|family| open(lab, family).0).collect();
    let mut dice = Dice::new(0x6675_6c6c);
    Family::BOTH.into_iter().for_each(|family| sweep(lab, &sender, family, guess, &mut dice));
    std::thread::sleep(GRACE);
    fill(lab, &sender);
    let lost = lost(&loaded, &mut streams);
    assert_eq!(lost, [0; 2], "{guess:?}");
    close(streams);
    loaded.stop();
}

#[test]
fn a_guessed_reset_makes_no_connection_the_first_to_go() {
    paired(|lab| keeps_all(lab, RESET));
}

#[test]
fn guessed_ends_make_no_connection_the_first_to_go() {
    paired(|lab| keeps_all(lab, END));
}

/// The client is always some packets behind what the backend has sent.
#[test]
fn a_download_outlives_guesses_and_floods() {
    paired(downloads);
}

fn downloads(lab: &Lab) {
    const BYTES: u64 = 8 << 20;
    let (loaded, sender) = start(lab);
    let want = sum_of(lab, BYTES);
    let fetch = |family: Family| {
        let (from, last, url) = (family.client(VICTIM), BYTES - 1, url(family.vip(), 80, "big"));
        let options = format!("--interface {from} --local-port {} --limit-rate 2M --max-time 60", FIRST + 1);
        lab.exec(
            "client",
            &["bash", "-o", "pipefail", "-c", &format!("curl -gsS {options} -r 0-{last} '{url}' | sha256sum")],
        )
    };
    std::thread::scope(|scope| {
        let fetches = Family::BOTH.map(|family| scope.spawn(move || fetch(family)));
        let (mut dice, mut rounds) = (Dice::new(0x646f_776e), 0);
        while fetches.iter().any(|fetch| !fetch.is_finished()) {
            for guess in [RESET, END] {
                Family::BOTH.into_iter().for_each(|family| sweep(lab, &sender, family, guess, &mut dice));
            }
            fill(lab, &sender);
            rounds += 1;
        }
        for said in fetches.map(|fetch| fetch.join().unwrap()) {
            println!("after {rounds} rounds: {said:?}");
            assert_eq!((said.code, &said.out), (Some(0), &want), "{}", said.err);
        }
    });
    loaded.stop();
}
