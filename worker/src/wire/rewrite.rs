//! Replaces an address and, where it changes, the port beside it, and updates every checksum that covers them.

use super::address::{Address, Family};
use super::checksum::{add, pseudo_header, sum, swap, update, update_sum};
use super::facts::ChecksumState;
use super::packet::{ICMP_HEADER, Kind, ParsedPacket, Quoted, protocol};
use super::sctp;

/// Which of the two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
}

/// What an endpoint is changed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replacement<'a> {
    /// Its new address.
    pub address: &'a Address,
    /// Its new port, host byte order; `None`: the port stays. A packet without ports, or whose ports are in another
    /// fragment, gets none.
    pub port: Option<u16>,
}

/// Sets an address and a port. `packet` must be what [`super::parse()`] made of the same bytes.
#[inline]
pub fn replace(bytes: &mut [u8], packet: &ParsedPacket, side: Endpoint, new: Replacement<'_>, field: ChecksumState) {
    let (old, address) = swap_address(bytes, (packet.family, 0), side, new.address);
    if packet.family == Family::V4 {
        patch(bytes, 10, |c| update(c, old, address));
    }
    match (new.port, packet.kind) {
        (None, Kind::Sctp { .. }) => sctp::replace(bytes, packet.transport, None, field),
        (None, _) => transport(bytes, packet, (old, address), (old, address), field),
        (Some(port), _) => replace_port(bytes, packet, (side, port), (old, address), field),
    }
}

/// Sets a port, and updates the checksum for it and for the address. `addresses`: the sums of the old and of the new
/// one.
#[inline(never)]
fn replace_port(
    bytes: &mut [u8],
    packet: &ParsedPacket,
    (side, port): (Endpoint, u16),
    addresses: (u16, u16),
    field: ChecksumState,
) {
    let at = port_at(packet.transport, side);
    match packet.kind {
        Kind::Sctp { .. } => sctp::replace(bytes, packet.transport, Some((at, port)), field),
        Kind::Tcp(_) | Kind::Udp { .. } => {
            let (old, new) = addresses;
            let old = add(old, swap(bytes, at, &port.to_be_bytes()));
            transport(bytes, packet, addresses, (old, add(new, port)), field);
        }
        _ => transport(bytes, packet, addresses, addresses, field),
    }
}

/// Sets an address of an ICMP error, and the matching address and port of the packet it quotes, so that the receiver recognises
/// the quoted packet as its own. If `outer` is `None` the error's own addresses stay. The checksum of quoted SCTP stays what it
/// was: it covers the whole packet, of which seldom all is quoted, and receivers look at ports and verification tag
/// (`sctp_err_lookup`, net/sctp/input.c).
pub fn replace_in_error(
    bytes: &mut [u8],
    packet: &ParsedPacket,
    quoted: &Quoted,
    outer: Option<(Endpoint, &Address)>,
    (side, new): (Endpoint, Replacement<'_>),
) {
    let body = packet.transport..bytes.len();
    let before = sum(&bytes[body.clone()]);

    let base = packet.transport + ICMP_HEADER;
    let (mut old, mut new_sum) = swap_address(bytes, (packet.family, base), side, new.address);
    if packet.family == Family::V4 {
        patch(bytes, base + 10, |c| update(c, old, new_sum));
    }
    if let Some(port) = new.port.filter(|_| protocol::has_ports(quoted.protocol)) {
        let at = port_at(quoted.transport, side);
        (old, new_sum) = (add(old, swap(bytes, at, &port.to_be_bytes())), add(new_sum, port));
    }
    // The quoted packet may end before its checksum.
    if let Some(at) = checksum_at(packet.family, quoted.protocol).map(|o| quoted.transport + o) {
        patch(bytes, at, |c| changed(c, old, new_sum, quoted.protocol));
    }

    let after = sum(&bytes[body]);
    patch(bytes, packet.transport + 2, |c| update(c, before, after));
    if let Some((side, address)) = outer {
        replace(bytes, packet, side, Replacement { address, port: None }, ChecksumState::Complete);
    }
}

/// Where a port is in TCP, UDP and SCTP alike.
fn port_at(transport: usize, side: Endpoint) -> usize {
    match side {
        Endpoint::Source => transport,
        Endpoint::Destination => transport + 2,
    }
}

/// Writes an address into the IP header that begins at `base`. The sums of the old and of the new one.
#[inline]
fn swap_address(bytes: &mut [u8], (family, base): (Family, usize), side: Endpoint, new: &Address) -> (u16, u16) {
    match family {
        Family::V4 => {
            let at = if side == Endpoint::Source { 12 } else { 16 };
            let [.., a, b, c, d] = *new;
            (swap(bytes, base + at, &[a, b, c, d]), sum(&[a, b, c, d]))
        }
        Family::V6 => {
            let at = if side == Endpoint::Source { 8 } else { 24 };
            (swap(bytes, base + at, new), sum(new))
        }
    }
}

/// The sums of the old and of the new bytes: of `addresses` alone, which are in the pseudo header, and of `all`.
#[inline(always)]
fn transport(bytes: &mut [u8], packet: &ParsedPacket, addresses: (u16, u16), all: (u16, u16), field: ChecksumState) {
    let at = match (packet.kind, checksum_at(packet.family, packet.protocol)) {
        // The upper layer of a fragment is missing or incomplete.
        (Kind::Fragment, _) | (_, None) => return,
        (_, Some(offset)) => packet.transport + offset,
    };
    match field {
        // The pseudo header has no ports.
        ChecksumState::PartialGso => patch(bytes, at, |c| update_sum(c, addresses.0, addresses.1)),
        ChecksumState::Complete => patch(bytes, at, |c| changed(c, all.0, all.1, packet.protocol)),
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

/// Offset, within the upper layer, of the checksum that covers the addresses by a pseudo header. ICMP over IPv4 has none, nor
/// has SCTP; in other protocols nothing is rewritten.
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
