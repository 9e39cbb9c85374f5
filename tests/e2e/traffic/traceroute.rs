//! traceroute through the VIP, and other ICMP errors from behind it: they reach the sender from the VIP, quote the very
//! packet it sent, and every checksum is right.

use crate::rig::lab::Lab;
use crate::rig::net::Family;
use crate::rig::packet::{ICMP, ICMP6, sound, upper};
use crate::rig::routers::{BACKEND, FAR, Narrow, far, hops, whole};
use crate::rig::wire::capture;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Options of traceroute, and what a worker must have counted for the way behind it: the balancer and two routers say
/// "time exceeded", and over UDP the backend "port unreachable".
const MODES: [(&str, [u64; 2]); 3] = [("", [3, 1]), ("-I", [3, 0]), ("-T", [3, 0])];

/// The long way. What the ends send has its checksums, so that who sees a packet on the way sees them, too.
fn up() -> Option<Lab> {
    let lab = Lab::up()?;
    lab.lengthen(Narrow::Nowhere);
    for who in [FAR, BACKEND] {
        lab.sh(who, "ethtool -K eth0 tx off >/dev/null");
    }
    Some(lab)
}

fn source(packet: &[u8]) -> IpAddr {
    match packet[0] >> 4 {
        4 => IpAddr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap()),
    }
}

/// The packet without what routers change: TTL and header checksum.
fn as_sent(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    match packet[0] >> 4 {
        4 => {
            packet[8] = 0;
            packet[10..12].fill(0);
        }
        _ => packet[7] = 0,
    }
    packet
}

/// Senders of the ICMP errors among what was seen at the address `own`. Each must be right in every checksum and quote a
/// packet that was sent from there, to the byte.
#[track_caller]
fn senders(packets: &[Vec<u8>], own: IpAddr) -> Vec<IpAddr> {
    let (sent, came): (Vec<_>, Vec<_>) = packets.iter().partition(|packet| source(packet) == own);
    let sent: Vec<_> = sent.into_iter().map(|packet| as_sent(packet)).collect();
    let mut senders = Vec::new();
    for packet in came {
        let (at, protocol) = upper(packet);
        // Destination unreachable, time exceeded; of ICMPv6 any error.
        let is_error = protocol == ICMP && matches!(packet[at], 3 | 11) || protocol == ICMP6 && packet[at] < 128;
        if !is_error {
            continue;
        }
        assert!(sound(packet), "a wrong checksum: {packet:02x?}");
        let quote = &packet[at + 8..];
        assert!(own.is_ipv6() || crate::rig::packet::checksum(&quote[..20]) == 0, "wrong in the quote: {packet:02x?}");
        let quote = as_sent(quote);
        assert!(sent.iter().any(|sent| sent.starts_with(&quote)), "not what {own} sent: {packet:02x?}");
        senders.push(source(packet));
    }
    senders
}

#[test]
fn traceroute_meets_the_vip_at_every_hop_behind_it() {
    let Some(lab) = up() else { return };
    let loaded = whole(&lab);
    for family in Family::BOTH {
        let hops = hops(family);
        for (mode, [relayed, returned]) in MODES {
            let before = ["error_relayed", "error_returned"].map(|label| loaded.count(label));
            // -vv is what makes tcpdump check. Only what comes in: what goes out may get its checksum later.
            let script = format!(
                "tcpdump -ni eth0 -Q in -vv --immediate-mode 'icmp or icmp6' >/dev/shm/$$.out 2>/dev/shm/$$.err & pid=$!
                trap 'rm -f /dev/shm/$$.*' EXIT
                for i in {{1..100}}; do grep -q listening /dev/shm/$$.err && break; sleep 0.05; done
                traceroute -n -q 1 -N 1 -w 1 -m 8 {mode} -s {} {}
                sleep 0.3; kill $pid; wait $pid; echo; cat /dev/shm/$$.out",
                far(family),
                family.vip()
            );
            let (said, packets) = capture(&lab, FAR, || lab.sh(FAR, &script));
            let (trace, dump) = said.split_once("\n\n").unwrap();
            let met: Vec<IpAddr> =
                trace.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
            assert_eq!(met, hops, "{family:?} {mode}: {trace}");

            let errors = senders(&packets, far(family));
            let expected = 5 + usize::try_from(returned).unwrap();
            assert_eq!(errors, hops[..expected], "{family:?} {mode}");
            for word in ["bad", "wrong", "incorrect"] {
                assert!(!dump.contains(word), "{family:?} {mode}: tcpdump says {word}:\n{dump}");
            }
            assert!(dump.matches("exceeded").count() >= 5, "{family:?} {mode}: tcpdump has seen too few:\n{dump}");
            if family == Family::V6 {
                assert!(dump.matches("[icmp6 sum ok]").count() >= expected, "{family:?} {mode}:\n{dump}");
            }
            let after = ["error_relayed", "error_returned"].map(|label| loaded.count(label));
            assert_eq!([after[0] - before[0], after[1] - before[1]], [relayed, returned], "{family:?} {mode}");
        }
    }
    loaded.stop();
}

/// The client's kernel matches a backend's "port unreachable" to the client's socket.
#[test]
fn a_closed_port_of_a_backend_is_refused_at_the_socket() {
    let Some(lab) = up() else { return };
    let loaded = whole(&lab);
    for family in Family::BOTH {
        let ((), packets) = capture(&lab, FAR, || {
            lab.within(FAR, || {
                let socket = UdpSocket::bind((far(family), 0)).unwrap();
                socket.connect(SocketAddr::new(family.vip(), 9)).unwrap();
                socket.set_read_timeout(Some(crate::rig::net::ANSWER_TIMEOUT)).unwrap();
                socket.send(b"anybody there?").unwrap();
                let error = socket.recv(&mut [0; 10]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{family:?}: {error}");
            });
        });
        assert_eq!(senders(&packets, far(family)), [family.vip()], "{family:?}");
    }
    loaded.stop();
}

/// The other way: when a reply dies between balancer and client, the backend is told.
#[test]
fn replies_that_die_on_their_way_are_reported_to_the_backend() {
    let Some(lab) = up() else { return };
    let loaded = whole(&lab);
    // Two routers and the balancer let it pass, the next does not.
    lab.sh(BACKEND, "sysctl -qw net.ipv4.ip_default_ttl=4 net.ipv6.conf.eth0.hop_limit=4");
    for family in Family::BOTH {
        let vip = family.vip().to_string();
        let (said, packets) = capture(&lab, BACKEND, || {
            lab.exec(FAR, &["ping", "-q", "-c", "3", "-i", "0.05", "-W", "1", "-I", &far(family).to_string(), &vip])
        });
        // An echo reply has the TTL of its host, as all it sends.
        assert!(said.out.contains(" 0 received"), "{family:?}: {}{}", said.out, said.err);
        let errors = senders(&packets, family.backend(1));
        assert!(!errors.is_empty(), "{family:?}: the backend hears nothing");
        let router = if family == Family::V4 { "192.0.2.1" } else { "2001:db8:1::1" };
        let known: BTreeSet<IpAddr> = BTreeSet::from([router.parse().unwrap()]);
        assert_eq!(errors.into_iter().collect::<BTreeSet<_>>(), known, "{family:?}");
    }
    for counter in ["IcmpInCsumErrors", "Icmp6InCsumErrors", "IcmpInErrors", "Icmp6InErrors"] {
        let text = lab.sh(BACKEND, &format!("nstat -asz {counter} | tail -1"));
        assert_eq!(text.split_whitespace().nth(1), Some("0"), "{text}");
    }
    loaded.stop();
}
