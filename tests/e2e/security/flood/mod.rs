//! Floods from ten million spoofed sources, and from one client on all its ports. Memory does not grow, clients that are
//! served stay served, and new ones get in.

pub(super) mod source;
pub(crate) mod steady;

use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::{Loaded, size};
use crate::rig::machine::measured;
use crate::rig::net::{Family, dial, get};
use crate::rig::packet::{TCP, complete, ip, syn};
use crate::rig::queues::kernel;
use crate::rig::requests::{download, sum_of};
use crate::rig::wire::Sender;
use source::{Kind, Source};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So many packets may wait in the queues before the flood does: its way is not to be the reason that others are lost.
const WAITING: u64 = 4096;
/// One in so many spoofed packets goes to a backend that answers; the others are for the tables alone.
const ANSWERED: u32 = 32;
/// The port of services whose backend is number 89: no host, but a route that ends in nothing.
const SINK: u16 = 9;
const NOBODY: u16 = 89;
/// Its address is on no interface, so that no kernel answers with resets.
const HOG: [&str; 2] = ["198.18.0.9", "2001:db8:bad::9"];

/// The services: one over TCP and one over UDP that answer, and one of each that does not.
fn config(top: &str) -> String {
    let service = |name: &str, traffic: &str, backends: &[u16]| {
        let addresses = backends.iter().flat_map(|n| Family::BOTH.map(|family| family.backend(*n)));
        let backends: String = addresses.map(|a| format!("[[service.backend]]\naddress = \"{a}\"\n")).collect();
        let vips = Family::BOTH.map(Family::vip);
        format!("[[service]]\nname = \"{name}\"\nvip = [\"{}\", \"{}\"]\n{traffic}\n{backends}", vips[0], vips[1])
    };
    let web = "protocol = \"tcp\"\nports = [80]\ncheck = { kind = \"tcp\", port = 80, interval = \"1s\" }";
    [
        format!("cores = \"0-1\"\n{top}\n"),
        service("web", web, &[1, 2, 3]),
        service("echo", "protocol = \"udp\"\nports = [7007]", &[1, 2, 3]),
        service("sink", &format!("protocol = \"tcp\"\nports = [{SINK}]"), &[NOBODY]),
        service("sink-udp", &format!("protocol = \"udp\"\nports = [{SINK}]"), &[NOBODY]),
    ]
    .concat()
}

/// Routes answers to spoofed sources to the client's network, where they are dropped.
fn prepare(lab: &Lab) {
    let [four, six] = Family::BOTH.map(|family| family.client(1));
    let ways = [("10.0.0.0/8", four), ("198.18.0.0/15", four), ("fd00::/8", six), ("2001:db8:bad::/48", six)];
    for (network, via) in ways {
        lab.sh("lb", &format!("ip route add {network} via {via}"));
    }
    for family in Family::BOTH {
        lab.sh("lb", &format!("ip route add blackhole {}", family.backend(NOBODY)));
    }
}

/// A request on a keep-alive connection; the answer must be the backend's.
fn request(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let end = format!(" {}\n", stream.local_addr()?.ip());
    let mut answer = Vec::new();
    let mut part = [0; 2048];
    while !answer.ends_with(end.as_bytes()) {
        match stream.read(&mut part)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend(&part[..length]),
        }
    }
    Ok(())
}

/// What clients experienced during a flood.
#[derive(Debug, Default)]
struct Tried {
    done: u32,
    failed: Vec<String>,
    slowest: Duration,
}

impl Tried {
    fn attempt(&mut self, what: impl FnOnce() -> Result<(), String>) {
        let began = Instant::now();
        match what() {
            Ok(()) => self.done += 1,
            Err(error) => self.failed.push(error),
        }
        self.slowest = self.slowest.max(began.elapsed());
    }
}

/// New connections, one after the other, until told to end.
fn newcomers(lab: &Lab, over: &AtomicBool) -> Tried {
    lab.within("client", || {
        let mut tried = Tried::default();
        for n in (10..50).cycle() {
            for family in Family::BOTH {
                tried.attempt(|| {
                    let client = family.client(n);
                    get(client, family.vip(), 80).map(drop).map_err(|error| format!("{client}: {error}"))
                });
            }
            std::thread::sleep(Duration::from_millis(20));
            if over.load(Ordering::Relaxed) {
                break;
            }
        }
        tried
    })
}

