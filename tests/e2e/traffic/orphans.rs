//! What a backend sends in the middle of a connection that is not known here: no client sees a backend's own address. And what is
//! a backend's own passes: what it opens from a port that is served, and what others open at its own address.

use crate::rig::config::{STICKY, Service, config};
use crate::rig::kept_open::{KeptOpen, go_on};
use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::Loaded;
use crate::rig::net::{ANSWER_TIMEOUT, Family, dial_from, get};
use crate::rig::packet::{Dice, TCP, UDP, complete, ip, udp};
use crate::rig::queues::kernel;
use crate::rig::servers::{datagrams, echo};
use crate::rig::wire::{Sender, capture};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const SCTP: u8 = 132;
/// Nobody listens there, so a backend can open a connection from it.
const QUIET: u16 = 90;
const BACKENDS: [u16; 3] = [1, 2, 3];
/// A port of clients that no test has a connection from.
const NOBODYS: u16 = 39_999;
/// After so many forged packets honest clients use their connections and begin others.
const FORGED_BETWEEN: u64 = 20_000;

fn text(strategy: &str) -> String {
    let keys = format!("strategy = \"{strategy}\"\n{STICKY}");
    let backends = &[(1, 1), (2, 1), (3, 1)];
    let web = Service { keys: &keys, ports: "80, 90", backends, ..Service::default() };
    let echo = Service { name: "echo", protocol: "udp", ports: "7007, 7008", ..web.clone() };
    config("5s", &[web.clone(), echo, Service { name: "diameter", protocol: "sctp", ports: "3868", ..web }])
}

fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    complete(ip(from.ip(), to.ip(), TCP, &[&ports[..], &rest].concat()))
}

fn datagram(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    complete(ip(from.ip(), to.ip(), UDP, &udp(from.port(), to.port(), 13, b"hello")))
}

/// Of SCTP, in the middle of an association: it has a verification tag.
fn chunk(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    ip(from.ip(), to.ip(), SCTP, &[&ports[..], b"tag!", &[0; 4], &[3, 0, 0, 4]].concat())
}

/// Whether a packet comes from this address.
fn is_from(packet: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            packet.first().is_some_and(|b| b >> 4 == 4) && packet.get(12..16) == Some(&address.octets()[..])
        }
        IpAddr::V6(address) => {
            packet.first().is_some_and(|b| b >> 4 == 6) && packet.get(8..24) == Some(&address.octets()[..])
        }
    }
}

/// The n-th of many that are nobody.
fn stranger(family: Family, n: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(10 << 24 | n & 0xff_ffff).into(),
        Family::V6 => Ipv6Addr::from(0xfd << 120 | u128::from(n) << 64 | 1).into(),
    }
}

/// All kinds of packets of backends to a client that has no connection.
fn stray(family: Family, n: u16, client: IpAddr) -> Vec<Vec<u8>> {
    let (from, to) = (|port| SocketAddr::new(family.backend(n), port), SocketAddr::new(client, NOBODYS));
    let segments = [ACK, SYN | ACK, RST, RST | ACK, FIN | ACK, 0].map(|flags| segment(from(80), to, flags));
    segments.into_iter().chain([datagram(from(7007), to), chunk(from(3868), to)]).collect()
}

#[test]
fn what_belongs_to_nobody_reaches_no_client_and_is_counted() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text("rr"));
    let sender = Sender::to_balancer(&lab, "b1", "eth1");
    let mut sent = 0;
    let ((), packets) = capture(&lab, "client", || {
        for family in Family::BOTH {
            for n in BACKENDS {
                for packet in stray(family, n, family.client(20)) {
                    sender.send(&packet);
                    sent += 1;
                }
            }
            // That we would see them.
            lab.within("client", || get(family.client(21), family.vip(), 80)).unwrap();
        }
    });
    for family in Family::BOTH {
        assert!(packets.iter().any(|packet| is_from(packet, family.vip())), "nothing was captured");
        for backend in BACKENDS.map(|n| family.backend(n)) {
            let leak = packets.iter().find(|packet| is_from(packet, backend));
            assert!(leak.is_none(), "{backend} shows in {leak:02x?}");
        }
    }
    assert_eq!(loaded.count("dropped_orphan"), sent);
    loaded.stop();
}

/// One that is silent for longer than an opening may take, and in which the backend then speaks first.
#[test]
fn a_backends_own_connections_from_served_ports_pass() {
    let Some(lab) = Lab::up() else { return };
    let idle = "[service.idle]\nhalf_open = \"3s\"\n";
    let text = text("maglev").replacen("[[service.backend]]", &format!("{idle}[[service.backend]]"), 1);
    let loaded = Loaded::toml(&lab, &text);
    for family in Family::BOTH {
        for n in BACKENDS {
            let own = SocketAddr::new(family.backend(n), QUIET);
            let there = SocketAddr::new(family.client(1), 8080);
            let mut stream = lab.within(&format!("b{n}"), || dial_from(own, there)).unwrap();
            std::thread::sleep(Duration::from_millis(if own.is_ipv4() && n == 1 { 4500 } else { 0 }));
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with(&format!("client {}\n", own.ip())), "{answer}");
            // To its own address, past the virtual IPs.
            let client = family.client(20);
            let answer = lab.within("client", || get(client, family.backend(n), 80)).unwrap();
            assert_eq!(answer, format!("b{n} {client}"));
        }
    }
    assert_eq!(loaded.count("dropped_orphan"), 0);
    assert!(loaded.count("passed_own") > 0, "they did not pass through a worker");
    loaded.stop();
}

