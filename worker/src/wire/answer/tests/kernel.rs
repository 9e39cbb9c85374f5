//! Answers through the real kernel: a client in one network namespace, the balancer's queue in another, a veth pair between
//! them. The VIP is an address of the balancer, so packets that pass reach a real listener there.

use super::super::{reset, unreachable};
use crate::wire::{Kind, ParsedPacket, parse};
use loaded_queue::{Faults, Meta, Owner, QueueSocket, Verdict};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const QUEUE: u16 = 5;
const VIPS: [&str; 2] = ["192.0.2.100", "2001:db8:1::100"];
/// Long enough for an answer to come, short enough to wait for one that must not.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// What becomes of a packet to the VIP.
enum Act {
    Pass,
    Reset,
    Unreachable,
}

fn run(commands: &[&str]) {
    for command in commands {
        let mut words = command.split(' ');
        let program = words.next().expect("a program");
        let done = Command::new(program).args(words).output().unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// Runs `client` in its own namespace while `decide` serves the balancer's queue. `None` if the test cannot run here. `setup`
/// are commands for the balancer's namespace, run last.
fn lab<T: Send + 'static>(
    setup: &[&str],
    client: impl FnOnce() -> T + Send + 'static,
    mut decide: impl FnMut(&ParsedPacket, Meta) -> Act,
) -> Option<T> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "under CI these tests must run as root");
        eprintln!("skipped: needs root");
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    let (said, hear) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let client = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        said.send(gettid()).expect("said");
        wait.recv().expect("go");
        run(&[
            "ip link set v1 up",
            "ip address add 192.0.2.1/24 dev v1",
            "ip address add 2001:db8:1::1/64 dev v1 nodad",
            "ip route add default via 192.0.2.254",
        ]);
        client()
    });
    let client_thread = hear.recv().expect("the client's namespace");
    run(&[
        &format!("ip link add v0 type veth peer name v1 netns {client_thread}"),
        "ip link set lo up",
        "ip link set v0 up",
        "ip address add 192.0.2.254/24 dev v0",
        "ip address add 2001:db8:1::fe/64 dev v0 nodad",
    ]);
    for (key, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv4/conf/v0/rp_filter", "0")] {
        std::fs::write(format!("/proc/sys/net/{key}"), value).expect("sysctl");
    }
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").expect("sysctl");
    run(&[
        "iptables -t raw -A PREROUTING -d 192.0.2.100 -j NFQUEUE --queue-num 5",
        "ip6tables -t raw -A PREROUTING -d 2001:db8:1::100 -j NFQUEUE --queue-num 5",
    ]);
    run(setup);
    let owner = Owner::open(QUEUE, 1000).expect("owner");
    let mut socket = QueueSocket::open(owner.as_fd().try_clone_to_owned().expect("dup"), QUEUE).expect("socket");
    go.send(()).expect("go");
    while !client.is_finished() {
        socket.receive().expect("receive");
        while let Some(mut held) = socket.next() {
            let (meta, length) = (held.meta(), held.bytes().len());
            let packet = parse(held.bytes(), meta.cut).expect("a packet");
            let answer = match decide(&packet, meta) {
                Act::Pass => {
                    held.settle(Verdict::Accept);
                    continue;
                }
                Act::Reset => reset(held.room(), &packet),
                Act::Unreachable => unreachable(held.room(), length, &packet),
            };
            held.settle_resized(Verdict::Rewrite, answer.expect("an answer"));
        }
    }
    socket.flush();
    assert_eq!(socket.faults(), Faults::default());
    Some(client.join().expect("the client"))
}

const LOCAL: [&str; 3] = [
    "ip address add 192.0.2.100/32 dev v0",
    "ip address add 2001:db8:1::100/128 dev v0 nodad",
    "sysctl -q -w net.ipv4.conf.v0.accept_local=1",
];

fn refuse(packet: &ParsedPacket, _: Meta) -> Act {
    match packet.kind {
        Kind::Tcp(_) => Act::Reset,
        Kind::Udp { .. } => Act::Unreachable,
        _ => Act::Pass,
    }
}

fn vip(text: &str, port: u16) -> SocketAddr {
    (text.parse::<IpAddr>().expect("address"), port).into()
}

