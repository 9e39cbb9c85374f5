//! IP headers: addresses, lengths, extension headers, and which part of a datagram a packet is.

use super::address::{Address, Family, is_mapped, mapped};
use super::packet::Malformed;
use etherparse::{IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice};

/// Maximum number of extension headers; no sane packet has as many. A hostile packet must not cost more time than this.
const MAX_EXTENSIONS: usize = 8;

/// What an IP header says.
pub(super) struct Ip {
    pub(super) family: Family,
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) next: u8,
    /// Bytes of the header, without extensions.
    pub(super) header: usize,
    /// Bytes of the whole packet.
    pub(super) length: usize,
    pub(super) part: FragmentPart,
}

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FragmentPart {
    Whole,
    /// The fragment that begins with the upper layer's header.
    First,
    Later,
}

impl FragmentPart {
    fn of(more: bool, offset: u16) -> Self {
        match (more, offset) {
            (false, 0) => Self::Whole,
            (true, 0) => Self::First,
            _ => Self::Later,
        }
    }
}

/// Always inlined: else the result would be written to memory in small parts and read back in large ones, which stalls.
#[inline(always)]
pub(super) fn network(bytes: &[u8]) -> Option<Ip> {
    match bytes.first()? >> 4 {
        4 => {
            let h = Ipv4HeaderSlice::from_slice(bytes).ok()?;
            Some(Ip {
                family: Family::V4,
                source: mapped(h.source()),
                destination: mapped(h.destination()),
                next: h.protocol().0,
                header: h.slice().len(),
                length: usize::from(h.total_len()),
                part: FragmentPart::of(h.more_fragments(), h.fragments_offset().value()),
            })
        }
        6 => {
            let h = Ipv6HeaderSlice::from_slice(bytes).ok()?;
            // Never sent by honest hosts (RFC 4291 means them for use within a host), and here they would look like IPv4.
            if is_mapped(&h.source()) || is_mapped(&h.destination()) {
                return None;
            }
            Some(Ip {
                family: Family::V6,
                source: h.source(),
                destination: h.destination(),
                next: h.next_header().0,
                header: h.slice().len(),
                length: h.slice().len() + usize::from(h.payload_length()),
                part: FragmentPart::Whole,
            })
        }
        _ => None,
    }
}

/// Walks IPv6 extension headers: upper protocol, its offset, and whether this is a fragment (RFC 8200 §4).
pub(super) fn extensions(bytes: &[u8], mut next: u8, mut at: usize) -> Result<(u8, usize, FragmentPart), Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    for _ in 0..MAX_EXTENSIONS {
        let rest = bytes.get(at..).ok_or(Malformed::Extension)?;
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let h = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                // With segments left the packet is to be routed on to another address, which its checksum covers.
                if next == ROUTING && h.payload().get(1) != Some(&0) {
                    return Err(Malformed::Extension);
                }
                (next, at) = (h.next_header().0, at + h.slice().len());
            }
            FRAGMENT => {
                let h = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                (next, at) = (h.next_header().0, at + h.slice().len());
                let header = h.to_header();
                let part = FragmentPart::of(header.more_fragments, header.fragment_offset.value());
                if part != FragmentPart::Whole {
                    return Ok((next, at, part));
                }
            }
            AUTHENTICATION => {
                let h = IpAuthHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                (next, at) = (h.next_header().0, at + h.slice().len());
            }
            _ => return Ok((next, at, FragmentPart::Whole)),
        }
    }
    Err(Malformed::Extension)
}
