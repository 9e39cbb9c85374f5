//! Flows that spoofed sources pretend to open. An entry of the table that is never given up must cost more than packets:
//! whoever has no number from the backend's answer has no open flow, however the packet that claims one looks.

use super::super::flood::source::{BATCH, Side, Source, spoofed};
use super::{ACK, SYN, Segment, ask_all, let_workers_catch_up, newcomers, times};
use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, dial};
use crate::rig::packet::{UDP, complete, ip, udp, upper};
use crate::rig::wire::Sender;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Of each family. Two workers with 16,384 flows have 65,536 places.
const SOURCES: u32 = 61_440;
/// Sources of each family between a packet and the next one in their names.
const ROUND: u32 = 3840;
/// Between them the connections that are open are used: a server ends one that is idle for 75 seconds.
const PARTS: u32 = 4;
const SMALL: &str = "flows = 16384";
/// The port of all spoofed sources.
const PORT: u16 = 40_000;
const ECHO: u16 = 7007;
const BACKENDS: [u16; 2] = [1, 2];

/// Packets that each source is to have sent or got, in this order, in both families.
type Script = Vec<[Source; 2]>;

/// How long after the first packet of a source the next one comes, ms; each round takes the next.
type Pauses = &'static [u64];

fn text(top: &str) -> String {
    let web = Service { keys: FREE, ..Service::default() };
    let echo = Service { name: "echo", protocol: "udp", ports: "7007", keys: FREE, ..Service::default() };
    format!("cores = \"0-1\"\n{top}\n{}", config("60s", &[web, echo]))
}