/// How a new connection and a datagram of `size` bytes end.
fn knock(address: &str, size: usize) -> (ErrorKind, ErrorKind) {
    let tcp = TcpStream::connect_timeout(&vip(address, 80), ANSWER_WAIT).expect_err("not served").kind();
    let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).expect("bind");
    socket.set_read_timeout(Some(ANSWER_WAIT)).expect("timeout");
    socket.connect(vip(address, 53)).expect("connect");
    socket.send(&vec![7; size]).expect("send");
    (tcp, socket.recv(&mut [0; 8]).expect_err("not served").kind())
}

#[test]
fn clients_are_refused() {
    let refused = (ErrorKind::ConnectionRefused, ErrorKind::ConnectionRefused);
    let clients = || VIPS.map(|address| [0, 1, 100, 1400].map(|size| knock(address, size)));
    if let Some(got) = lab(&LOCAL, clients, refuse) {
        assert_eq!(got, [[refused; 4]; 2]);
    }
}

/// The answer's source is the VIP. If that is an address of this host, an IPv4 packet from outside that has it is
/// martian (`__fib_validate_source`, net/ipv4/fib_frontend.c) unless the interface has accept_local. IPv6 has no such rule.
#[test]
fn an_ipv4_answer_from_an_address_of_this_host_needs_accept_local() {
    for (setup, wanted) in [(&LOCAL[..2], ErrorKind::WouldBlock), (&LOCAL[..], ErrorKind::ConnectionRefused)] {
        let Some(got) = lab(setup, || VIPS.map(|address| knock(address, 1).1), refuse) else { return };
        assert_eq!(got, [wanted, ErrorKind::ConnectionRefused]);
    }
}

/// How many packets the balancer's interface has dropped instead of sending them.
fn unsent() -> usize {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").expect("proc");
    let ours = devices.lines().find(|line| line.contains("v0:")).expect("v0");
    // The name, eight columns of receive counters, then bytes, packets, errors and drops of the sending side.
    ours.split_whitespace().nth(12).and_then(|n| n.parse().ok()).expect("a number")
}

/// Writes `size` bytes at once on a connection of which only the handshake passes. Returns how the connection ends and,
/// for each packet that was answered with a reset, whether it was GSO and how many answers the balancer's interface had
/// dropped by then.
fn upload(address: &'static str, size: usize) -> Option<(ErrorKind, Vec<(bool, usize)>)> {
    let client = move || {
        let mut stream = TcpStream::connect_timeout(&vip(address, 80), Duration::from_secs(2)).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        stream.write_all(&vec![7; size]).expect("write");
        stream.read(&mut [0; 8]).expect_err("reset").kind()
    };
    let (mut listener, mut handshake, mut answered, mut unsent_before) = (None, 2, Vec::new(), 0);
    let end = lab(&LOCAL, client, |packet, meta| {
        // Runs in the balancer's namespace, before the SYN arrives.
        listener.get_or_insert_with(|| {
            unsent_before = unsent();
            TcpListener::bind(vip(address, 80)).expect("listen")
        });
        match packet.kind {
            Kind::Tcp(_) if handshake == 0 => {
                answered.push((meta.gso, unsent() - unsent_before));
                Act::Reset
            }
            Kind::Tcp(_) => {
                handshake -= 1;
                Act::Pass
            }
            _ => Act::Pass,
        }
    });
    Some((end?, answered))
}

#[test]
fn a_connection_is_reset() {
    for address in VIPS {
        let Some(got) = upload(address, 100) else { return };
        assert_eq!(got, (ErrorKind::ConnectionReset, vec![(false, 0)]));
    }
}

/// The kernel drops the answer to a GSO packet (see [`loaded_queue::Packet::settle_resized`]). What the client sends then is
/// a single segment, and the answer to that arrives.
#[test]
fn an_upload_is_reset_when_its_first_segment_comes_again() {
    for address in VIPS {
        // The client's kernel decides how it sends; sometimes it cuts all segments itself.
        let seen = (0..5).map_while(|_| upload(address, 30_000)).find(|(_, answered)| answered.iter().any(|a| a.0));
        let Some((end, answered)) = seen else {
            assert!(!nix::unistd::geteuid().is_root(), "no GSO packet came in five uploads");
            return;
        };
        assert_eq!(end, ErrorKind::ConnectionReset);
        let gso = answered.iter().filter(|(gso, _)| *gso).count();
        assert_eq!((answered.first(), answered.last()), (Some(&(true, 0)), Some(&(false, gso))), "{answered:?}");
    }
}
