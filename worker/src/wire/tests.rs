//! Packets built byte by byte, and every checksum computed from scratch.

use super::*;
use proptest::prelude::*;

const CLIENT4: Address = mapped_(198, 51, 100, 7);
const VIP4: Address = mapped_(192, 0, 2, 100);
const BACKEND4: Address = mapped_(10, 0, 0, 11);

const fn mapped_(a: u8, b: u8, c: u8, d: u8) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

fn v6(text: &str) -> Address {
    text.parse::<std::net::Ipv6Addr>().expect("address").octets()
}

fn plain(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

fn to(address: &Address) -> Replacement<'_> {
    Replacement { address, port: None }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// An IP packet around an upper layer, after `extensions` further headers. Fills in its checksum.
fn ip(family: Family, from: &Address, to: &Address, protocol: u8, upper: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut upper = upper.to_vec();
    let length = u16::try_from(upper.len() + extensions.len()).expect("short");
    let (source, destination) = if family == Family::V4 { (&from[12..], &to[12..]) } else { (&from[..], &to[..]) };
    let pseudo = [&[0, protocol][..], &u16::try_from(upper.len()).expect("short").to_be_bytes()].concat();
    let at = match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMP | protocol::ICMP6 => Some(2),
        _ => None,
    };
    if protocol == protocol::SCTP && upper.len() >= 12 {
        let sum = crc32c(&upper);
        upper[8..12].copy_from_slice(&sum.to_le_bytes());
    }
    if let Some(at) = at {
        let sum = match protocol {
            protocol::ICMP => plain(&[&upper]),
            _ => plain(&[source, destination, &pseudo, &upper]),
        };
        put(&mut upper, at, !sum);
    }
    let mut bytes = match family {
        Family::V4 => {
            let mut h = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
            put(&mut h, 2, 20 + length);
            h.extend_from_slice(source);
            h.extend_from_slice(destination);
            let sum = plain(&[&h]);
            put(&mut h, 10, !sum);
            h
        }
        Family::V6 => {
            let mut h = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            put(&mut h, 4, length);
            h.extend_from_slice(source);
            h.extend_from_slice(destination);
            h
        }
    };
    bytes.extend_from_slice(extensions);
    bytes.extend_from_slice(&upper);
    bytes
}

fn tcp(source: u16, destination: u16, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 20];
    put(&mut b, 0, source);
    put(&mut b, 2, destination);
    b[12] = 5 << 4;
    b[13] = flags;
    b.extend_from_slice(data);
    b
}

fn udp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 8];
    put(&mut b, 0, source);
    put(&mut b, 2, destination);
    put(&mut b, 4, u16::try_from(8 + data.len()).expect("short"));
    b.extend_from_slice(data);
    b
}

/// Ports, verification tag, no checksum yet.
fn sctp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut b = vec![0; 12];
    put(&mut b, 0, source);
    put(&mut b, 2, destination);
    put(&mut b, 6, 0x1234);
    b.extend_from_slice(data);
    b
}

/// Bit by bit, with the polynomial of RFC 9260 Appendix A, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

fn icmp(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], rest].concat()
}

/// Whether every checksum of a packet is right, computed from scratch.
fn sound(bytes: &[u8]) -> bool {
    let packet = parse(bytes, false).expect("parses");
    let upper = &bytes[packet.transport..];
    let header = packet.family == Family::V6 || plain(&[&bytes[..usize::from(bytes[0] & 15) * 4]]) == 0xffff;
    let length = u16::try_from(upper.len()).expect("short").to_be_bytes();
    let addresses = if packet.family == Family::V4 { &bytes[12..20] } else { &bytes[8..40] };
    let transport = match packet.protocol {
        protocol::ICMP => plain(&[upper]) == 0xffff,
        protocol::UDP if get(upper, 6) == 0 => packet.family == Family::V4,
        protocol::TCP | protocol::UDP | protocol::ICMP6 => {
            plain(&[addresses, &[0, packet.protocol], &length, upper]) == 0xffff
        }
        protocol::SCTP => {
            let stated = u32::from_le_bytes(upper[8..12].try_into().expect("four"));
            stated == crc32c(&[&upper[..8], &[0; 4], &upper[12..]].concat())
        }
        _ => true,
    };
    header && transport
}

