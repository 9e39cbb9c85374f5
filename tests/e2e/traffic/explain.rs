//! `loaded explain` predicts where a client's next packet goes.

use crate::rig::lab::{BACKENDS, Lab, eventually, setting};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::timed;
use crate::rig::net::Family;
use crate::rig::packet::{Dice, ESP, GRE, ICMP, ICMP6, SCTP, TCP, UDP, checksum, icmp, ip, syn, udp, upper};
use crate::rig::wire::{HEADER, Sender, open};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender as Channel, channel};
use std::time::{Duration, Instant};

/// How long a packet may take to arrive.
const TRANSIT: Duration = Duration::from_secs(3);
/// An idle worker reads its link every 50 ms, a busy one every 5 ms.
const KEEP_BUSY: Duration = Duration::from_millis(1);
/// The port of the background traffic: no question is about it. It is SCTP, which meets a worker with the kernel path too.
const BUSY_PORT: u16 = 7009;
/// Of so many questions one may be asked again: a worker that gets no processor for a second answers too late for its supervisor.
const ANSWERED_LATE: u64 = 100;
/// Where the backends of some services are.
const OTHER_PORT: u16 = 8080;

/// A packet as a question names it: by protocol and both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    protocol: u8,
    client: IpAddr,
    client_port: u16,
    vip: IpAddr,
    vip_port: u16,
}

impl Tuple {
    /// Builds the packet; for an open TCP connection an ACK.
    fn packet(&self, goes_on: bool) -> Vec<u8> {
        let (from, to) = (self.client_port, self.vip_port);
        let mut payload = match self.protocol {
            TCP => syn(from, to),
            UDP => udp(from, to, 8 + 5, b"hello"),
            SCTP => [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8]].concat(),
            ICMP => icmp(8, 0, [from.to_be_bytes()[0], from.to_be_bytes()[1], 0, 1], b"ping"),
            ICMP6 => icmp(128, 0, [from.to_be_bytes()[0], from.to_be_bytes()[1], 0, 1], b"ping"),
            _ => vec![0; 12],
        };
        if self.protocol == TCP && goes_on {
            payload[13] = 16;
        }
        let mut packet = ip(self.client, self.vip, self.protocol, &payload);
        complete(&mut packet);
        packet
    }

    /// What identifies it behind the balancer.
    fn key(&self) -> Key {
        match self.protocol {
            TCP | UDP | SCTP => (self.protocol, self.client, self.client_port, self.vip_port),
            ICMP | ICMP6 => (self.protocol, self.client, self.client_port, 0),
            other => (other, self.client, 0, 0),
        }
    }
}

/// Protocol, client, its port or identifier, and the service's port.
type Key = (u8, IpAddr, u16, u16);

