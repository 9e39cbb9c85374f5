//! Changes of rules under traffic: numbered packets, both ways, through real queues. None may be lost, and none may get
//! to the other side without having been in a queue.

use super::*;
use loaded_ipc::Destination;
use loaded_netfilter::Served;
use loaded_queue::{Owner, QueueSocket, Verdict};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

const UPDATES: usize = 50;
/// Between two packets of one sender: four of them make 4000 a second.
const PACE: Duration = Duration::from_millis(1);
/// What is always served.
const PORT: u16 = 80;

/// Numbers that came to a place.
type Seen = BTreeSet<(u8, u32)>;

/// One of the four streams: requests and replies of each family.
fn streams() -> [(IpAddr, IpAddr); 4] {
    let (v4, v6) = clients().next().unwrap();
    [(v4, ip(VIP4)), (ip(BACKENDS[0]), v4), (v6, ip(VIP6)), (ip(BACKENDS[2]), v6)]
}

/// Sends until `end`; returns how many.
fn send_numbers(stream: u8, end: &AtomicBool) -> u32 {
    let (from, to) = streams()[usize::from(stream)];
    let socket = bound(SocketAddr::new(from, PORT));
    let (mut number, mut next) = (0_u32, Instant::now());
    while !end.load(Ordering::Relaxed) {
        let payload = [&[stream], &number.to_be_bytes()[..]].concat();
        socket.send_to(&payload, SocketAddr::new(to, PORT + 1000)).unwrap();
        number += 1;
        next += PACE;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    number
}

fn receiver(stream: u8) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(streams()[usize::from(stream)].1, PORT + 1000)).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

fn receive(socket: &UdpSocket, end: &AtomicBool) -> Seen {
    let (mut seen, mut buffer) = (Seen::new(), [0; 64]);
    loop {
        match socket.recv(&mut buffer) {
            Ok(5) => assert!(seen.insert(numbered(&buffer[..5])), "a packet came twice"),
            Ok(length) => panic!("{length} bytes"),
            Err(_) if end.load(Ordering::Relaxed) => return seen,
            Err(_) => {}
        }
    }
}

fn numbered(payload: &[u8]) -> (u8, u32) {
    (payload[0], u32::from_be_bytes(payload[1..5].try_into().unwrap()))
}

/// Accepts everything; the numbers are the last five bytes of a packet.
fn accept_all(owner: &Owner, end: &AtomicBool) -> Seen {
    let mut socket = QueueSocket::open(owner.as_fd().try_clone_to_owned().unwrap(), owner.queue()).unwrap();
    let mut seen = Seen::new();
    while !end.load(Ordering::Relaxed) {
        socket.receive().unwrap();
        while let Some(mut packet) = socket.next() {
            let bytes = packet.bytes();
            seen.insert(numbered(&bytes[bytes.len() - 5..]));
            packet.settle(Verdict::Accept);
        }
        socket.flush();
    }
    assert_eq!(socket.faults().unknown_id, 0, "the queue was flushed");
    seen
}

/// xorshift64: the same changes at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn to(address: IpAddr) -> Destination {
    Destination { address, port: None }
}

/// What the streams need, which may come as a whole VIP or as ports, and around it whatever may change. The streams of
/// IPv6 are only sent when `v6`; else its VIP comes and goes with the rest.
fn any_reach(random: &mut Random, v6: bool) -> Reach {
    let mut reach = Reach::of(&plan(40, &[VIP4], &BACKENDS[..2], Protocol::Udp));
    // Requests go to port 1080, replies come from port 80.
    reach.served[0].ports = vec![PortRange { low: PORT, high: PORT + 1000 + u16::try_from(random.below(9)).unwrap() }];
    if v6 || random.below(2) == 0 {
        reach.extend(Served { vips: vec![ip(VIP6)], backends: vec![to(ip(BACKENDS[2]))], ..reach.served[0].clone() });
    }
    let protocol = [Protocol::Any, Protocol::Tcp, Protocol::Udp][usize::try_from(random.below(3)).unwrap()];
    let backends = [0, 3, 40, 500][usize::try_from(random.below(4)).unwrap()];
    let first = u32::try_from(random.below(3)).unwrap() * 256;
    reach.extend(Served {
        vips: (0..=random.below(4)).map(|n| format!("192.0.2.{}", 100 + n).parse().unwrap()).collect(),
        protocol,
        ports: (0..random.below(20))
            .map(|n| 100 * u16::try_from(n).unwrap() + 7)
            .map(|p| PortRange { low: p, high: p + 1 })
            .collect(),
        backends: (0..backends).map(|n| to(Ipv4Addr::from_bits(0x0a08_0000 + first + n).into())).collect(),
        asymmetric: random.below(2) == 0,
        adopts: random.below(2) == 0,
    });
    reach
}