#[test]
fn each_kind_of_packet_is_recognised() {
    let v4 = |protocol, upper: &[u8]| parse(&ip(Family::V4, &CLIENT4, &VIP4, protocol, upper, &[]), false);
    let segment = |flags| match v4(protocol::TCP, &tcp(1000, 80, flags, b"")).expect("tcp").kind {
        Kind::Tcp(segment) => segment,
        kind => panic!("{kind:?}"),
    };
    let all = |s: TcpSegment| [s.opens(), s.finishes(), s.resets(), s.acknowledges(), s.accepts()];
    for (flags, expected, end) in [
        (0x02, [true, false, false, false, false], 1),
        (0x11, [false, true, false, true, false], 1),
        (0x12, [false, false, false, true, true], 1),
        (0x14, [false, false, true, true, false], 0),
        (0xe8, [false; 5], 0),
    ] {
        let segment = segment(flags);
        assert_eq!((all(segment), segment.ports, segment.end, segment.acknowledged), (expected, (1000, 80), end, 0));
    }
    assert_eq!(v4(protocol::UDP, &udp(1, 53, b"x")).expect("udp").kind, Kind::Udp { ports: (1, 53) });
    let echo = v4(protocol::ICMP, &icmp(8, &[0, 9, 0, 1])).expect("echo").kind;
    assert_eq!(echo, Kind::Echo { request: true, id: 9 });
    for (tag, opens) in [([0; 4], true), ([0, 0, 0, 1], false), ([1, 0, 0, 0], false)] {
        let packet = v4(132, &[&[0, 7, 1, 1], &tag[..], &[0; 4]].concat()).expect("sctp");
        assert_eq!(packet.kind, Kind::Sctp { ports: (7, 257), opens });
    }
    assert_eq!(v4(132, &[0; 11]), Err(Malformed::Transport));
    assert_eq!((v4(50, &[]).expect("esp").kind, v4(51, &[0; 3]).expect("ah").kind), (Kind::Other, Kind::Other));
    let none = ip(Family::V6, &v6("2001:db8::1"), &v6("2001:db8::2"), 59, b"", &[]);
    assert_eq!(parse(&none, false).expect("no next header").kind, Kind::Other);
    let bare = ip(Family::V6, &v6("2001:db8::1"), &v6("2001:db8::2"), protocol::UDP, &udp(1, 53, b"x"), &[]);
    for checksum in [[0, 0], [0, 1]] {
        let mut bytes = bare.clone();
        bytes[46..48].copy_from_slice(&checksum);
        assert_eq!(lacks_checksum(&bytes, &parse(&bytes, false).expect("udp")), checksum == [0, 0]);
    }
    let (a, b) = (v6("2001:db8::1"), v6("2001:db8::2"));
    let solicitation = ip(Family::V6, &a, &b, protocol::ICMP6, &icmp(135, &[0; 20]), &[]);
    assert_eq!(parse(&solicitation, false).expect("ns").kind, Kind::Neighbour);
}

/// Defect 2 of the original: the walk used the wrong unit, and never ended at a zero length byte.
#[test]
fn the_walk_over_extension_headers_ends() {
    let (a, b) = (v6("2001:db8::1"), v6("2001:db8::2"));
    for first in [0u8, 43, 60] {
        let mut extensions = vec![0; 8];
        extensions[0] = protocol::UDP;
        let mut bytes = ip(Family::V6, &a, &b, protocol::UDP, &udp(5, 6, b"hello"), &extensions);
        bytes[6] = first;
        let packet = parse(&bytes, false).expect("parses");
        assert_eq!((packet.transport, packet.kind), (48, Kind::Udp { ports: (5, 6) }));
        replace(&mut bytes, &packet, Endpoint::Destination, to(&v6("2001:db8::99")), ChecksumState::Complete);
        assert!(sound(&bytes));
    }
    // A chain of nine headers is too long; and one header points outside the packet.
    let mut bytes = ip(Family::V6, &a, &b, 60, &[], &[60, 0, 0, 0, 0, 0, 0, 0].repeat(9));
    assert_eq!(parse(&bytes, false), Err(Malformed::Extension));
    bytes[41] = 255;
    assert_eq!(parse(&bytes, false), Err(Malformed::Extension));
}

