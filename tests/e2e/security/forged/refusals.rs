//! Refusals in a backend's name. Only what answers an opening that was sent, from where the backend is, is a refusal; a
//! backend that really refuses is out as fast as ever.

use super::super::flood::source::{BATCH, Side, Source, spoofed};
use super::{ACK, RST, SYN, Segment, let_workers_catch_up, times};
use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, get};
use crate::rig::packet::{complete, port_unreachable};
use crate::rig::wire::Sender;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BACKENDS: [u16; 3] = [1, 2, 3];
/// Openings in a row that a worker must see refused.
const FAILS: u32 = 3;
/// Of all families and backends together.
const REFUSALS: u32 = 100_000;
/// What the spoofed openings have for a number.
const SEQUENCE: u32 = 1;
const PORT: u16 = 40_000;

/// Openings that are only left unanswered, as the spoofed ones are, are another matter.
fn text(hold: &str) -> String {
    let passive = format!("passive = {{ fails = {FAILS}, timeout = \"1m\", hold = \"{hold}\" }}");
    let keys = format!("strategy = \"rr\"\n{FREE}\n{passive}");
    let web = Service { keys: &keys, backends: &[(1, 1), (2, 1), (3, 1)], ..Service::default() };
    format!("cores = \"0-1\"\n{}", config("60s", &[web]))
}

fn prepare(lab: &Lab) {
    let [four, six] = Family::BOTH.map(|family| family.client(1));
    lab.sh("lb", &format!("ip route add 10.0.0.0/8 via {four}; ip route add fd00::/8 via {six}"));
}

/// The first source's opening. Its checksum is wrong, so that the backend does not answer it.
fn opening(family: Family) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(spoofed(family, 0), PORT), SocketAddr::new(family.vip(), 80));
    Segment { from, to, flags: SYN, sequence: SEQUENCE, acknowledged: 0 }.wrong()
}

/// Backend n refuses what the first source has sent, and acknowledges this.
fn refusal(family: Family, n: u16, acknowledged: u32) -> Vec<u8> {
    let (from, to) = (SocketAddr::new(family.backend(n), 80), SocketAddr::new(spoofed(family, 0), PORT));
    Segment { from, to, flags: RST | ACK, sequence: 0, acknowledged }.sound()
}

/// Backend n says that what source `source` has sent with this number cannot be delivered.
fn unreachable(family: Family, n: u16, source: u32, sequence: u32) -> Vec<u8> {
    let (client, backend) = (spoofed(family, source), family.backend(n));
    let (from, to) = (SocketAddr::new(client, PORT), SocketAddr::new(backend, 80));
    let quote = complete(Segment { from, to, flags: SYN, sequence, acknowledged: 0 }.sound());
    port_unreachable(backend, client, &quote)
}

/// A pool at work: clients of both families, one request after the other. Those that were not served.
fn at_work<T>(lab: &Lab, act: impl FnOnce() -> T) -> (T, Vec<String>) {
    let over = AtomicBool::new(false);
    let fetch = |family: Family, n: u16| {
        let (mut failed, client) = (Vec::new(), family.client(n));
        while !over.load(Ordering::Relaxed) {
            failed.extend(get(client, family.vip(), 80).err().map(|error| format!("{client}: {error}")));
        }
        failed
    };
    std::thread::scope(|scope| {
        let clients = Family::BOTH.into_iter().flat_map(|family| (10..14).map(move |n| (family, n)));
        let fetch = &fetch;
        let run = |(family, n)| scope.spawn(move || lab.within("client", || fetch(family, n)));
        let threads: Vec<_> = clients.map(run).collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        over.store(true, Ordering::Relaxed);
        let failed = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), failed)
    })
}

/// Openings from the clients' side, and then what `refuse` sends, each for these sources of a family. Nobody is ejected.
fn ejects_nobody(lab: &Lab, rounds: u32, mut refuse: impl FnMut(Family, u32)) {
    prepare(lab);
    let loaded = Loaded::toml(lab, &text("10s"));
    let clients = Sender::to_balancer(lab, "client", "eth0");
    let mut openings = Family::BOTH.map(|family| Source::of(&clients, Side::Source, &opening(family)));
    let began = Instant::now();
    let ((), failed) = at_work(lab, || {
        for round in 0..rounds {
            for (family, opening) in Family::BOTH.into_iter().zip(&mut openings) {
                let first = round * u32::try_from(BATCH).unwrap();
                opening.send(&clients, first);
                refuse(family, first);
            }
            let_workers_catch_up(lab);
        }
        // The supervisor looks at what workers think every half second.
        std::thread::sleep(Duration::from_millis(1100));
    });
    let (ejections, returned) = (loaded.ejections(), loaded.packets(&["returned", "kernel_returned"]));
    println!("{rounds} rounds in {:.1?}, {returned} answers: {ejections:?}", began.elapsed());
    assert!(returned > 1000, "the pool had no work");
    assert!(ejections.is_empty(), "{ejections:?}");
    assert!(failed.is_empty(), "{failed:?}");
    loaded.stop();
}