/// What is answered to nobody goes towards the client, who has no ear for it. The kernel's own filter of wrong ways in comes
/// after the workers.
fn prepare(lab: &Lab) {
    let [four, six] = Family::BOTH.map(|family| family.client(1));
    lab.sh("lb", &format!("ip route add 10.0.0.0/8 via {four}; ip route add fd00::/8 via {six}"));
    lab.sh("lb", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1");
}

/// The first source's packet.
fn segment(family: Family, flags: u8) -> Segment {
    let (from, to) = (SocketAddr::new(spoofed(family, 0), PORT), SocketAddr::new(family.vip(), 80));
    Segment { from, to, flags, sequence: 1, acknowledged: if flags & ACK == 0 { 0 } else { 0x6775_6573 } }
}

fn from_clients(sender: &Sender, flags: u8, make: fn(Segment) -> Vec<u8>) -> [Source; 2] {
    Family::BOTH.map(|family| Source::of(sender, Side::Source, &make(segment(family, flags))))
}

/// Sends it all, of `count` sources of each family from `first` on.
fn play(lab: &Lab, sender: &Sender, script: &mut Script, (first, count): (u32, u32), pauses: Pauses) {
    let pauses = pauses.iter().cycle().map(|pause| Duration::from_millis(*pause));
    for (round, pause) in (first..first + count).step_by(usize::try_from(ROUND).unwrap()).zip(pauses) {
        for (number, sources) in script.iter_mut().enumerate() {
            if number > 0 {
                std::thread::sleep(pause);
            }
            for source in sources {
                (0..ROUND).step_by(BATCH).for_each(|n| {
                    source.send(sender, round + n);
                });
            }
            let_workers_catch_up(lab);
        }
    }
}

/// Connections that were there before.
fn regulars(lab: &Lab) -> Vec<TcpStream> {
    let clients = Family::BOTH.into_iter().flat_map(|family| (10..14).map(move |n| (family, n)));
    let dialled = clients.map(|(family, n)| dial(family.client(n), SocketAddr::new(family.vip(), 80)).unwrap());
    lab.within("client", || dialled.collect())
}

/// New clients get in and old ones stay, whatever these packets say.
fn hurts_nobody(lab: &Lab, top: &str, pauses: Pauses, script: impl Fn(&Sender) -> Script) {
    prepare(lab);
    let loaded = Loaded::toml(lab, &text(top));
    let (sender, sources) = (Sender::to_balancer(lab, "client", "eth0"), SOURCES * times());
    let mut script = script(&sender);
    let mut streams = regulars(lab);
    assert_eq!(ask_all(&mut streams), 0);
    let (began, part) = (Instant::now(), sources / PARTS);
    let mut lost = 0;
    for n in 0..PARTS - 1 {
        play(lab, &sender, &mut script, (n * part, part), pauses);
        lost += ask_all(&mut streams);
    }
    // The last part comes while others want to be served.
    let within = std::thread::scope(|scope| {
        let within = scope.spawn(|| newcomers(lab, 20));
        play(lab, &sender, &mut script, ((PARTS - 1) * part, part), pauses);
        within.join().unwrap()
    });
    let time = began.elapsed();
    assert!(eventually(Duration::from_secs(10), || lab.waiting() == 0), "{}", lab.queues());
    let after = newcomers(lab, 30);
    lost += ask_all(&mut streams);
    std::thread::sleep(Duration::from_secs(u64::from(times().min(10)) * 6 - 5));
    let later = newcomers(lab, 40);
    lost += ask_all(&mut streams);
    let [full, evicted] = ["dropped_table_full", "flow_evicted"].map(|label| loaded.count(label));
    println!("{} sources in {time:.1?}: dropped_table_full={full} flow_evicted={evicted}", sources * 2);
    let refused = [within.len(), after.len(), later.len()];
    println!("of 20 new clients not served: {refused:?} within the flood, after, later; {lost} open connections lost");
    assert_eq!((refused, lost, full), ([0; 3], 0, 0), "{within:?} {after:?} {later:?}");
    loaded.stop();
}

/// The same with the default tables, if there are enough packets for them.
fn hurts_nobody_by_any_number(pauses: Pauses, script: impl Fn(&Sender) -> Script) {
    paired(|lab| hurts_nobody(lab, SMALL, pauses, &script));
    if times() >= 10 {
        paired(|lab| hurts_nobody(lab, "", pauses, &script));
    }
}

#[test]
fn acknowledgements_with_a_wrong_checksum_open_nothing() {
    hurts_nobody_by_any_number(&[30], |sender| {
        vec![from_clients(sender, SYN, Segment::sound), from_clients(sender, ACK, Segment::wrong)]
    });
}

#[test]
fn acknowledgements_that_end_at_the_balancer_open_nothing() {
    hurts_nobody_by_any_number(&[1, 10, 100, 1000], |sender| {
        vec![from_clients(sender, SYN, Segment::sound), from_clients(sender, ACK, Segment::dying)]
    });
}

/// The backend answers each with a reset.
#[test]
fn acknowledgements_of_any_number_open_nothing() {
    hurts_nobody_by_any_number(&[1, 10, 100, 1000], |sender| {
        vec![from_clients(sender, SYN, Segment::sound), from_clients(sender, ACK, Segment::sound)]
    });
}

/// What comes after that reset is not what shows that the connection lives.
#[test]
fn acknowledgements_after_a_reset_open_nothing() {
    hurts_nobody_by_any_number(&[30], |sender| {
        let [syn, ack] = [SYN, ACK].map(|flags| from_clients(sender, flags, Segment::sound));
        vec![syn, ack, from_clients(sender, ACK, Segment::dying)]
    });
}

/// What backend n, in this place of the clients' side, says to the first source, or the source's acknowledgement of just that.
fn forged(sender: &Sender, n: u16, flags: u8) -> [Source; 2] {
    Family::BOTH.map(|family| {
        let (source, backend) = (SocketAddr::new(spoofed(family, 0), PORT), SocketAddr::new(family.backend(n), 80));
        let answers = flags & SYN != 0;
        let (from, to, side) = match answers {
            true => (backend, source, Side::Destination),
            false => (source, SocketAddr::new(family.vip(), 80), Side::Source),
        };
        // Both sides have begun with 1.
        let sequence = if answers { 1 } else { 2 };
        Source::of(sender, side, &Segment { from, to, flags, sequence, acknowledged: 2 }.wrong())
    })
}

/// Wherever on the clients' side an answer in a backend's name comes from, it is none, and so it proves nothing to acknowledge
/// it. The attacker does not know which backend was chosen, and speaks for all.
#[test]
fn answers_in_a_backends_name_from_the_clients_side_open_nothing() {
    hurts_nobody_by_any_number(&[1], |sender| {
        let answers = BACKENDS.map(|n| forged(sender, n, SYN | ACK));
        let syn = from_clients(sender, SYN, Segment::wrong);
        [syn].into_iter().chain(answers).chain([forged(sender, 1, ACK)]).collect()
    });
}

/// The same by UDP, where there is no number.
#[test]
fn datagrams_in_a_backends_name_from_the_clients_side_open_nothing() {
    let datagram = |family: Family, peer: IpAddr, side: Side| {
        let first = spoofed(family, 0);
        let ((from, to), ports) = match side {
            Side::Source => ((first, peer), (PORT, ECHO)),
            Side::Destination => ((peer, first), (ECHO, PORT)),
        };
        let mut packet = complete(ip(from, to, UDP, &udp(ports.0, ports.1, 8 + 4, b"forg")));
        let (at, _) = upper(&packet);
        packet[at + 6] ^= 0x5a;
        packet
    };
    hurts_nobody_by_any_number(&[1], |sender| {
        let step = |side, peer: &dyn Fn(Family) -> IpAddr| {
            Family::BOTH.map(|family| Source::of(sender, side, &datagram(family, peer(family), side)))
        };
        let ask = || step(Side::Source, &|family| family.vip());
        let answers = BACKENDS.map(|n| step(Side::Destination, &|family| family.backend(n)));
        [ask()].into_iter().chain(answers).chain([ask()]).collect()
    });
}