/// Defect 12 of the original: addresses were read before any length was checked, and the header length was believed.
#[test]
fn short_packets_and_wrong_lengths_are_refused() {
    let whole = ip(Family::V4, &CLIENT4, &VIP4, protocol::TCP, &tcp(1, 80, 2, b"data"), &[]);
    for length in 0..whole.len() {
        assert!(parse(&whole[..length], false).is_err(), "{length} bytes");
    }
    for ihl in (0u8..5).chain(12..16) {
        let mut bytes = whole.clone();
        bytes[0] = 0x40 | ihl;
        assert!(parse(&bytes, false).is_err(), "ihl {ihl}");
    }
    let mut bytes = ip(Family::V4, &CLIENT4, &VIP4, protocol::UDP, &udp(1, 80, b"data"), &[]);
    for length in [0, 7, 13, 0xffff] {
        put(&mut bytes, 24, length);
        assert_eq!(parse(&bytes, false), Err(Malformed::Transport), "udp length {length}");
    }
}

#[test]
fn fragments_are_recognised() {
    let mut bytes = ip(Family::V4, &CLIENT4, &VIP4, protocol::UDP, &udp(1, 80, b"data"), &[]);
    for flags in [0x2000, 0x0001, 0x2001] {
        put(&mut bytes, 6, flags);
        assert_eq!(parse(&bytes, false).expect("parses").kind, Kind::Fragment);
    }
}

/// Defect 7 of the original: "no checksum" became a wrong one.
#[test]
fn a_zero_udp_checksum_stays_zero() {
    let mut bytes = ip(Family::V4, &CLIENT4, &VIP4, protocol::UDP, &udp(1, 80, b"data"), &[]);
    put(&mut bytes, 26, 0);
    let packet = parse(&bytes, false).expect("parses");
    let new = Replacement { address: &BACKEND4, port: Some(8080) };
    replace(&mut bytes, &packet, Endpoint::Destination, new, ChecksumState::Complete);
    assert_eq!(get(&bytes, 26), 0);
    assert!(sound(&bytes));
}

/// Defect 7 of the original: the packet quoted by an ICMP error was not translated.
#[test]
fn an_error_is_translated_inside_and_outside() {
    let upper = |protocol: u8, port: u16| match protocol {
        protocol::TCP => tcp(4000, port, 2, &[7; 40]),
        protocol::UDP => udp(4000, port, &[7; 40]),
        _ => sctp(4000, port, &[7; 40]),
    };
    for (protocol, quoted_bytes, port) in [protocol::TCP, protocol::UDP, protocol::SCTP]
        .into_iter()
        .flat_map(|protocol| [28, 60].map(|bytes| (protocol, bytes)))
        .flat_map(|(protocol, bytes)| [53, 5353].map(|port| (protocol, bytes, port)))
    {
        // The backend answers a packet client -> backend with "port unreachable".
        let mut original = ip(Family::V4, &CLIENT4, &BACKEND4, protocol, &upper(protocol, port), &[]);
        original.truncate(quoted_bytes);
        let rest = [&[0, 0, 0, 0][..], &original].concat();
        let mut bytes = ip(Family::V4, &BACKEND4, &CLIENT4, protocol::ICMP, &icmp(3, &rest), &[]);
        let packet = parse(&bytes, false).expect("parses");
        let Kind::Error(quoted) = packet.kind else { panic!("{:?}", packet.kind) };
        assert_eq!((quoted.source, quoted.destination, quoted.ports), (CLIENT4, BACKEND4, (4000, port)));
        let outer = Some((Endpoint::Source, &VIP4));
        let new = Replacement { address: &VIP4, port: (port != 53).then_some(53) };
        replace_in_error(&mut bytes, &packet, &quoted, outer, (Endpoint::Destination, new));
        assert!(sound(&bytes));
        let mut expected = ip(Family::V4, &CLIENT4, &VIP4, protocol, &upper(protocol, 53), &[]);
        if protocol == protocol::SCTP {
            let whole = ip(Family::V4, &CLIENT4, &BACKEND4, protocol, &upper(protocol, port), &[]);
            expected[28..32].copy_from_slice(&whole[28..32]);
        }
        expected.truncate(quoted_bytes);
        assert_eq!(&bytes[28..], &expected, "the quoted packet is the client's own");
        assert_eq!(parse(&bytes, false).expect("parses").source, VIP4);
    }
}

#[test]
fn the_crc_is_that_of_the_catalogue() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

