//! Replaces an address, and updates every checksum that covers it.

use super::address::{Address, Family};
use super::checksum::{add, pseudo_header, sum, update, update_sum};
use super::facts::ChecksumState;
use super::parse::{ICMP_HEADER, Kind, ParsedPacket, Quoted, protocol};
use std::ops::Range;

/// Which of the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// Sets an address. `packet` must be what [`super::parse`] made of the same bytes.
pub fn replace(bytes: &mut [u8], packet: &ParsedPacket, side: Endpoint, new: &Address, field: ChecksumState) {
    let (at, new) = locate(packet.family, 0, side, new);
    let old = swap(bytes, at, new);
    let new = sum(new);
    if packet.family == Family::V4 {
        patch(bytes, 10, |c| update(c, old, new));
    }
    transport(bytes, packet, old, new, field);
}

/// Sets an address of an ICMP error and the matching address of the packet it quotes, so that the receiver recognises the quoted
/// packet as its own. If `outer` is `None` the error's own addresses stay.
pub fn replace_in_error(
    bytes: &mut [u8],
    packet: &ParsedPacket,
    quoted: &Quoted,
    outer: Option<(Endpoint, &Address)>,
    inner: (Endpoint, &Address),
) {
    let body = packet.transport..bytes.len();
    let before = sum(&bytes[body.clone()]);

    let base = packet.transport + ICMP_HEADER;
    let (at, new) = locate(packet.family, base, inner.0, inner.1);
    let old = swap(bytes, at, new);
    let new = sum(new);
    if packet.family == Family::V4 {
        patch(bytes, base + 10, |c| update(c, old, new));
    }
    // The quoted packet may end before its checksum.
    if let Some(at) = checksum_at(packet.family, quoted.protocol).map(|o| quoted.transport + o) {
        patch(bytes, at, |c| changed(c, old, new, quoted.protocol));
    }

    let after = sum(&bytes[body]);
    patch(bytes, packet.transport + 2, |c| update(c, before, after));
    if let Some((side, new)) = outer {
        replace(bytes, packet, side, new, ChecksumState::Complete);
    }
}

/// Where an address lies in the IP header that begins at `base`, and the bytes of the new one in that family.
fn locate(family: Family, base: usize, side: Endpoint, new: &Address) -> (Range<usize>, &[u8]) {
    let (first, length) = match (family, side) {
        (Family::V4, Endpoint::Source) => (12, 4),
        (Family::V4, Endpoint::Destination) => (16, 4),
        (Family::V6, Endpoint::Source) => (8, 16),
        (Family::V6, Endpoint::Destination) => (24, 16),
    };
    (base + first..base + first + length, &new[16 - length..])
}

/// Writes the new address and returns the sum of the old one.
fn swap(bytes: &mut [u8], at: Range<usize>, new: &[u8]) -> u16 {
    let Some(place) = bytes.get_mut(at) else { return 0 };
    let old = sum(place);
    place.copy_from_slice(new);
    old
}

fn transport(bytes: &mut [u8], packet: &ParsedPacket, old: u16, new: u16, field: ChecksumState) {
    let at = match (packet.kind, checksum_at(packet.family, packet.protocol)) {
        // The upper layer of a fragment is missing or incomplete.
        (Kind::Fragment, _) | (_, None) => return,
        (_, Some(offset)) => packet.transport + offset,
    };
    match field {
        ChecksumState::PartialGso => patch(bytes, at, |c| update_sum(c, old, new)),
        ChecksumState::Complete => patch(bytes, at, |c| changed(c, old, new, packet.protocol)),
        ChecksumState::Partial => {
            patch(bytes, at, |_| 0);
            let made = !add(pseudo(bytes, packet), sum(upper_layer(bytes, packet)));
            patch(bytes, at, |_| if packet.protocol == protocol::UDP { nonzero(made) } else { made });
        }
    }
}

/// The bytes the transport checksum covers. For UDP its own length counts (RFC 768).
fn upper_layer<'b>(bytes: &'b [u8], packet: &ParsedPacket) -> &'b [u8] {
    let rest = bytes.get(packet.transport..).unwrap_or(&[]);
    match (packet.protocol, rest.get(4..6)) {
        (protocol::UDP, Some(length)) => {
            rest.get(..usize::from(u16::from_be_bytes([length[0], length[1]]))).unwrap_or(rest)
        }
        _ => rest,
    }
}

fn pseudo(bytes: &[u8], packet: &ParsedPacket) -> u16 {
    let (source, destination) = match packet.family {
        Family::V4 => (&bytes[12..16], &bytes[16..20]),
        Family::V6 => (&bytes[8..24], &bytes[24..40]),
    };
    pseudo_header(source, destination, packet.protocol, upper_layer(bytes, packet).len())
}

/// Offset, within the upper layer, of the checksum that covers the addresses by a pseudo header. ICMP over IPv4 has none; in
/// other protocols nothing is rewritten.
fn checksum_at(family: Family, protocol: u8) -> Option<usize> {
    match (protocol, family) {
        (protocol::TCP, _) => Some(16),
        (protocol::UDP, _) => Some(6),
        (protocol::ICMP6, Family::V6) => Some(2),
        _ => None,
    }
}

fn patch(bytes: &mut [u8], at: usize, change: impl FnOnce(u16) -> u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        let changed = change(u16::from_be_bytes([place[0], place[1]]));
        place.copy_from_slice(&changed.to_be_bytes());
    }
}

/// A transport checksum after a change. In UDP zero means "no checksum" and stays (RFC 768); a computed zero is sent as all
/// ones.
fn changed(checksum: u16, old: u16, new: u16, protocol: u8) -> u16 {
    match (protocol, checksum) {
        (protocol::UDP, 0) => 0,
        (protocol::UDP, _) => nonzero(update(checksum, old, new)),
        _ => update(checksum, old, new),
    }
}

fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}