/// With `v6`, both families have traffic all the time; without, IPv6 gets its first VIP and loses its last one while
/// IPv4 has traffic.
fn updates_under_traffic(tools: &Tools, v6: bool) {
    everybody_lives_here();
    let rules = |reach: &Reach| RuleSet::new(reach, &QUEUES, &steering(&both_families(40)));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let owners = QUEUES.map(|queue| Owner::open(queue, 65_536).unwrap());
    let mut installed = Installed::install(&rules(&any_reach(&mut random, v6)), tools).unwrap();
    let used = if v6 { 0..4 } else { 0..2 };
    let receivers: Vec<_> = used.clone().map(receiver).collect();
    let [stop, settled] = [AtomicBool::new(false), AtomicBool::new(false)];
    let (sent, arrived, queued) = thread::scope(|scope| {
        let readers = owners.each_ref().map(|owner| scope.spawn(|| accept_all(owner, &settled)));
        let receiving: Vec<_> = receivers.iter().map(|socket| scope.spawn(|| receive(socket, &settled))).collect();
        let stop = &stop;
        let senders: Vec<_> = used.map(|stream| scope.spawn(move || send_numbers(stream, stop))).collect();
        let mut changed = 0;
        for _ in 0..UPDATES {
            let result = installed.update(&rules(&any_reach(&mut random, v6)));
            changed += usize::from(result.is_ok());
            thread::sleep(Duration::from_millis(random.below(20)));
        }
        stop.store(true, Ordering::Relaxed);
        let sent: Vec<u32> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        thread::sleep(Duration::from_millis(300));
        settled.store(true, Ordering::Relaxed);
        let all = |handles: Vec<ScopedJoinHandle<'_, Seen>>| {
            handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect::<Seen>()
        };
        let (arrived, queued) = (all(receiving), all(readers.into()));
        assert_eq!(changed, UPDATES);
        (sent, arrived, queued)
    });
    println!("{UPDATES} updates, packets of each stream: {sent:?}");
    let wanted: Seen = (0..).zip(&sent).flat_map(|(stream, count)| (0..*count).map(move |n| (stream, n))).collect();
    assert!(wanted.len() > 1000, "too little traffic to show anything");
    let missing: Vec<_> = wanted.difference(&arrived).take(10).collect();
    let unqueued: Vec<_> = arrived.difference(&queued).take(10).collect();
    assert!(missing.is_empty() && unqueued.is_empty(), "missing {missing:?}…, not queued {unqueued:?}…");
    installed.remove().unwrap();
}

#[test]
fn nothing_is_lost_and_nothing_slips_past_while_rules_change() {
    in_namespace("update::nothing_is_lost_and_nothing_slips_past_while_rules_change", || {
        updates_under_traffic(&Tools::find().unwrap(), true);
    });
}

#[test]
fn a_family_that_comes_and_goes_costs_the_other_nothing() {
    in_namespace("update::a_family_that_comes_and_goes_costs_the_other_nothing", || {
        updates_under_traffic(&Tools::find().unwrap(), false);
    });
}

#[test]
fn nor_with_the_legacy_back_end() {
    in_namespace("update::nor_with_the_legacy_back_end", || {
        let Some(tools) = legacy_tools() else { return println!("skipped: no legacy back end here") };
        updates_under_traffic(&tools, true);
    });
}

#[test]
fn how_long_an_update_takes() {
    in_namespace("update::how_long_an_update_takes", || {
        for tools in [Some(Tools::find().unwrap()), legacy_tools()].into_iter().flatten() {
            let steering = steering(&both_families(40));
            let mut installed = Installed::install(&rules(&both_families(40)), &tools).unwrap();
            for count in [10, 500, 4096] {
                let reach = |more: u32| {
                    let mut reach = Reach::of(&plan(40, &[VIP4], &BACKENDS[..2], Protocol::Tcp));
                    reach.served[0].backends =
                        (0..count + more).map(|n| to(Ipv4Addr::from_bits(0x0a08_0000 + n).into())).collect();
                    RuleSet::new(&reach, &QUEUES, &steering)
                };
                installed.update(&reach(0)).unwrap();
                let started = Instant::now();
                installed.update(&reach(1)).unwrap();
                println!("{count} backends, one more: updated in {:?}", started.elapsed());
            }
            installed.remove().unwrap();
        }
    });
}