/// `E2E_FORGED` packets in backends' names, 50,000 without, to clients that have nothing to do with it and to those that have
/// connections, while all places are taken: none opens anything, nobody loses a place, and whoever begins is served.
#[test]
fn forged_replies_open_nothing_and_take_nobodys_place() {
    let Some(lab) = Lab::up() else { return };
    let [four, six] = Family::BOTH.map(|family| family.client(1));
    lab.sh("lb", &format!("ip route add 10.0.0.0/8 via {four}; ip route add fd00::/8 via {six}"));
    let loaded = Loaded::toml(&lab, &format!("cores = \"0-1\"\nflows = 1024\n{}", text("maglev")));
    let each = || Family::BOTH.into_iter().flat_map(|family| (10..20).map(move |n| (family, n)));
    let asks = |first: u16| {
        for (family, n) in each() {
            let client = family.client(n + first);
            lab.within("client", || get(client, family.vip(), 80)).unwrap_or_else(|e| panic!("{client}: {e}"));
        }
    };
    let mut connections = KeptOpen::all(&lab, 10..20, 80);
    let sockets: Vec<_> = each().map(|(family, n)| datagrams(&lab, family, n, 7007)).collect();
    let echoed = || sockets.iter().map(|socket| echo(socket, ANSWER_TIMEOUT).unwrap()).collect::<Vec<_>>();
    let at_first = echoed();
    // Whoever asks again has heard the answer.
    assert_eq!(echoed(), at_first);
    let sender = Sender::to_balancer(&lab, "b1", "eth1");
    let (total, began) = (setting("E2E_FORGED", 50_000), Instant::now());
    let sent = forge(&lab, &sender, total, || {
        asks(10);
        go_on(&lab, &mut connections);
        assert_eq!(echoed(), at_first);
    });
    println!("{sent} packets in {:.1} s", began.elapsed().as_secs_f64());
    all_are_counted(&lab, &loaded, sent);
    only_these_are_open(&loaded, connections.len() + sockets.len());
    assert_eq!(echoed(), at_first);
    go_on(&lab, &mut connections);
    asks(20);
    assert_eq!(loaded.count("dropped_table_full"), 0);
    loaded.stop();
}

/// No more than so many flows are open, in whatever state that is, though there is hardly a place left.
#[track_caller]
fn only_these_are_open(loaded: &Loaded, honest: usize) {
    let flows = loaded.json(&["flows", "--limit", "0"]);
    let of = |states: &[&str]| states.iter().filter_map(|state| flows["states"][state].as_u64()).sum::<u64>();
    let open = of(&["established", "client_done", "backend_done", "last_ack", "datagram"]);
    assert_eq!(open, u64::try_from(honest).unwrap(), "{flows}");
    let evicted = loaded.status()["pressure"]["flow_evicted"].as_u64().unwrap();
    println!("{} places taken, {evicted} flows gave way: {}", flows["total"], flows["states"]);
    assert!(evicted > 0, "the tables are not full: {flows}");
}

/// Each of so many packets came to a worker and has an outcome.
#[track_caller]
fn all_are_counted(lab: &Lab, loaded: &Loaded, sent: u64) {
    assert_eq!(kernel(lab).dropped, 0, "{}", lab.queues());
    let counters = loaded.counters();
    for counted in &counters {
        assert_eq!(counted.received, counted.outcomes(), "{counted:?}");
    }
    let received: u64 = counters.iter().map(|counted| counted.received).sum();
    assert!(received >= sent, "{received} of {sent} came");
    let count = |label: &str| counters.iter().map(|counted| counted.of(label)).sum::<u64>();
    let outcomes = ["dropped_orphan", "returned", "passed_own"].map(|label| (label, count(label)));
    println!("{received} received, among them {outcomes:?}");
    assert!(outcomes.iter().all(|(_, count)| *count > 0), "{outcomes:?}");
}

/// Sends `total` packets in backends' names or a few more, and says how many; `meanwhile` runs now and then.
fn forge(lab: &Lab, sender: &Sender, total: u64, mut meanwhile: impl FnMut()) -> u64 {
    let mut dice = Dice::new(19);
    let (mut sent, mut next) = (0, FORGED_BETWEEN);
    while sent < total {
        let each = || Family::BOTH.into_iter().flat_map(|family| BACKENDS.map(|n| (family, n)));
        let packets: Vec<_> = each().flat_map(|(family, n)| forged(&mut dice, family, n)).collect();
        sent += u64::try_from(packets.len()).unwrap();
        sender.send_all(&packets.iter().map(|packet| sender.frame(packet)).collect::<Vec<_>>());
        while kernel(lab).waiting > 2048 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if sent >= next {
            next += FORGED_BETWEEN;
            meanwhile();
        }
    }
    assert!(eventually(Duration::from_secs(10), || lab.waiting() == 0), "{}", lab.queues());
    sent
}

/// A packet of each kind that a backend sends, each to a client and a port by chance; every eighth client is one that has connections.
fn forged(dice: &mut Dice, family: Family, n: u16) -> Vec<Vec<u8>> {
    let mut to = || {
        let client = match dice.below(8) {
            0 => family.client(10 + u16::try_from(dice.below(30)).unwrap()),
            _ => stranger(family, u32::try_from(dice.below(1 << 24)).unwrap()),
        };
        SocketAddr::new(client, u16::try_from(1024 + dice.below(64_000)).unwrap())
    };
    let from = |port| SocketAddr::new(family.backend(n), port);
    let segments = [ACK, SYN | ACK, SYN, RST | ACK, FIN | ACK].map(|flags| segment(from(80), to(), flags));
    segments.into_iter().chain([datagram(from(7007), to())]).collect()
}
