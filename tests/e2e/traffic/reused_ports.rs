//! Reused client ports: a connection from the port of a closed one is balanced anew at once; a repeated SYN is not; and it
//! gets through where the worker could not believe that the old one is closed.

use super::protocols::text;
use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, backend_of, dial_from};
use crate::rig::packet::{TCP, destination, ip, syn, upper};
use crate::rig::wire::{Sender, capture};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const WEB: &str = "protocol = \"tcp\"\nports = [80]";
const ROUNDS: u16 = 12;

/// How the first connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The backend sends a FIN, then the client.
    Fins,
    /// The client sends a reset.
    Reset,
}

/// One request on a connection from this very port; returns the backend that answered.
#[track_caller]
fn once(from: SocketAddr, to: SocketAddr, end: End) -> String {
    // Until its FIN is acknowledged, the client's own kernel keeps the ports.
    let taken = |dialled: &io::Result<TcpStream>| {
        let is = dialled.as_ref().is_err_and(|e| e.kind() == ErrorKind::AddrNotAvailable);
        is.then(|| std::thread::sleep(Duration::from_millis(1))).is_some()
    };
    let dialled = (0..1000).map(|_| dial_from(from, to)).find(|dialled| !taken(dialled));
    let mut stream = dialled.unwrap_or_else(|| panic!("{from} is not free")).unwrap_or_else(|e| panic!("{from}: {e}"));
    let close = if end == End::Fins { "close" } else { "keep-alive" };
    write!(stream, "GET / HTTP/1.1\r\nHost: vip\r\nConnection: {close}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    match end {
        End::Fins => drop(stream.read_to_end(&mut answer).unwrap()),
        End::Reset => {
            while !answer.ends_with(format!(" {}\n", from.ip()).as_bytes()) {
                let mut part = [0; 2048];
                let length = stream.read(&mut part).unwrap();
                assert!(length > 0, "{from}: the end, after {answer:?}");
                answer.extend(&part[..length]);
            }
            setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    backend_of(answer.split_once("\r\n\r\n").unwrap().1, from.ip())
}

#[test]
fn a_connection_on_the_ports_of_one_that_is_over_is_a_new_one_at_once() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(WEB, ""));
    for family in Family::BOTH {
        for end in [End::Fins, End::Reset] {
            let before = loaded.count("forwarded_new");
            let port = if end == End::Fins { 20_080 } else { 20_081 };
            let (from, to) = (SocketAddr::new(family.client(20), port), SocketAddr::new(family.vip(), 80));
            let names: Vec<_> = lab.within("client", || (0..ROUNDS).map(|_| once(from, to, end)).collect());
            // Each is balanced by itself.
            let seen: BTreeSet<_> = names.iter().collect();
            assert_eq!(seen.len(), 3, "{family:?}, {end:?}: {names:?}");
            let new = loaded.count("forwarded_new") - before;
            assert_eq!(new, u64::from(ROUNDS), "{family:?}, {end:?}: {:?}", loaded.counters());
        }
    }
    loaded.stop();
}

/// Who loses what while the client resets its connection.
const LOSSES: [(&str, &[&str], &str); 2] = [
    ("the reset itself", &["client"], "tcp flags & rst == rst"),
    // So the reset comes at a number that the worker has not seen the backend acknowledge.
    ("the backend's last acknowledgement", &["b1", "b2", "b3"], "tcp flags & (fin | syn | rst | psh | ack) == ack"),
];

/// Ends a connection by a reset that its worker cannot believe, and makes another on the same ports; how long that one took to
/// answer.
fn reset_and_again(lab: &Lab, (from, to): (SocketAddr, SocketAddr), who: &[&str], rule: &str) -> Duration {
    let table = format!("table inet lost {{ chain c {{ type filter hook output priority 0; {rule} drop; }}; }}");
    let mut stream = lab.within("client", || dial_from(from, to)).unwrap();
    who.iter().for_each(|host| drop(lab.sh(host, &format!("nft '{table}'"))));
    stream.write_all(b"GET ").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_millis(20));
    who.iter().for_each(|host| drop(lab.sh(host, "nft delete table inet lost")));
    let began = Instant::now();
    lab.within("client", || once(from, to, End::Reset));
    began.elapsed()
}

/// The backend answers the SYN as RFC 5961 §4 has it, or has heard the reset and accepts the new connection.
#[test]
fn a_client_whose_reset_was_not_believed_connects_again_at_once() {
    paired(|lab| {
        let loaded = Loaded::toml(lab, &text(WEB, ""));
        for family in Family::BOTH {
            for (port, (what, who, rule)) in (20_082..).zip(LOSSES) {
                let (from, to) = (SocketAddr::new(family.client(20), port), SocketAddr::new(family.vip(), 80));
                let times: Vec<_> = (0..3).map(|_| reset_and_again(lab, (from, to), who, rule)).collect();
                println!("{family:?}, lost {what}: again after {times:.1?}");
                let slowest = times.iter().max().copied().unwrap();
                assert!(slowest < Duration::from_secs(1), "{family:?}, lost {what}: {times:?}");
            }
        }
        loaded.stop();
    });
}

#[test]
fn a_syn_that_comes_again_goes_where_the_first_one_went() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(WEB, ""));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for family in Family::BOTH {
        let before = ["forwarded_new", "forwarded"].map(|label| loaded.count(label));
        let mut all = BTreeSet::new();
        for port in 5000..5006 {
            // Without a right checksum nobody answers.
            let packet = ip(family.client(20), family.vip(), TCP, &syn(port, 80));
            let ((), seen) = capture(&lab, "sw", || (0..4).for_each(|_| sender.send(&packet)));
            let ours = |packet: &&Vec<u8>| {
                let (at, protocol) = upper(packet);
                protocol == TCP && packet.get(at..at + 4) == Some(&syn(port, 80)[..4])
            };
            let to: BTreeSet<IpAddr> = seen.iter().filter(ours).filter_map(|packet| destination(packet)).collect();
            assert_eq!(to.len(), 1, "{family:?}: the SYNs of port {port} go to {to:?}");
            all.extend(to);
        }
        assert_eq!(all, (1..=3).map(|n| family.backend(n)).collect(), "{family:?}");
        let after = ["forwarded_new", "forwarded"].map(|label| loaded.count(label));
        assert_eq!([after[0] - before[0], after[1] - before[1]], [6, 18], "{family:?}: {:?}", loaded.counters());
    }
    loaded.stop();
}