/// A packet that was damaged on its way must not look sound, and RFC 9653 lets both ends do without a checksum.
#[test]
fn a_wrong_sctp_checksum_stays_wrong_and_none_stays_none() {
    let whole = ip(Family::V4, &CLIENT4, &VIP4, protocol::SCTP, &sctp(4000, 80, &[7; 40]), &[]);
    let packet = parse(&whole, false).expect("parses");
    let new = Replacement { address: &BACKEND4, port: Some(8080) };
    for damage in 0..whole.len() - 20 {
        let mut bytes = whole.clone();
        bytes[20 + damage] ^= 4;
        let packet = parse(&bytes, false).expect("parses");
        replace(&mut bytes, &packet, Endpoint::Destination, new, ChecksumState::Complete);
        assert!(!sound(&bytes), "{damage}");
    }
    let mut bytes = whole.clone();
    bytes[28..32].fill(0);
    replace(&mut bytes, &packet, Endpoint::Destination, new, ChecksumState::Complete);
    assert_eq!((&bytes[28..32], get(&bytes, 22)), (&[0; 4][..], 8080));
    replace(&mut bytes, &packet, Endpoint::Destination, new, ChecksumState::Partial);
    assert!(sound(&bytes), "the card was to make it");
}

/// A packet, a new address and a new port.
fn case() -> impl Strategy<Value = (Vec<u8>, Address, Option<u16>)> {
    let data = prop::collection::vec(any::<u8>(), 0..1400);
    let upper = prop_oneof![
        (any::<(u16, u16, u8)>(), data.clone()).prop_map(|((s, d, f), b)| (protocol::TCP, tcp(s, d, f, &b))),
        (any::<(u16, u16)>(), data.clone()).prop_map(|((s, d), b)| (protocol::UDP, udp(s, d, &b))),
        (any::<(u16, u16)>(), data.clone()).prop_map(|((s, d), b)| (protocol::SCTP, sctp(s, d, &b))),
        (any::<[u8; 4]>(), data).prop_map(|(r, b)| (protocol::ICMP6, icmp(128, &[&r[..], &b].concat()))),
    ];
    let any = (any::<bool>(), any::<[Address; 3]>(), any::<Option<u16>>(), upper);
    any.prop_map(|(four, addresses, port, (protocol, mut upper))| {
        let family = if four { Family::V4 } else { Family::V6 };
        let [from, to, new] = if four { addresses.map(|a| mapped([a[0], a[1], a[2], a[3]])) } else { addresses };
        let protocol = if four && protocol == protocol::ICMP6 {
            upper[0] = 8;
            protocol::ICMP
        } else {
            protocol
        };
        (ip(family, &from, &to, protocol, &upper, &[]), new, port)
    })
}

/// The transport's checksum and ports by etherparse: what it reads, and what it computes from scratch.
fn by_another_reader(bytes: &[u8]) -> Option<(u16, u16, (u16, u16))> {
    let sliced = etherparse::SlicedPacket::from_ip(bytes).expect("readable");
    let (etherparse::NetSlice::Ipv4(_) | etherparse::NetSlice::Ipv6(_)) = sliced.net.as_ref().expect("IP") else {
        panic!("not IP")
    };
    let addresses = match sliced.net.as_ref() {
        Some(etherparse::NetSlice::Ipv4(v4)) => Ok((v4.header().source(), v4.header().destination())),
        Some(etherparse::NetSlice::Ipv6(v6)) => Err((v6.header().source(), v6.header().destination())),
        _ => return None,
    };
    match sliced.transport? {
        etherparse::TransportSlice::Tcp(tcp) => {
            let made = match addresses {
                Ok((from, to)) => tcp.calc_checksum_ipv4(from, to),
                Err((from, to)) => tcp.calc_checksum_ipv6(from, to),
            };
            Some((tcp.checksum(), made.expect("short"), (tcp.source_port(), tcp.destination_port())))
        }
        etherparse::TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let made = match addresses {
                Ok((from, to)) => header.calc_checksum_ipv4_raw(from, to, udp.payload()),
                Err((from, to)) => header.calc_checksum_ipv6_raw(from, to, udp.payload()),
            };
            Some((udp.checksum(), made.expect("short"), (udp.source_port(), udp.destination_port())))
        }
        _ => None,
    }
}

