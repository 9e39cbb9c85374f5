//! An address and a port are replaced and put back: every checksum is what one made from scratch would be, and the packet is again
//! what it was, byte by byte.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use loaded_fuzz::judge::{put, same, walk, word};
use loaded_worker::wire::{
    Address, ChecksumState, Endpoint, Family, Kind, ParsedPacket, Replacement, mapped, parse, replace, replace_in_error,
};

#[derive(Debug, Arbitrary)]
struct Input<'b> {
    /// Each checksum is made before anything else is done.
    honest: bool,
    field: u8,
    source: bool,
    outer: bool,
    new: [u8; 16],
    port: Option<u16>,
    bytes: &'b [u8],
}

fn address(family: Family, new: [u8; 16]) -> Address {
    match family {
        Family::V4 => mapped([new[12], new[13], new[14], new[15]]),
        Family::V6 => new,
    }
}

fn side(source: bool) -> Endpoint {
    if source { Endpoint::Source } else { Endpoint::Destination }
}

/// Every sum of a packet that rewriting must not change: outer header, outer upper layer, and the same of what is quoted.
/// `quoted` where it begins; pieces of datagrams have no upper layer.
fn sums(bytes: &[u8], quoted: Option<usize>) -> [Option<u16>; 4] {
    let two = |bytes: &[u8]| {
        let packet = walk(bytes).expect("it was read before");
        // A later piece has none, and of a first one the sum is not that of the whole.
        (packet.outer(bytes), if packet.piece { None } else { packet.upper(bytes) })
    };
    let outer = two(bytes);
    let inner = quoted.map(|at| two(&bytes[at..]));
    [Some(outer.0), outer.1, inner.map(|sums| sums.0), inner.and_then(|sums| sums.1)]
}

fn assert_same(one: [Option<u16>; 4], two: [Option<u16>; 4]) {
    for (one, two) in one.into_iter().zip(two) {
        assert!(
            one.is_some() == two.is_some() && one.zip(two).is_none_or(|(one, two)| same(one, two)),
            "{one:?} {two:?}"
        );
    }
}

/// Checksums where both zeros are one: there and back again may turn one into the other, if it was not made honestly.
fn normal(bytes: &[u8], quoted: Option<usize>) -> Vec<u8> {
    let mut normal = bytes.to_vec();
    for begin in [Some(0), quoted].into_iter().flatten() {
        let packet = walk(&bytes[begin..]).expect("it was read before");
        let header = packet.v4.then_some(10);
        for at in [header, packet.checksum()].into_iter().flatten() {
            if word(&normal, begin + at) == Some(0xffff) {
                put(&mut normal, begin + at, 0);
            }
        }
    }
    normal
}

/// What the CRC of SCTP lacks to be right; replacing leaves that as it is. Without one (RFC 9653) there is none.
fn flaw(bytes: &[u8]) -> Option<u32> {
    let packet = walk(bytes).filter(|packet| !packet.piece)?;
    let stated = packet.stated_crc(bytes)?;
    let made = packet.made_crc(bytes)?;
    (stated != 0 || made == 0).then_some(stated ^ made)
}

/// The port of one side.
fn port_of(ports: (u16, u16), source: bool) -> u16 {
    if source { ports.0 } else { ports.1 }
}

fn plain_packet(bytes: &mut [u8], packet: &ParsedPacket, input: &Input<'_>) {
    let walked = walk(bytes).expect("it was read before");
    let (side, address) = (side(input.source), address(packet.family, input.new));
    let new = Replacement { address: &address, port: input.port };
    let old = if input.source { packet.source } else { packet.destination };
    let old = Replacement { address: &old, port: packet.kind.ports().map(|ports| port_of(ports, input.source)) };
    let checksum = walked.checksum().filter(|_| packet.kind != Kind::Fragment && packet.protocol != 1);
    let (before, original) = (sums(bytes, None), bytes.to_vec());
    let field = match (input.field % 3, checksum) {
        (1, Some(_)) => ChecksumState::Partial,
        (2, Some(_)) => ChecksumState::PartialGso,
        _ => ChecksumState::Complete,
    };
    if field == ChecksumState::Complete {
        let flawed = flaw(bytes);
        replace(bytes, packet, side, new, field);
        assert_same(before, sums(bytes, None));
        assert_eq!(flaw(bytes), flawed);
        let read = parse(bytes, false);
        if let Ok(read) = read {
            assert_eq!(if input.source { read.source } else { read.destination }, address);
            assert_eq!(read.transport, packet.transport);
            match input.port.filter(|_| packet.kind.ports().is_some()) {
                None => assert_eq!(read.kind, packet.kind),
                Some(port) => {
                    let (ports, were) = (read.kind.ports().expect("ports"), packet.kind.ports().expect("ports"));
                    assert_eq!(port_of(ports, input.source), port);
                    assert_eq!(port_of(ports, !input.source), port_of(were, !input.source));
                }
            }
        }
        replace(bytes, packet, side, old, field);
        if input.honest {
            assert_eq!(*bytes, original);
        }
        assert_eq!(normal(bytes, None), normal(&original, None));
        return;
    }
    let Some(at) = checksum else { return };
    put(bytes, at, walked.pseudo(bytes));
    replace(bytes, packet, side, new, field);
    if field == ChecksumState::PartialGso {
        assert!(same(word(bytes, at).expect("within"), walked.pseudo(bytes)));
    } else if let Some(sum) = walked.upper(bytes) {
        assert_eq!(sum, 0xffff, "a whole checksum was made");
    } else {
        panic!("a made checksum is not \"none\"");
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut bytes = input.bytes.to_vec();
    let Ok(packet) = parse(&bytes, false) else { return };
    let quoted = match packet.kind {
        Kind::Error(_) => Some(packet.transport + 8),
        _ => None,
    };
    if input.honest {
        if let Some(at) = quoted {
            let inner = walk(&bytes[at..]).expect("it was read before");
            inner.finish(&mut bytes[at..]);
        }
        let walked = walk(&bytes).expect("it was read before");
        match packet.kind {
            // What is in the first piece covers the others too.
            Kind::Fragment => walked.finish_header(&mut bytes),
            _ => walked.finish(&mut bytes),
        }
    }
    let Kind::Error(about) = packet.kind else { return plain_packet(&mut bytes, &packet, &input) };
    let (side, new) = (side(input.source), address(packet.family, input.new));
    let old = if input.source { about.source } else { about.destination };
    let there = Replacement { address: &new, port: input.port };
    let back = Replacement { address: &old, port: Some(port_of(about.ports, input.source)) };
    let other = if input.source { packet.destination } else { packet.source };
    let opposite = if input.source { Endpoint::Destination } else { Endpoint::Source };
    let (before, original) = (sums(&bytes, quoted), bytes.clone());
    replace_in_error(&mut bytes, &packet, &about, input.outer.then_some((opposite, &new)), (side, there));
    assert_same(before, sums(&bytes, quoted));
    replace_in_error(&mut bytes, &packet, &about, input.outer.then_some((opposite, &other)), (side, back));
    if input.honest {
        assert_eq!(bytes, original);
    }
    assert_eq!(normal(&bytes, quoted), normal(&original, quoted));
});
