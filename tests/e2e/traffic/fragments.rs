//! Fragments: reassembled by the kernel before us, or kept together by the workers.

use crate::rig::lab::{BACKENDS, Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use crate::rig::packet::{FRAGMENT, UDP, checksum, ip, seal, udp};
use crate::rig::requests::pings;
use crate::rig::wire::Sender;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Payload bytes of a fragment.
const PIECE: usize = 1448;

fn config(defragment: bool, service: &str) -> String {
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| family.backend(n)))
        .map(|address| format!("[[service.backend]]\naddress = \"{address}\"\n"))
        .collect();
    format!(
        "cores = \"0-1\"\ndefragment = {defragment}\n[[service]]\nname = \"all\"\n\
         vip = [\"192.0.2.100\", \"2001:db8:1::100\"]\n{service}\n{backends}"
    )
}

const ANY: &str = "protocol = \"any\"";
const BY_PORT: &str = "protocol = \"udp\"\nports = [7007]";
const ELSEWHERE: &str = "protocol = \"udp\"\nports = [7007]\nport = 17007";

/// A datagram's upper layer, its checksum right.
pub(crate) fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut upper = udp(from.port(), to.port(), length, payload);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let pseudo = [octets(from.ip()), octets(to.ip()), vec![0, UDP], length.to_be_bytes().to_vec()].concat();
    let sum = checksum(&[&pseudo[..], &upper].concat());
    upper[6..8].copy_from_slice(&if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() });
    upper
}

/// One fragment as a packet.
fn piece(from: IpAddr, to: IpAddr, id: u32, offset: usize, more: bool, part: &[u8]) -> Vec<u8> {
    let (offset, more) = (u16::try_from(offset).unwrap(), u16::from(more));
    match from {
        IpAddr::V4(_) => {
            let mut packet = ip(from, to, UDP, part);
            packet[4..6].copy_from_slice(&id.to_be_bytes()[2..]);
            packet[6..8].copy_from_slice(&(more << 13 | offset >> 3).to_be_bytes());
            seal(&mut packet);
            packet
        }
        IpAddr::V6(_) => {
            let field = (offset | more).to_be_bytes();
            let header = [&[UDP, 0], &field[..], &id.to_be_bytes()].concat();
            ip(from, to, FRAGMENT, &[&header, part].concat())
        }
    }
}

fn pieces(from: IpAddr, to: IpAddr, id: u32, upper: &[u8]) -> Vec<Vec<u8>> {
    let last = upper.len().div_ceil(PIECE) - 1;
    let parts = upper.chunks(PIECE).enumerate();
    parts.map(|(n, part)| piece(from, to, id, n * PIECE, n < last, part)).collect()
}

/// Sends 8 kB in fragments, in the order that `order` makes, and expects them back.
#[track_caller]
fn ask_in_pieces(lab: &Lab, sender: &Sender, family: Family, id: u16, order: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let to = SocketAddr::new(family.vip(), 7007);
    let text: String = (0..2000).map(|n| format!("{n:04}")).collect();
    let socket = lab.within("client", || UdpSocket::bind((family.client(20), 20_000 + id)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let from = socket.local_addr().unwrap();
    let mut pieces = pieces(from.ip(), to.ip(), id.into(), &datagram(from, to, text.as_bytes()));
    order(&mut pieces);
    pieces.iter().for_each(|piece| sender.send(piece));
    let mut answer = vec![0; 65535];
    let length = socket.recv(&mut answer).unwrap_or_else(|e| panic!("{family:?} {id}: {e}"));
    assert!(String::from_utf8_lossy(&answer[..length]).ends_with(&text), "{family:?}: {length} bytes came back");
}

#[track_caller]
fn nothing_is_left(lab: &Lab, loaded: &Loaded) {
    assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{} packets wait", lab.waiting());
    for counted in loaded.counters() {
        assert_eq!(counted.outcomes(), counted.received, "{counted:?}");
    }
}

#[test]
fn pieces_in_any_order_are_answered() {
    let Some(lab) = Lab::up() else { return };
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for (defragment, service) in
        [ANY, BY_PORT, ELSEWHERE].into_iter().flat_map(|service| [(true, service), (false, service)])
    {
        let loaded = Loaded::toml(&lab, &config(defragment, service));
        for family in Family::BOTH {
            if service == ANY {
                pings(&lab, "client", (family.client(12), family.vip()), 5, 8000);
            }
            for id in 0..20 {
                ask_in_pieces(&lab, &sender, family, 2 * id, |_| {});
                ask_in_pieces(&lab, &sender, family, 2 * id + 1, |pieces| pieces.reverse());
            }
        }
        nothing_is_left(&lab, &loaded);
        let waited = loaded.count("repeated_fragment");
        assert_eq!(waited > 0, !defragment, "defragment = {defragment}: {waited} pieces had to wait");
        assert_eq!(loaded.count("dropped_fragment"), 0);
        loaded.stop();
    }
}

/// Resident memory of a process, kB.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn lone_pieces_cost_no_memory_and_harm_nobody() {
    let Some(lab) = Lab::up() else { return };
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for backend in BACKENDS {
        lab.sh(backend, "sysctl -qw net.ipv4.ipfrag_time=1 net.ipv6.ip6frag_time=1");
    }
    for defragment in [true, false] {
        let loaded = Loaded::toml(&lab, &config(defragment, ANY));
        for family in Family::BOTH {
            let to = SocketAddr::new(family.vip(), 7007);
            // Once, so that what is touched only by pieces is.
            let flood = |count: u32, first: bool| {
                for id in 0..count {
                    let from = family.client(30 + u16::try_from(id % 10).unwrap());
                    let upper = datagram(SocketAddr::new(from, 7), to, &[b'x'; 56]);
                    let offset = if first { 0 } else { 64 };
                    sender.send(&piece(from, to.ip(), id, offset, true, &upper[..64]));
                }
            };
            flood(2000, true);
            flood(2000, false);
            lab.within("client", || get(family.client(12), family.vip(), 80)).unwrap();
            let before: Vec<_> = loaded.workers().into_iter().map(resident).collect();
            flood(100_000, true);
            flood(5000, false);
            for n in 10..20 {
                lab.within("client", || get(family.client(n), family.vip(), 80)).unwrap();
            }
            let after: Vec<_> = loaded.workers().into_iter().map(resident).collect();
            println!("{family:?}, defragment = {defragment}: resident {before:?} kB, then {after:?} kB");
            assert!(before.iter().zip(&after).all(|(before, after)| *after <= before + 256));
            if !defragment {
                // The lone pieces fill the memory of the backends' own kernels, for a second here.
                std::thread::sleep(Duration::from_millis(2500));
                pings(&lab, "client", (family.client(12), family.vip()), 5, 8000);
            }
        }
        nothing_is_left(&lab, &loaded);
        println!("defragment = {defragment}: {:?}", loaded.counters());
        loaded.stop();
    }
}
