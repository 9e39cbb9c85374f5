//! Fragments of a datagram (RFC 791 §3.2, RFC 8200 §4.5), for packets that the kernel does not reassemble before they are queued.

use super::address::Family;
use super::packet::{Kind, ParsedPacket};

/// Bytes of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// Which part of which datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The identification, 16 bits in IPv4 and 32 in IPv6.
    pub id: u32,
    /// Where it begins in the datagram's payload, in bytes; a multiple of 8.
    pub offset: u32,
    /// Bytes of the payload in it.
    pub length: u32,
    /// Whether more fragments follow.
    pub more: bool,
}

/// What a packet of [`Kind::Fragment`] says of itself. `packet` must be what `parse` made of the same bytes.
#[must_use]
pub fn fragment(bytes: &[u8], packet: &ParsedPacket) -> Option<Fragment> {
    if packet.kind != Kind::Fragment {
        return None;
    }
    let length = u32::try_from(bytes.len().checked_sub(packet.transport)?).ok()?;
    let half = |at: usize| Some(u32::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    match packet.family {
        Family::V4 => {
            let field = half(6)?;
            Some(Fragment { id: half(4)?, offset: (field & 0x1fff) * 8, length, more: field & 0x2000 != 0 })
        }
        // `parse` stops right after the fragment header.
        Family::V6 => {
            let at = packet.transport.checked_sub(FRAGMENT_HEADER)?;
            let field = half(at + 2)?;
            let id = half(at + 4)? << 16 | half(at + 6)?;
            Some(Fragment { id, offset: field & 0xfff8, length, more: field & 1 != 0 })
        }
    }
}
