//! Answers read back with etherparse, which computes every checksum from scratch.

mod kernel;

use super::*;
use crate::wire::parse;
use etherparse::{Icmpv6Slice, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpSlice};
use proptest::prelude::*;

const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [192, 0, 2, 100];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const SYN: u8 = 2;
const FIN: u8 = 1;

/// From client to VIP, with `extra` bytes (a multiple of 8) of IP options or of one extension header. Checksums are not filled
/// in, since nothing reads them.
fn request(family: Family, protocol: u8, upper: &[u8], extra: usize) -> Vec<u8> {
    let length = u16::try_from(upper.len() + extra).expect("short");
    let mut bytes = match family {
        Family::V4 => {
            let [high, low] = (20 + length).to_be_bytes();
            let first = 0x45 + u8::try_from(extra / 4).expect("short");
            let mut header = vec![first, 0xb8, high, low, 1, 2, 0x40, 0, 17, protocol, 0, 0];
            header.extend([CLIENT, VIP].concat());
            header.extend(std::iter::repeat_n(1, extra));
            header
        }
        Family::V6 => {
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x6b, 0x12, 0x34, 0x56, high, low, if extra > 0 { 60 } else { protocol }, 17];
            header.extend([CLIENT6, VIP6].concat());
            if extra > 0 {
                header.extend([protocol, u8::try_from(extra / 8 - 1).expect("short"), 1, 4, 0, 0, 0, 0]);
                header.resize(40 + extra, 0);
            }
            header
        }
    };
    bytes.extend_from_slice(upper);
    bytes
}

fn tcp(sequence: u32, acknowledgement: u32, flags: u8, options: usize, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    segment.extend([u8::try_from(5 + options).expect("short") << 4, flags, 0xff, 0xff, 0xab, 0xcd, 0, 0]);
    segment.extend(std::iter::repeat_n(1, options * 4));
    segment.extend_from_slice(data);
    segment
}

fn udp(data: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(8 + data.len()).expect("short").to_be_bytes();
    [&[0x9c, 0x40, 0, 53, high, low, 0xab, 0xcd], data].concat()
}

/// A packet and the spare bytes after it, which hold rubbish.
fn room_of(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0xa5; SPARE]].concat()
}

/// Checks an answer's IP header and returns what follows it.
fn behind_header(answer: &[u8], family: Family, protocol: u8) -> &[u8] {
    match family {
        Family::V4 => {
            let slice = Ipv4HeaderSlice::from_slice(answer).expect("header");
            let header = slice.to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.source, header.destination), (VIP, CLIENT));
            assert_eq!((header.header_len(), usize::from(header.total_len)), (20, answer.len()));
            assert_eq!((header.dont_fragment, header.more_fragments, header.identification), (true, false, 0));
            assert_eq!((header.time_to_live, header.protocol.0, header.fragment_offset.value()), (64, protocol, 0));
            &answer[20..]
        }
        Family::V6 => {
            let header = Ipv6HeaderSlice::from_slice(answer).expect("header").to_header();
            assert_eq!((header.source, header.destination), (VIP6, CLIENT6));
            assert_eq!(usize::from(header.payload_length) + 40, answer.len());
            assert_eq!((header.next_header.0, header.hop_limit, header.flow_label.value()), (protocol, 64, 0));
            &answer[40..]
        }
    }
}

/// Answers a segment with a RST and returns its (sequence number, acknowledgement number if it has ACK).
fn answered(family: Family, segment: &[u8], extra: usize) -> (u32, Option<u32>) {
    let mut room = room_of(&request(family, protocol::TCP, segment, extra));
    let packet = parse(&room[..room.len() - SPARE], false).expect("parses");
    let length = reset(&mut room, &packet).expect("an answer");
    let answer = &room[..length];
    let tcp = TcpSlice::from_slice(behind_header(answer, family, protocol::TCP)).expect("tcp");
    assert_eq!((tcp.source_port(), tcp.destination_port()), (80, 40_000));
    assert_eq!((tcp.slice().len(), tcp.window_size(), tcp.urgent_pointer()), (20, 0, 0));
    assert!(tcp.rst() && !(tcp.syn() || tcp.fin() || tcp.psh() || tcp.urg()));
    let checksum = match family {
        Family::V4 => tcp.calc_checksum_ipv4(VIP, CLIENT),
        Family::V6 => tcp.calc_checksum_ipv6(VIP6, CLIENT6),
    };
    assert_eq!(checksum.ok(), Some(tcp.checksum()));
    assert!(tcp.ack() || tcp.acknowledgment_number() == 0);
    (tcp.sequence_number(), tcp.ack().then(|| tcp.acknowledgment_number()))
}