proptest! {
    #[test]
    fn a_new_address_and_port_leave_every_checksum_right((bytes, new, port) in case(), source: bool, field in 0..3) {
        let side = if source { Endpoint::Source } else { Endpoint::Destination };
        let packet = parse(&bytes, false).expect("parses");
        let at = match (packet.protocol, packet.family) {
            (protocol::TCP, _) => Some(16),
            (protocol::UDP, _) => Some(6),
            (protocol::ICMP6, _) => Some(2),
            _ => None,
        }.map(|o| packet.transport + o);
        prop_assert!(sound(&bytes));
        let mut changed = bytes.clone();
        // With CHECKSUM_PARTIAL the kernel leaves the sum of the pseudo header in the field.
        let pseudo = |bytes: &[u8]| {
            let addresses = if packet.family == Family::V4 { &bytes[12..20] } else { &bytes[8..40] };
            let length = u16::try_from(bytes.len() - packet.transport).expect("short").to_be_bytes();
            plain(&[addresses, &[0, packet.protocol], &length])
        };
        let field = match field { 0 => ChecksumState::Complete, 1 => ChecksumState::Partial, _ => ChecksumState::PartialGso };
        if packet.protocol == protocol::SCTP && field != ChecksumState::Complete {
            // There the field holds nothing that counts.
            changed[packet.transport + 8..packet.transport + 12].fill(9);
        }
        if let (Some(at), ChecksumState::Partial | ChecksumState::PartialGso) = (at, field) {
            let sum = pseudo(&bytes);
            put(&mut changed, at, sum);
        }
        replace(&mut changed, &packet, side, Replacement { address: &new, port }, field);
        let after = parse(&changed, false).expect("parses");
        prop_assert_eq!(if source { after.source } else { after.destination }, new);
        let expected = packet.kind.ports().map(|(from, to)| match port {
            Some(port) if source => (port, to),
            Some(port) => (from, port),
            None => (from, to),
        });
        prop_assert_eq!(after.kind.ports(), expected);
        if let (Some((stated, made, ports)), true) = (by_another_reader(&changed), field != ChecksumState::PartialGso) {
            // Both write a computed 0 of UDP as all ones; of TCP either zero is right.
            prop_assert!(stated == made || stated.min(made) == 0 && stated.max(made) == u16::MAX);
            prop_assert_eq!(Some(ports), expected);
        }
        match (field, at) {
            (ChecksumState::PartialGso, Some(at)) => {
                let (got, want) = (get(&changed, at), pseudo(&changed));
                prop_assert!(got == want || got == !want && want == 0xffff || got % 0xffff == want % 0xffff);
            }
            _ => prop_assert!(sound(&changed)),
        }
    }

    #[test]
    fn there_and_back_is_where_it_was((bytes, new, port) in case()) {
        let packet = parse(&bytes, false).expect("parses");
        let mut changed = bytes.clone();
        let there = Replacement { address: &new, port };
        let back = Replacement { address: &packet.destination, port: packet.kind.ports().map(|(_, to)| to) };
        replace(&mut changed, &packet, Endpoint::Destination, there, ChecksumState::Complete);
        replace(&mut changed, &packet, Endpoint::Destination, back, ChecksumState::Complete);
        let again = parse(&changed, false).expect("parses");
        prop_assert_eq!(again, packet);
        prop_assert!(sound(&changed));
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120), four: bool, cut: bool, new: Address,
        port: Option<u16>) {
        if let Some(first) = bytes.first_mut() {
            *first = if four { 0x45 } else { 0x60 };
        }
        if bytes.len() >= 40 {
            let length = u16::try_from(bytes.len()).expect("short");
            put(&mut bytes, if four { 2 } else { 4 }, if four { length } else { length - 40 });
        }
        if let Ok(packet) = parse(&bytes, cut) {
            for field in [ChecksumState::Complete, ChecksumState::Partial, ChecksumState::PartialGso] {
                replace(&mut bytes, &packet, Endpoint::Source, Replacement { address: &new, port }, field);
            }
            if let Kind::Error(quoted) = packet.kind {
                let outer = Some((Endpoint::Source, &new));
                let new = Replacement { address: &new, port };
                replace_in_error(&mut bytes, &packet, &quoted, outer, (Endpoint::Destination, new));
            }
        }
    }

    #[test]
    fn no_garbled_packet_panics((mut bytes, new, port) in case(), at: prop::sample::Index, byte: u8) {
        let at = at.index(bytes.len().min(60));
        bytes[at] = byte;
        if let Ok(packet) = parse(&bytes, false) {
            replace(&mut bytes, &packet, Endpoint::Destination, Replacement { address: &new, port }, ChecksumState::Partial);
        }
    }
}