/// Rounds of [`BATCH`] sources, each refused by all backends.
fn rounds(refusals: u32) -> u32 {
    refusals * times() / u32::try_from(BATCH * BACKENDS.len() * 2).unwrap()
}

/// Refusals of all backends, of the first source, by `who` at the balancer's `interface`, that acknowledge this.
fn forged_resets((who, interface): (&str, &str), acknowledged: u32) {
    paired(|lab| {
        let sender = Sender::to_balancer(lab, who, interface);
        let of = |family, n| Source::of(&sender, Side::Destination, &refusal(family, n, acknowledged));
        let mut sources = Family::BOTH.map(|family| BACKENDS.map(|n| of(family, n)));
        ejects_nobody(lab, rounds(REFUSALS), |family, first| {
            sources[usize::from(family == Family::V6)].iter_mut().for_each(|source| {
                source.send(&sender, first);
            });
        });
    });
}

/// Errors of all backends by `who` at the balancer's `interface`, which quote openings with this number.
fn forged_errors((who, interface): (&str, &str), sequence: u32) {
    paired(|lab| {
        let sender = Sender::to_balancer(lab, who, interface);
        // Each is made from scratch.
        ejects_nobody(lab, rounds(REFUSALS / 10), |family, first| {
            let sources = first..first + u32::try_from(BATCH).unwrap();
            let frame = |n, source| sender.frame(&unreachable(family, n, source, sequence));
            for n in BACKENDS {
                sender.send_all(&sources.clone().map(|source| frame(n, source)).collect::<Vec<_>>());
            }
        });
    });
}

/// From a neighbour of the backends, who is on their wire, and hears no opening.
#[test]
fn resets_that_acknowledge_what_was_never_sent_eject_nobody() {
    forged_resets(("b3", "eth1"), SEQUENCE + 0x6775_6573);
}

#[test]
fn errors_that_quote_what_was_never_sent_eject_nobody() {
    forged_errors(("b3", "eth1"), SEQUENCE + 0x6775_6573);
}

/// One client of each family, one request after the other: its worker must see no more than it is told to wait for.
#[test]
fn a_backend_that_really_refuses_is_out_as_fast_as_ever() {
    paired(refuses_three_times);
}

fn refuses_three_times(lab: &Lab) {
    let loaded = Loaded::toml(lab, &text("5m"));
    let mut seen = Vec::new();
    for _ in 0..setting("E2E_RUNS", 5) {
        lab.kill_web("b1");
        let gone = || lab.sh("b1", "ss -Hnlt 'sport = :80' | wc -l").trim() == "0";
        assert!(eventually(Duration::from_secs(5), gone), "the killed server still listens");
        for family in Family::BOTH {
            let client = family.client(20);
            let (began, mut last, mut refused) = (Instant::now(), Duration::ZERO, 0);
            let answers = lab.within("client", || (0..30).map(|_| get(client, family.vip(), 80)).collect::<Vec<_>>());
            for error in answers.into_iter().filter_map(Result::err) {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{client}: {error}");
                (refused, last) = (refused + 1, began.elapsed());
            }
            seen.push((refused, last));
            assert_eq!(refused, FAILS, "{family:?}: refusals until b1 was out");
        }
        lab.start_web("b1");
        // What the operator has taken out and let in again has a clean record.
        for (act, family) in ["disable", "enable"].into_iter().flat_map(|act| Family::BOTH.map(|family| (act, family)))
        {
            assert_eq!(loaded.ask(&["backend", act, &family.backend(1).to_string()]).code, Some(0), "{act}");
        }
        let back = || Family::BOTH.iter().all(|f| loaded.backend("web", f.backend(1))["state"] == "unchecked");
        assert!(eventually(Duration::from_secs(5), back), "{}", loaded.status());
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("refusals until it was out, and when thirty requests were through: {seen:?}");
    loaded.stop();
}