#[test]
fn a_syn_and_a_later_segment_are_answered_with_a_reset() {
    for family in [Family::V4, Family::V6] {
        assert_eq!(answered(family, &tcp(1000, 7, SYN, 5, b""), 0), (0, Some(1001)));
        // Data in a SYN (RFC 7413) counts, and so does a FIN; the sequence space wraps.
        assert_eq!(answered(family, &tcp(1000, 7, SYN, 0, b"12345"), 8), (0, Some(1006)));
        assert_eq!(answered(family, &tcp(u32::MAX, 7, FIN, 0, b"12"), 0), (0, Some(2)));
        assert_eq!(answered(family, &tcp(1000, 77, ACK, 3, b"12345"), 16), (77, None));
        assert_eq!(answered(family, &tcp(1000, 78, ACK | SYN, 0, b""), 0), (78, None));
    }
}

#[test]
fn a_cut_segment_counts_with_its_whole_length() {
    let mut bytes = request(Family::V4, protocol::TCP, &tcp(0, 0, SYN, 0, &[0; 65_490]), 0);
    bytes.truncate(1000);
    let packet = parse(&bytes, true).expect("parses");
    let length = reset(&mut bytes, &packet).expect("an answer");
    assert_eq!(&bytes[28..length][..4], &65_491_u32.to_be_bytes());
}

/// Answers a packet with an ICMP error and checks it; returns how much it quotes.
fn refused(family: Family, bytes: &[u8]) -> usize {
    let mut room = room_of(bytes);
    let packet = parse(bytes, false).expect("parses");
    let length = unreachable(&mut room, bytes.len(), &packet).expect("an answer");
    let quote = match family {
        Family::V4 => {
            let icmp = behind_header(&room[..length], family, protocol::ICMP);
            assert_eq!((&icmp[..2], &icmp[4..8]), (&[3, 3][..], &[0; 4][..]));
            let header = etherparse::Icmpv4Header::from_slice(icmp).expect("icmp").0;
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(&icmp[8..]));
            assert!(length <= 576);
            &icmp[8..]
        }
        Family::V6 => {
            let icmp = behind_header(&room[..length], family, protocol::ICMP6);
            assert_eq!((&icmp[..2], &icmp[4..8]), (&[1, 4][..], &[0; 4][..]));
            assert!(Icmpv6Slice::from_slice(icmp).expect("icmp").is_checksum_valid(VIP6, CLIENT6));
            assert!(length <= 1280);
            &icmp[8..]
        }
    };
    assert_eq!(quote, &bytes[..quote.len()], "the packet as it came");
    // As the sender reads it.
    let error = parse(&room[..length], false).expect("parses");
    let Kind::Error(quoted) = error.kind else { panic!("{:?}", error.kind) };
    assert_eq!((quoted.source, quoted.destination), (packet.source, packet.destination));
    assert_eq!((quoted.ports, quoted.protocol), ((40_000, 53), protocol::UDP));
    quote.len()
}

#[test]
fn an_error_quotes_the_packet_as_far_as_it_may() {
    for (family, header, most) in [(Family::V4, 20, 548), (Family::V6, 40, 1232)] {
        for data in [0, 1, 3, 400, most - header - 9, most - header - 8, most - header - 7, 2000, 60_000] {
            let bytes = request(family, protocol::UDP, &udp(&vec![7; data]), 0);
            assert_eq!(refused(family, &bytes), bytes.len().min(most), "{data}");
        }
        let bytes = request(family, protocol::UDP, &udp(&[7; 9]), 16);
        assert_eq!(refused(family, &bytes), bytes.len());
    }
    // The largest payload of a queue has no spare bytes after it, and needs none.
    let mut bytes = request(Family::V4, protocol::UDP, &udp(&vec![0; 65_531 - 28]), 0);
    let packet = parse(&bytes, false).expect("parses");
    assert_eq!(unreachable(&mut bytes, 65_531, &packet), Some(576));
}

#[test]
fn a_reset_an_error_and_a_fragment_are_not_answered() {
    for family in [Family::V4, Family::V6] {
        let (icmp, error, echo) = match family {
            Family::V4 => (protocol::ICMP, 3, 8),
            Family::V6 => (protocol::ICMP6, 1, 128),
        };
        let inner = request(family, protocol::UDP, &udp(b"x"), 0);
        let mut piece = request(Family::V4, protocol::UDP, &udp(b"x"), 0);
        piece[6] = 0x20;
        for bytes in [
            request(family, protocol::TCP, &tcp(1, 2, RST, 0, b""), 0),
            request(family, protocol::TCP, &tcp(1, 2, RST | ACK, 0, b""), 0),
            request(family, icmp, &[&[error, 0, 0, 0, 0, 0, 0, 0][..], &inner].concat(), 0),
            request(family, icmp, &[error, 0, 0, 0, 0, 0, 0, 0], 0),
            request(family, icmp, &[echo, 0, 0, 0, 0, 1, 0, 1], 0),
            request(family, 132, &[0; 20], 0),
            piece,
        ] {
            let packet = parse(&bytes, false).expect("parses");
            let mut room = room_of(&bytes);
            assert_eq!(reset(&mut room, &packet), None, "{packet:?}");
            assert_eq!(unreachable(&mut room, bytes.len(), &packet), None, "{packet:?}");
            assert_eq!(room, room_of(&bytes), "nothing is changed");
        }
    }
    let bytes = request(Family::V4, protocol::UDP, &udp(b"x"), 0);
    assert_eq!(reset(&mut room_of(&bytes), &parse(&bytes, false).expect("parses")), None);
}

