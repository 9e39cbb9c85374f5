//! Names for flows and clients, made of a packet's addresses and ports.

use crate::wire::{Address, Family, Kind, ParsedPacket, TcpSegment};
use loaded_ipc::Affinity;
use loaded_table::{AffinityKey, Flow, FlowKey, Hashed};

/// The flow that a packet would belong to, ready for a look-up.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowQuery {
    pub(super) direction: Direction,
    pub(super) key: FlowKey,
    pub(super) hashed: Hashed,
    /// The service's port in the packet: at the VIP in a request, at the backend in a reply; 0 for protocols without ports.
    pub(super) port: u16,
    /// The flow may have the key with the other port (see `super::key_port`).
    pub(super) either: bool,
}

/// Which way a packet goes, by its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// To this virtual IP.
    Request { vip: u16 },
    /// From a backend.
    Reply,
    /// Past the virtual IPs, to a backend's own address.
    Past,
}

/// The key of the flow a packet is part of, with the port that the packet names; `None` for kinds of packets that have no flows.
#[inline(always)]
pub(super) fn flow_key(packet: &ParsedPacket, direction: Direction) -> Option<FlowKey> {
    let request = direction != Direction::Reply;
    let (protocol, client, client_port, service_port) = match packet.kind {
        Kind::Tcp(TcpSegment { ports: (from, to), .. })
        | Kind::Udp { ports: (from, to) }
        | Kind::Sctp { ports: (from, to), .. }
            if request =>
        {
            (packet.protocol, packet.source, from, to)
        }
        Kind::Tcp(TcpSegment { ports: (from, to), .. })
        | Kind::Udp { ports: (from, to) }
        | Kind::Sctp { ports: (from, to), .. } => (packet.protocol, packet.destination, to, from),
        Kind::Echo { request: true, id } if request => (packet.protocol, packet.source, id, 0),
        Kind::Echo { request: false, id } if !request => (packet.protocol, packet.destination, id, 0),
        // An error about a request quotes client -> backend, one about a reply quotes VIP -> client.
        Kind::Error(q) if request => (q.protocol, q.destination, q.ports.1, q.ports.0),
        Kind::Error(q) => (q.protocol, q.source, q.ports.0, q.ports.1),
        Kind::Other if request => (packet.protocol, packet.source, 0, 0),
        Kind::Other => (packet.protocol, packet.destination, 0, 0),
        _ => return None,
    };
    Some(FlowKey { protocol, client, client_port, service_port })
}

/// The address that shows that a packet comes from a backend. Any router behind us may send an error about a request;
/// the packet quoted in it names the backend.
#[inline]
pub(super) fn backend_side(packet: &ParsedPacket) -> &Address {
    match &packet.kind {
        Kind::Error(quoted) => &quoted.destination,
        _ => &packet.source,
    }
}

/// The port at the VIP, if a reply (or what an error about a request quotes) has another one.
#[inline]
pub(super) fn another_port(query: &FlowQuery, flow: Flow) -> Option<u16> {
    (flow.vip_port != query.port).then_some(flow.vip_port)
}

/// Whether a packet is a SYN without ACK, which opens a connection.
pub(super) fn opens(packet: &ParsedPacket) -> bool {
    matches!(packet.kind, Kind::Tcp(segment) if segment.opens())
}

/// The client that a request comes from: the leading bits of its address; the rest is zero.
pub(super) fn client_key(packet: &ParsedPacket, affinity: &Affinity, service: u16) -> AffinityKey {
    key_of_client((packet.family, &packet.source), affinity, service)
}

/// The same, by the client's address.
pub(super) fn key_of_client((family, client): (Family, &Address), affinity: &Affinity, service: u16) -> AffinityKey {
    let bits = match family {
        Family::V4 => 96 + u32::from(affinity.prefix4.min(32)),
        Family::V6 => u32::from(affinity.prefix6.min(128)),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    AffinityKey { prefix: (u128::from_be_bytes(*client) & mask).to_be_bytes(), service }
}

/// The bytes that a strategy chooses by where clients have no affinity: the whole flow, folded into the length of an
/// address.
pub(super) fn flow_seed(query: &FlowQuery) -> [u8; 16] {
    let key = FlowKey { service_port: query.port, ..query.key };
    let mut salt = [0; 16];
    salt[0..2].copy_from_slice(&key.client_port.to_be_bytes());
    salt[2..4].copy_from_slice(&key.service_port.to_be_bytes());
    salt[4] = key.protocol;
    let mut seed = key.client;
    for (byte, salt) in seed.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    seed
}
