//! Any bytes as a packet: what is read of it lies within it, agrees with a plain reader, and the answers to it are sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loaded_fuzz::judge::{sound, walk};
use loaded_worker::wire::{self, Kind, ParsedPacket, SPARE};

/// More extension headers than this are refused.
const MAX_EXTENSIONS: usize = 8;

fn agrees(bytes: &[u8], packet: &ParsedPacket) {
    let plain = walk(bytes).expect("a plain reader can read it");
    assert!(plain.extensions <= MAX_EXTENSIONS, "{} extension headers", plain.extensions);
    assert_eq!((plain.protocol, plain.at), (packet.protocol, packet.transport));
    assert_eq!(plain.piece, packet.kind == Kind::Fragment);
    assert!(packet.transport <= bytes.len());
    match packet.kind {
        Kind::Tcp(_) => assert!(packet.transport + 20 <= bytes.len()),
        Kind::Udp { .. } | Kind::Echo { .. } => assert!(packet.transport + 8 <= bytes.len()),
        Kind::Error(quoted) => {
            let inner = packet.transport + 8;
            let plain = walk(&bytes[inner..]).expect("the quoted one too");
            assert!(plain.extensions <= MAX_EXTENSIONS && !plain.later);
            assert_eq!((plain.protocol, inner + plain.at), (quoted.protocol, quoted.transport));
        }
        _ => {}
    }
}

fn answers(bytes: &[u8], packet: &ParsedPacket) {
    let room = || [bytes, &[0xaa; SPARE]].concat();
    let (mut reset, mut unreachable) = (room(), room());
    let reset_length = wire::reset(&mut reset, packet);
    let unreachable_length = wire::unreachable(&mut unreachable, bytes.len(), packet);
    for (room, length) in [(reset, reset_length), (unreachable, unreachable_length)] {
        let Some(length) = length else {
            assert_eq!(room[..bytes.len()], *bytes, "no answer changes nothing");
            continue;
        };
        let answer = &room[..length];
        let read = wire::parse(answer, false).expect("an answer is a packet");
        assert_eq!((read.source, read.destination), (packet.destination, packet.source));
        assert!(sound(answer), "{answer:02x?}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let whole = wire::parse(bytes, false);
    let cut = wire::parse(bytes, true);
    if whole.is_ok() {
        assert_eq!(whole, cut);
    }
    let Ok(packet) = cut else { return };
    agrees(bytes, &packet);
    let _ = wire::lacks_checksum(bytes, &packet);
    answers(bytes, &packet);
    match wire::fragment(bytes, &packet) {
        Some(piece) => {
            assert_eq!(piece.length as usize, bytes.len() - packet.transport);
            if piece.offset == 0
                && let Ok(first) = wire::parse_first(bytes, &packet)
            {
                assert!(first.kind != Kind::Fragment && first.transport <= bytes.len());
                answers(bytes, &first);
            }
        }
        None => assert_ne!(packet.kind, Kind::Fragment),
    }
});