#[test]
fn packets_from_or_to_many_hosts_are_not_answered() {
    let v4 = [[0, 0, 0, 0], [0, 1, 2, 3], [224, 0, 0, 1], [239, 1, 2, 3], [255; 4], [240, 0, 0, 1], [127, 0, 0, 1]];
    let v6 = ["::", "::1", "ff02::1", "ff0e::7"].map(|a| a.parse::<Ipv6Addr>().expect("address").octets());
    let v4 = v4.into_iter().flat_map(|bad| [(12, bad.to_vec()), (16, bad.to_vec())]).map(|at| (Family::V4, at));
    let v6 = v6.into_iter().flat_map(|bad| [(8, bad.to_vec()), (24, bad.to_vec())]).map(|at| (Family::V6, at));
    for (family, (at, bad)) in v4.chain(v6) {
        for (protocol, upper) in [(protocol::TCP, tcp(1, 0, SYN, 0, b"")), (protocol::UDP, udp(b"x"))] {
            let mut bytes = request(family, protocol, &upper, 0);
            bytes[at..at + bad.len()].copy_from_slice(&bad);
            let packet = parse(&bytes, false).expect("parses");
            assert_eq!(reset(&mut room_of(&bytes), &packet), None, "{bad:?} at {at}");
            assert_eq!(unreachable(&mut room_of(&bytes), bytes.len(), &packet), None, "{bad:?} at {at}");
        }
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

proptest! {
    #[test]
    fn every_reset_follows_the_rules(
        family in family(), (sequence, acknowledgement) in any::<(u32, u32)>(), flags in any::<u8>().prop_map(|f| f & !RST),
        options in 0usize..=10, extra in 0usize..=5, data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let got = answered(family, &tcp(sequence, acknowledgement, flags, options, &data), extra * 8);
        let length = data.len() + usize::from(flags & SYN != 0) + usize::from(flags & FIN != 0);
        let next = sequence.wrapping_add(u32::try_from(length).expect("short"));
        prop_assert_eq!(got, if flags & ACK != 0 { (acknowledgement, None) } else { (0, Some(next)) });
    }

    #[test]
    fn every_error_quotes_what_came(
        family in family(), extra in 0usize..=5, data in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let bytes = request(family, protocol::UDP, &udp(&data), extra * 8);
        let most = if family == Family::V4 { 548 } else { 1232 };
        prop_assert_eq!(refused(family, &bytes), bytes.len().min(most));
    }

    /// Garbled packets, less space than promised, a length and a packet that belong to other bytes.
    #[test]
    fn no_bytes_panic_or_leave_the_room(
        family in family(), is_tcp in any::<bool>(), data in prop::collection::vec(any::<u8>(), 0..100), extra in 0usize..=5,
        garble in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<bool>(),
        mut other in prop::collection::vec(any::<u8>(), 0..200), length in 0usize..300,
    ) {
        let (protocol, upper) =
            if is_tcp { (protocol::TCP, tcp(1, 2, [ACK, SYN, FIN, 0][data.len() % 4], 0, &data)) } else { (protocol::UDP, udp(&data)) };
        let mut bytes = request(family, protocol, &upper, extra * 8);
        for (at, byte) in garble {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(packet) = parse(&bytes, cut) {
            let mut room = room_of(&bytes);
            if let Some(answer) = reset(&mut room, &packet) {
                prop_assert!(answer <= bytes.len());
                prop_assert!(parse(&room[..answer], false).is_ok());
            }
            let mut room = room_of(&bytes);
            if let Some(answer) = unreachable(&mut room, bytes.len(), &packet) {
                prop_assert!(answer <= room.len());
                prop_assert!(parse(&room[..answer], false).is_ok());
            }
            let size = other.len();
            prop_assert!(reset(&mut other, &packet).is_none_or(|answer| answer <= size));
            prop_assert!(unreachable(&mut other, length, &packet).is_none_or(|answer| answer <= size));
            prop_assert!(unreachable(&mut other, usize::MAX, &packet).is_none_or(|answer| answer <= size));
        }
    }
}