/// Fills in the checksum that covers the addresses.
fn complete(packet: &mut [u8]) {
    let (at, protocol) = upper(packet);
    let place = at
        + match protocol {
            TCP => 16,
            UDP => 6,
            ICMP6 => 2,
            _ => return,
        };
    packet[place..place + 2].fill(0);
    let addresses = if packet[0] >> 4 == 4 { &packet[12..20] } else { &packet[8..40] };
    let length = u32::try_from(packet.len() - at).unwrap().to_be_bytes();
    let sum = checksum(&[addresses, &length, &[0, 0, 0, protocol], &packet[at..]].concat());
    packet[place..place + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
}

fn source_and_destination(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
    if packet[0] >> 4 == 4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

/// The key of a packet that arrived at this backend.
fn arrived(packet: &[u8], backend: u16) -> Option<Key> {
    let least = packet.first().map(|byte| if byte >> 4 == 4 { 28 } else { 48 });
    if !matches!(packet.first().map(|byte| byte >> 4), Some(4 | 6)) || Some(packet.len()) < least {
        return None;
    }
    let (client, to) = source_and_destination(packet);
    if !Family::BOTH.map(|family| family.backend(backend)).contains(&to) {
        return None;
    }
    let ours = match client {
        IpAddr::V4(v4) => v4.octets().starts_with(&[10, 50]),
        IpAddr::V6(v6) => v6.segments().starts_with(&[0x2001, 0xdb8, 0x50]),
    };
    if !ours {
        return None;
    }
    let (at, protocol) = upper(packet);
    let word = |place: usize| u16::from_be_bytes([packet[at + place], packet[at + place + 1]]);
    Some(match protocol {
        // A worker tells a backend that is out that a connection is over.
        TCP if packet.get(at + 13)? & 4 != 0 => return None,
        TCP | UDP | SCTP => (protocol, client, word(0), word(2)),
        ICMP | ICMP6 if matches!(packet[at], 8 | 128) => (protocol, client, word(4), 0),
        other => (other, client, 0, 0),
    })
}

/// Reports what arrives at backend `n`, from 1, until it is over.
fn watch(lab: &Lab, n: u16, news: &Channel<(u16, Key)>, over: &AtomicBool) {
    let socket = lab.within(BACKENDS[usize::from(n) - 1], open);
    let mut frame = vec![0; 1 << 16];
    while !over.load(Ordering::Relaxed) {
        let length = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap_or(0);
        if let Some(key) = arrived(frame.get(HEADER..length).unwrap_or_default(), n) {
            let _ = news.send((n, key));
        }
    }
}

/// One question over the control socket.
fn explain(lab: &Lab, tuple: &Tuple) -> Value {
    let Tuple { protocol, client, client_port, vip, vip_port } = tuple;
    let request = json!({ "explain": {
        "protocol": protocol, "client": client, "client_port": client_port, "vip": vip, "vip_port": vip_port,
    } });
    let mut stream = UnixStream::connect(lab.state().join("control.sock")).unwrap();
    stream.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

/// Services of every strategy, with and without affinity. Whatever comes to a VIP comes to a worker.
fn toml() -> String {
    let [vip4, vip6] = Family::BOTH.map(Family::vip);
    let [other4, other6] = Family::BOTH.map(second_vip);
    let service = |name: &str, vips: [IpAddr; 2], protocol: &str, strategy: &str, affinity: &str, weights: [u16; 3]| {
        let backend = |(n, weight)| {
            Family::BOTH
                .map(|family| format!("[[service.backend]]\naddress = \"{}\"\nweight = {weight}\n", family.backend(n)))
        };
        let backends: String = (1..).zip(weights).flat_map(backend).collect();
        format!(
            "[[service]]\nname = \"{name}\"\nvip = [\"{}\", \"{}\"]\n{protocol}\nstrategy = \"{strategy}\"\n\
             affinity = {affinity}\n{backends}",
            vips[0], vips[1]
        )
    };
    let one = "{ by = \"client\", prefix6 = 128 }";
    let net = "{ by = \"client\", prefix4 = 24, prefix6 = 64 }";
    let vips = [vip4, vip6];
    [
        "cores = \"0-1\"\nunserved = \"drop\"\n".to_owned(),
        service(
            "hash",
            vips,
            &format!("protocol = \"tcp\"\nports = [80]\nport = {OTHER_PORT}"),
            "maglev",
            "\"none\"",
            [1, 1, 1],
        ),
        service("net", vips, "protocol = \"tcp\"\nports = [81]", "rr", net, [1, 2, 3]),
        // The last of its backends, of both families, is elsewhere.
        service("echo", vips, "protocol = \"udp\"\nports = [7007]", "weighted", one, [3, 1, 1])
            .replace(
                &format!("{}\"", Family::V4.backend(3)),
                &format!("{}\"\nport = {OTHER_PORT}", Family::V4.backend(3)),
            )
            .replace(
                &format!("{}\"", Family::V6.backend(3)),
                &format!("{}\"\nport = {OTHER_PORT}", Family::V6.backend(3)),
            ),
        service("signal", vips, "protocol = \"sctp\"\nports = [36412]\nport = 36413", "rr", one, [1, 1, 1]),
        service("busy", vips, &format!("protocol = \"sctp\"\nports = [{BUSY_PORT}]"), "rr", "\"none\"", [1, 1, 1]),
        service("all", [other4, other6], "protocol = \"any\"", "rr", "\"none\"", [2, 1, 1]),
    ]
    .concat()
}

fn second_vip(family: Family) -> IpAddr {
    family.client(101)
}

/// A client that may or may not have come before.
fn client(dice: &mut Dice, family: Family) -> IpAddr {
    // Few networks of many hosts.
    let (net, host) = (dice.byte() % 100, dice.word());
    match family {
        Family::V4 => Ipv4Addr::new(10, 50, net, host.to_be_bytes()[3].clamp(1, 254)).into(),
        Family::V6 => {
            let [a, b, ..] = host.to_be_bytes();
            Ipv6Addr::new(0x2001, 0xdb8, 0x50, net.into(), 0, 0, a.into(), u16::from(b) + 1).into()
        }
    }
}

fn tuple(dice: &mut Dice) -> Tuple {
    let family = dice.one_of(&Family::BOTH);
    let (first, second) = (family.vip(), second_vip(family));
    let echo = if family == Family::V4 { ICMP } else { ICMP6 };
    let any = u16::from_be_bytes([dice.byte(), dice.byte()]).max(1);
    let (protocol, vip, vip_port) = match dice.below(20) {
        0..=4 => (TCP, first, 80),
        5..=8 => (TCP, first, 81),
        9..=11 => (UDP, first, 7007),
        12 => (TCP, first, any),
        13 => (UDP, first, any),
        14 => (dice.one_of(&[echo, SCTP, GRE]), first, dice.one_of(&[36412, any])),
        15 | 16 => (TCP, second, dice.one_of(&[80, 81, any])),
        17 => (UDP, second, any),
        18 => (SCTP, second, any),
        _ => (dice.one_of(&[echo, GRE, ESP]), second, 0),
    };
    let has_ports = matches!(protocol, TCP | UDP | SCTP);
    let client_port = if has_ports || protocol == echo { any.rotate_left(5).max(1024) } else { 0 };
    Tuple { protocol, client: client(dice, family), client_port, vip, vip_port: if has_ports { vip_port } else { 0 } }
}

/// Keeps every worker busy with a packet of a known flow now and then.
fn keep_busy(lab: &Lab, over: &AtomicBool) {
    let sender = Sender::to_balancer(lab, "client", "eth0");
    let of = |n: u8| Tuple {
        protocol: SCTP,
        client: Ipv4Addr::new(10, 60, n, 1).into(),
        client_port: 5000,
        vip: Family::V4.vip(),
        vip_port: BUSY_PORT,
    };
    let mut by_worker = BTreeMap::new();
    for n in 0..=255 {
        if let Some(worker) = explain(lab, &of(n))["explained"]["worker"].as_u64() {
            by_worker.entry(worker).or_insert(of(n));
        }
        if by_worker.len() == 2 {
            break;
        }
    }
    assert_eq!(by_worker.len(), 2, "each worker has clients");
    while !over.load(Ordering::Relaxed) {
        by_worker.values().for_each(|tuple| sender.send(&tuple.packet(false)));
        std::thread::sleep(KEEP_BUSY);
    }
}

#[test]
fn ten_thousand_answers_are_what_happens() {
    let Some(lab) = Lab::up() else { return };
    lab.sh(
        "lb",
        "ip route add 10.0.0.0/8 via 192.0.2.1; ip -6 route add 2001:db8:50::/48 via 2001:db8:1::1
         for all in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $all; done",
    );
    lab.sh("client", "ip route add blackhole 10.0.0.0/8; ip -6 route add blackhole 2001:db8:50::/48");
    let loaded = Loaded::toml(&lab, &toml());
    let over = AtomicBool::new(false);
    let ends = std::thread::scope(|scope| {
        let (news, heard) = channel();
        for n in 1..=3 {
            let (lab, news, over) = (&lab, news.clone(), &over);
            scope.spawn(move || watch(lab, n, &news, over));
        }
        scope.spawn(|| keep_busy(&lab, &over));
        std::thread::sleep(Duration::from_millis(500));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&lab, &loaded, &heard)));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    for (label, count) in &ends {
        // What kept the workers busy began a flow at each, and has many packets more.
        let others = if label == "forwarded_new" { 2 } else { 0 };
        let counted = loaded.count(label);
        assert!(counted == count + others || label == "forwarded", "{label}: {counted} for {count}");
    }
    assert!(!loaded.log().contains("killing it"), "{}", loaded.log());
    loaded.stop();
}

/// Asks about a packet, then sends it, and compares. Returns how often each outcome was predicted.
fn compare(lab: &Lab, loaded: &Loaded, heard: &Receiver<(u16, Key)>) -> BTreeMap<String, u64> {
    let count = setting("E2E_EXPLAIN_TUPLES", 10_000);
    let (mut dice, sender) = (Dice::new(0x5eed), Sender::to_balancer(lab, "client", "eth0"));
    let mut sent: Vec<Tuple> = Vec::new();
    let (mut ends, mut reasons) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let began = Instant::now();
    let (mut slowest, mut late) = (Duration::ZERO, 0);
    for n in 0..count {
        // What the operator does meanwhile is known to the worker before the next question.
        if n == count / 3 {
            assert_eq!(loaded.ask(&["backend", "drain", "198.51.100.12"]).code, Some(0));
            assert_eq!(loaded.ask(&["backend", "disable", "2001:db8:2::13"]).code, Some(0));
        }
        if n == count * 2 / 3 {
            assert_eq!(loaded.ask(&["backend", "enable", "198.51.100.12"]).code, Some(0));
            assert_eq!(loaded.ask(&["backend", "enable", "2001:db8:2::13"]).code, Some(0));
        }
        let tuple = match sent.len() {
            // Again; or with what is the same behind the balancer, from another virtual IP.
            before if before > 200 && dice.below(5) == 0 => {
                let old = sent[before - 1 - dice.below(200)];
                let family = if old.vip.is_ipv4() { Family::V4 } else { Family::V6 };
                // The same behind the balancer: by the backend's port, where that is another one.
                let meets = |port| if port == 80 { OTHER_PORT } else { port };
                let (vip, vip_port) = (second_vip(family), meets(old.vip_port));
                if dice.below(4) == 0 { Tuple { vip, vip_port, ..old } } else { old }
            }
            _ => tuple(&mut dice),
        };
        let asked = Instant::now();
        let mut answer = explain(lab, &tuple);
        while answer["error"]["text"].as_str().is_some_and(|text| text.contains("has not answered within")) {
            late += 1;
            assert!(late <= count / ANSWERED_LATE, "{late} of {n} questions were answered late: {answer}");
            answer = explain(lab, &tuple);
        }
        slowest = slowest.max(asked.elapsed());
        let said = &answer["explained"];
        let outcome = said["outcome"].as_str().unwrap_or_else(|| panic!("{tuple:?}: {answer}")).to_owned();
        sender.send(&tuple.packet(said["assumed"] == "an ACK"));
        if let Some(backend) = said["backend"].as_str() {
            let port = said["backend_port"].as_u64().map(|port| u16::try_from(port).unwrap());
            let (protocol, client, client_port, vip_port) = tuple.key();
            let place = wait_for(heard, (protocol, client, client_port, port.unwrap_or(vip_port)));
            let elsewhere = match said["service"].as_str() {
                Some("hash") => Some(OTHER_PORT),
                Some("echo") if place == Some(3) => Some(OTHER_PORT),
                Some("signal") => Some(36413),
                _ => None,
            };
            assert_eq!(port, elsewhere, "{tuple:?}: {answer}");
            let place = place.map(|n| Family::BOTH.map(|family| family.backend(n).to_string()));
            assert!(
                place.as_ref().is_some_and(|place| place.iter().any(|address| address == backend)),
                "{n}: {tuple:?} came to {place:?}: {answer}"
            );
            *reasons.entry(said["by"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
        *ends.entry(outcome).or_insert(0) += 1;
        sent.push(tuple);
    }
    let took = began.elapsed();
    println!("{count} tuples in {took:.1?}, {late} asked again, the slowest after {slowest:.1?}: {ends:?} {reasons:?}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), [], "packets arrived that were not to");
    for wanted in ["forwarded", "forwarded_new", "dropped_unserved"] {
        assert!(ends.get(wanted).is_some_and(|count| *count >= 10), "{wanted}: {ends:?}");
    }
    // A client's second VIP would often have meant the backend of the first.
    for (wanted, least) in [("flow", 100), ("client", 100), ("strategy", 100), ("clash", 10)] {
        assert!(reasons.get(wanted).is_some_and(|count| *count >= least), "{wanted}: {reasons:?}");
    }
    ends
}

/// The backend at which the packet arrives. No other packet may arrive.
fn wait_for(heard: &Receiver<(u16, Key)>, key: Key) -> Option<u16> {
    let (backend, arrived) = heard.recv_timeout(TRANSIT).ok()?;
    assert_eq!(arrived, key, "arrived at backend {backend}, and was not to");
    Some(backend)
}

#[test]
fn a_person_reads_it_and_a_stopped_worker_holds_nobody_up() {
    timed(|lab| {
        let loaded = Loaded::toml(lab, &toml());
        let words = |client: &'static str| ["explain", "tcp", client, "192.0.2.100:80"];
        let said = loaded.ask(&words("192.0.2.10:40000"));
        assert_eq!(said.code, Some(0), "{}", said.err);
        let lines: Vec<_> = said.out.lines().collect();
        assert!(
            lines[0].starts_with("tcp 192.0.2.10:40000 -> 192.0.2.100:80: a SYN, handled by worker "),
            "{}",
            said.out
        );
        assert_eq!(lines[1], "service hash, no flow yet");
        assert!(lines[2].starts_with("forwarded_new: begins a flow to 198.51.100.1"), "{}", said.out);
        assert!(lines[2].contains(", chosen by maglev (seed ") && lines[2].ends_with(") among 3"), "{}", said.out);
        let said = loaded.ask(&["explain", "tcp", "192.0.2.10:40000", "192.0.2.99:80"]);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains("192.0.2.99 is not a virtual IP of this instance"), "{}", said.err);

        let workers = loaded.workers();
        workers.iter().for_each(|pid| signal_to(*pid, Signal::SIGSTOP));
        // Of both workers; the second part of them is refused at once, since the first is not answered.
        for n in 0..40 {
            let client = Ipv4Addr::new(10, 50, n, 1).into();
            let tuple = Tuple { protocol: TCP, client, client_port: 1000, vip: Family::V4.vip(), vip_port: 80 };
            let began = Instant::now();
            let answer = explain(lab, &tuple);
            let text = answer["error"]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
            assert!(text.contains("has not answered") && text.starts_with("worker["), "{text}");
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            let began = Instant::now();
            assert!(loaded.status().is_object());
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
        assert_eq!(loaded.workers(), workers, "a stopped worker without packets is not hung");
        workers.iter().for_each(|pid| signal_to(*pid, Signal::SIGCONT));
        std::thread::sleep(Duration::from_millis(300));
        for n in 0..40 {
            let client = Ipv4Addr::new(10, 50, n, 1).into();
            let tuple = Tuple { protocol: TCP, client, client_port: 1000, vip: Family::V4.vip(), vip_port: 80 };
            let answer = explain(lab, &tuple);
            assert_eq!(answer["explained"]["outcome"], "forwarded_new", "{answer}");
        }
        assert_eq!(loaded.workers(), workers);
        loaded.stop();
    });
}

/// Each answer belongs to one configuration; an answer by the previous one is no protocol error.
#[test]
fn questions_during_reloads_are_answered_or_refused() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml());
    let over = AtomicBool::new(false);
    let generation = || loaded.status()["generation"].as_u64().unwrap();
    let workers = loaded.workers();
    let (answered, refused) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut answered, mut refused, mut dice) = (0, BTreeMap::<String, u32>::new(), Dice::new(7));
            while !over.load(Ordering::Relaxed) {
                let answer = explain(&lab, &tuple(&mut dice));
                match answer["error"]["text"].as_str() {
                    None => answered += u32::from(answer["explained"]["outcome"].is_string()),
                    Some(text) => *refused.entry(text.to_owned()).or_insert(0) += 1,
                }
            }
            (answered, refused)
        });
        for n in 0..12 {
            let (before, other) = (generation(), toml().replace("weight = 2", "weight = 9"));
            lab.file("loaded.toml", &if n % 2 == 0 { other } else { toml() });
            loaded.signal(Signal::SIGHUP);
            assert!(eventually(Duration::from_secs(10), || generation() > before), "{}", loaded.log());
            std::thread::sleep(Duration::from_millis(250));
        }
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    println!("{answered} answers, and {refused:?}");
    let known = ["not serving now", "has just changed", "has not answered"];
    assert!(refused.keys().all(|text| known.iter().any(|known| text.contains(known))), "{refused:?}");
    assert!(answered > 10, "{answered}");
    assert!(!loaded.log().contains("killing it"), "{}", loaded.log());
    assert!(loaded.workers().iter().all(|pid| !workers.contains(pid)), "every reload brings new workers");
    loaded.stop();
}
