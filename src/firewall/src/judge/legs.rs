//! The legs of the round trip of a connection's first packets, and which chains they meet there.

use super::told::Whose;
use crate::packet::{ACK, ANY_PORT, Packet, SCTP, SYN, TCP, UDP, World};
use crate::rule::{Base, ChainOrder, Hook};
use loaded_config::plan::{Backend, Service};
use loaded_ipc::{Mode, Protocol};
use loaded_netfilter::Family;
use std::net::IpAddr;

/// Of more backends, ports or VIPs of a service so many are tried, from the first to the last: rules that tell single ones apart
/// are not found then.
const MOST_BACKENDS: usize = 32;
const MOST_PORTS: usize = 4;
const MOST_VIPS: usize = 4;

/// One leg of a round trip.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leg<'a> {
    pub(super) packet: Packet<'a>,
    pub(super) whose: Whose,
    /// The interface it leaves by, if it comes to that on this leg.
    leaves_by: Option<Option<&'a str>>,
}

/// The round trips of the first packets of a service in one family, each by its legs.
pub(super) fn legs<'a>(
    service: &'a Service,
    family: Family,
    client: Option<&'a str>,
    world: &'a World,
) -> Vec<Vec<Leg<'a>>> {
    let is_of = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
    let backends: Vec<_> = service.backends.iter().filter(|backend| is_of(&backend.address)).collect();
    let every = backends.len().div_ceil(MOST_BACKENDS).max(1);
    let vips = service.vips.iter().copied().filter(is_of).take(MOST_VIPS);
    let ports: Vec<_> = match service.ports.as_slice() {
        [] => vec![ANY_PORT],
        some => some.iter().take(MOST_PORTS).map(|range| (range.low, range.high)).collect(),
    };
    let mut trips = Vec::new();
    for vip in vips {
        for port in &ports {
            for backend in backends.iter().step_by(every) {
                trips.push(RoundTrip { service, family, client, world, vip, port: *port, backend }.legs());
            }
        }
    }
    trips
}

struct RoundTrip<'a> {
    service: &'a Service,
    family: Family,
    client: Option<&'a str>,
    world: &'a World,
    vip: IpAddr,
    port: (u16, u16),
    backend: &'a Backend,
}

impl<'a> RoundTrip<'a> {
    fn legs(&self) -> Vec<Leg<'a>> {
        let backend = Some(self.backend.address);
        let inside = self.world.paths.towards(self.backend.address);
        let own_port = self.backend.port.map_or(self.port, |port| (port, port));
        let request = |to: IpAddr, port, untracked| Packet {
            destination: Some(to),
            destination_port: port,
            flags: self.flags(SYN),
            input: self.client,
            untracked,
            ..self.packet()
        };
        let leg = |packet, whose, leaves_by| Leg { packet, whose, leaves_by };
        let before = leg(request(self.vip, self.port, false), Whose::Requests, None);
        if self.service.mode == Mode::Dsr {
            return vec![before, leg(request(self.vip, self.port, true), Whose::Requests, Some(inside))];
        }
        let reply = |from: Option<IpAddr>, port, untracked| Packet {
            source: from,
            source_port: port,
            flags: self.flags(SYN | ACK),
            input: inside,
            untracked,
            ..self.packet()
        };
        vec![
            before,
            leg(request(self.backend.address, own_port, true), Whose::Requests, Some(inside)),
            leg(reply(backend, own_port, false), Whose::Replies, None),
            leg(reply(Some(self.vip), self.port, true), Whose::Replies, Some(self.client)),
        ]
    }

    fn packet(&self) -> Packet<'a> {
        Packet {
            family: self.family,
            protocol: match self.service.protocol {
                Protocol::Tcp => Some(TCP),
                Protocol::Udp => Some(UDP),
                Protocol::Sctp => Some(SCTP),
                Protocol::Any => None,
            },
            source: None,
            destination: None,
            source_port: ANY_PORT,
            destination_port: ANY_PORT,
            flags: None,
            input: None,
            output: None,
            untracked: false,
            world: self.world,
        }
    }

    fn flags(&self, flags: u8) -> Option<u8> {
        (self.service.protocol == Protocol::Tcp).then_some(flags)
    }
}

impl<'a> Leg<'a> {
    /// The packet as this chain sees it; `None` if it does not come there on this leg.
    pub(super) fn at(&self, base: &Base) -> Option<Packet<'a>> {
        let packet = self.packet;
        let is_on = |interface: Option<&str>| {
            base.devices.is_empty() || interface.is_none_or(|name| base.devices.iter().any(|device| device == name))
        };
        let meets = match (base.hook, base.order, self.leaves_by) {
            (Hook::Ingress, _, None) => is_on(packet.input),
            (Hook::Ingress, ..) => false,
            (Hook::Prerouting, ChainOrder::Before, leaves) => leaves.is_none(),
            // What a worker has accepted goes on behind this chain; what it has repeated comes here again.
            (Hook::Prerouting, ChainOrder::Below, leaves) => leaves.is_some() && self.whose == Whose::Replies,
            (Hook::Prerouting, ChainOrder::Unknown, _) => true,
            (Hook::Prerouting, ChainOrder::Behind, leaves) => leaves.is_some(),
            (Hook::Forward | Hook::Postrouting, _, leaves) => leaves.is_some(),
            (Hook::Egress, _, leaves) => leaves.is_some_and(is_on),
        };
        let routed = matches!(base.hook, Hook::Forward | Hook::Postrouting | Hook::Egress);
        let output = if routed { self.leaves_by } else { None };
        // By which interface it came is not always told there.
        let input = if matches!(base.hook, Hook::Postrouting | Hook::Egress) { None } else { packet.input };
        meets.then_some(Packet { output, input, ..packet })
    }
}