/// Requests on connections that were open before the flood.
fn regulars(streams: &mut [TcpStream], over: &AtomicBool) -> Tried {
    let mut tried = Tried::default();
    while !over.load(Ordering::Relaxed) {
        for stream in streams.iter_mut() {
            tried.attempt(|| request(stream).map_err(|error| error.to_string()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    tried
}

/// Sends packets of all kinds, each of a family from another source: the `first` and those after it, `total` in all. With
/// `patient` it waits when too many wait.
fn flood(lab: &Lab, sender: &Sender, (first, total): (u32, u32), patient: bool) -> Duration {
    let began = Instant::now();
    let to = |web, echo| {
        let kinds = [Kind::Syn(web), Kind::Datagram(echo)];
        Family::BOTH.map(|family| kinds.map(|kind| (family, Source::new(sender, family, kind)))).into_iter().flatten()
    };
    let (mut answered, mut silent) = (to(80, 7007).collect::<Vec<_>>(), to(SINK, SINK).collect::<Vec<_>>());
    let mut next = [first; 2];
    let mut sent = 0;
    for round in 0.. {
        for (family, source) in if round % ANSWERED == 0 { &mut answered } else { &mut silent } {
            let next = &mut next[usize::from(*family == Family::V6)];
            let count = source.send(sender, *next);
            *next += count;
            sent += count;
        }
        while patient && round % 8 == 0 && kernel(lab).waiting > WAITING {
            std::thread::sleep(Duration::from_millis(1));
        }
        if sent >= total {
            break;
        }
    }
    began.elapsed()
}

/// Resident memory of supervisor and workers, kB.
fn resident(loaded: &Loaded) -> Vec<u64> {
    std::iter::once(loaded.pid()).chain(loaded.workers()).map(|pid| size(pid).0).collect()
}

/// A client opens a connection from each of these ports, whose backend is played as well.
fn open_all(lab: &Lab, (client, backend): (&Sender, &Sender), family: Family, ports: std::ops::RangeInclusive<u16>) {
    let hog: IpAddr = HOG[usize::from(family == Family::V6)].parse().unwrap();
    let segment = |from: (IpAddr, u16), to: (IpAddr, u16), flags: u8| {
        let mut header = syn(from.1, to.1);
        header[13] = flags;
        complete(ip(from.0, to.0, TCP, &header))
    };
    let (vip, nobody) = ((family.vip(), SINK), (family.backend(NOBODY), SINK));
    let ports: Vec<u16> = ports.collect();
    for some in ports.chunks(2048) {
        for (sender, flags, by_client) in [(client, 2, true), (backend, 18, false), (client, 16, true)] {
            let packets = some.iter().map(|&port| match by_client {
                true => segment((hog, port), vip, flags),
                false => segment(nobody, (hog, port), flags),
            });
            let frames: Vec<_> = packets.map(|packet| sender.frame(&packet)).collect();
            frames.chunks(64).for_each(|frames| sender.send_all(frames));
            assert!(eventually(Duration::from_secs(10), || lab.waiting() == 0), "{}", lab.queues());
        }
    }
}

fn flows_of(loaded: &Loaded, service: &str, family: Family, n: u16) -> u64 {
    loaded.backend(service, family.backend(n))["flows"].as_u64().unwrap()
}

/// Every worker's outcomes sum up to what it received, and no worker has died.
fn accounts(loaded: &Loaded, workers: &[u32]) {
    for worker in loaded.counters() {
        assert_eq!(worker.outcomes(), worker.received, "{worker:?}");
        assert_eq!(worker.of("dropped_undecided") + worker.of("dropped_table_full"), 0, "{worker:?}");
        println!("{worker:?}");
    }
    assert_eq!(loaded.workers(), workers, "a worker has died");
}

#[test]
fn ten_million_spoofed_sources_hurt_nobody() {
    measured(|lab| {
        let loaded = Loaded::toml(lab, &config(""));
        prepare(lab);
        let workers = loaded.workers();
        let sender = Sender::to_balancer(lab, "client", "eth0");
        let total = u32::try_from(setting("E2E_FLOOD", 10_000_000)).unwrap();
        let mut streams: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| (10..14).map(move |n| (family, n)))
            .map(|(family, n)| {
                let to = SocketAddr::new(family.vip(), 80);
                let mut stream = lab.within("client", || dial(family.client(n), to)).unwrap();
                request(&mut stream).unwrap();
                stream
            })
            .collect();
        let bytes = 16 << 20;
        let expected = sum_of(lab, bytes);
        // Each worker has had its first packets, and what they cost.
        let before = resident(&loaded);
        let over = AtomicBool::new(false);
        let (time, new, old) = std::thread::scope(|scope| {
            let stop = Stop(&over);
            let old = scope.spawn(|| regulars(&mut streams, &over));
            let new = scope.spawn(|| newcomers(lab, &over));
            let slow = Family::BOTH.map(|family| {
                scope.spawn(move || download(lab, family.client(20), SocketAddr::new(family.vip(), 80), bytes, "1M"))
            });
            let time = flood(lab, &sender, (0, total), true);
            for slow in slow {
                let said = slow.join().unwrap();
                assert_eq!((said.code, said.out), (Some(0), expected.clone()), "{}", said.err);
            }
            drop(stop);
            (time, new.join().unwrap(), old.join().unwrap())
        });
        let after = resident(&loaded);
        println!("{total} packets in {time:.1?}; kB {before:?}, then {after:?}; {:?}", kernel(lab));
        for (who, tried) in [("new connections", &new), ("requests of old ones", &old)] {
            println!("{who}: {} done, {} failed, slowest {:.2?}", tried.done, tried.failed.len(), tried.slowest);
        }
        assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
        accounts(&loaded, &workers);
        assert!(old.failed.is_empty() && old.done > 0, "{:?}", old.failed);
        assert!(new.failed.is_empty() && new.done > 0, "{:?}", new.failed);
        for (before, after) in before.iter().zip(&after) {
            assert!(*after < before + 2048, "kB: {before} before, {after} after");
        }
        loaded.stop();
    });
}

/// Ends the clients, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn one_client_with_all_its_ports_keeps_nobody_else_out() {
    measured(|lab| {
        let loaded = Loaded::toml(lab, &config("flows = 4096"));
        prepare(lab);
        let workers = loaded.workers();
        let senders = [("client", "eth0"), ("b3", "eth1")].map(|(who, to)| Sender::to_balancer(lab, who, to));
        for family in Family::BOTH {
            open_all(lab, (&senders[0], &senders[1]), family, 1..=u16::MAX);
            // All of a worker's places are taken, by one client.
            let held = Family::BOTH.map(|family| flows_of(&loaded, "sink", family, NOBODY));
            println!("{family:?}: the one client of each family has {held:?} flows");
            assert!(held.iter().sum::<u64>() >= 8000, "{held:?}");
            // Forty others: about half of them are that worker's.
            let refused = lab.within("client", || {
                let clients = (10..50).map(|n| family.client(n));
                clients.filter_map(|client| Some((client, get(client, family.vip(), 80).err()?))).collect::<Vec<_>>()
            });
            assert!(refused.is_empty(), "{} of 40 do not get in: {refused:?}", refused.len());
        }
        accounts(&loaded, &workers);
        loaded.stop();
    });
}

/// More than workers can take: the kernel drops it, counts it, and the log tells once in ten seconds.
#[test]
fn a_full_queue_is_told_and_nothing_more() {
    measured(|lab| {
        let loaded = Loaded::toml(lab, &config("queue_len = 64"));
        prepare(lab);
        let workers = loaded.workers();
        let sender = Sender::to_balancer(lab, "client", "eth0");
        let (began, mut sent) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(3) {
            flood(lab, &sender, (sent, 10_000), false);
            sent += 10_000;
        }
        assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
        assert!(kernel(lab).dropped > 0, "nothing was lost of {sent} packets");
        let told = || loaded.log().matches("packets were dropped before they could be answered").count();
        assert!(eventually(Duration::from_secs(3), || told() > 0), "the log does not say so");
        // Of each of two queues, in ten seconds once.
        let most = 2 * (1 + usize::try_from(began.elapsed().as_secs()).unwrap() / 10);
        assert!(told() <= most, "{} lines, not {most}", told());
        let status = loaded.status();
        let queues = status["queues"].as_array().unwrap();
        let counted: u64 = queues.iter().map(|queue| queue["dropped_full"].as_u64().unwrap()).sum();
        // Asked last: what the balancer's interface still holds may come and be dropped meanwhile.
        let dropped = kernel(lab).dropped;
        println!("{sent} packets, {dropped} dropped by full queues; {} lines in the log", told());
        assert!(counted > 0 && counted <= dropped, "{counted} of {dropped} in the status");
        for family in Family::BOTH {
            let answers =
                lab.within("client", || (10..50).filter(|n| get(family.client(*n), family.vip(), 80).is_ok()).count());
            assert_eq!(answers, 40, "{family:?}: it serves as before");
        }
        accounts(&loaded, &workers);
        loaded.stop();
    });
}
