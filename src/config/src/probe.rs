//! Checks, passive checks and discovery: completes them with what they need from their service.

use super::check_kind::Surroundings;
use super::draft::{DraftCheck, DraftDiscover, DraftPassive, DraftPlace, DraftService, Judgement, PASSIVE};
use super::location::{At, Flaw};
use super::value::one_host;
use crate::network::Network;
use crate::plan::{Discover, Place};
use loaded_ipc::{Check, Mode, Passive, PortRange, Protocol};
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Every node of a link, RFC 4291 §2.7.1.
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Prefix lengths of an IPv4 network that has nodes and a broadcast address. No network is wider than 10.0.0.0/8.
const PREFIX4: RangeInclusive<u8> = 8..=30;

/// Prefix lengths of an IPv6 network to look into: a site has a /48 (RFC 6177), one link seldom more than a /64.
const PREFIX6: RangeInclusive<u8> = 48..=128;

/// The complete check.
pub(super) fn check(service: &DraftService) -> Result<Option<Check>, Flaw> {
    let Some(draft) = &service.check else {
        return Ok(None);
    };
    let DraftCheck { kind, port, pace } = &draft.value;
    let around = Surroundings {
        service: &service.name.value,
        protocol: service.protocol,
        backend_port: backend_port(service),
        only_port: only_port(service),
        vip: service.vips.first().map(|vip| vip.value),
        port: *port,
    };
    let kind = kind.clone().complete(&around).map_err(|message| draft.flaw(message))?;
    let pace = *pace;
    Ok(Some(Check {
        kind,
        interval: pace.interval,
        interval_down: pace.interval_down,
        timeout: pace.timeout,
        jitter: pace.jitter,
        rise: pace.rise,
        fall: pace.fall,
    }))
}

/// Where a check meets the backends if it names no port: `None` if one of them is on many. Of different ones the first.
fn backend_port(service: &DraftService) -> Option<u16> {
    let mut ports = service.backend_ports().map(|port| port.or(only_port(service)));
    let first = ports.next()??;
    ports.all(|port| port.is_some()).then_some(first)
}

/// Whether the check meets the backends where their clients do, and they have different ports.
pub(super) fn checks_own_ports(service: &DraftService, check: &Check) -> bool {
    let speaks = match service.protocol {
        Protocol::Tcp => check.kind.tcp_port(),
        Protocol::Udp => check.kind.udp_port(),
        Protocol::Sctp | Protocol::Any => None,
    };
    let named = speaks.is_none() || service.check.as_ref().is_some_and(|check| check.value.port.is_some());
    let mut ports = service.backend_ports().map(|port| port.or(only_port(service)));
    let first = ports.next();
    !named && ports.any(|port| Some(port) != first)
}

/// Whether every opening at a backend is of one port there, so that a closed one says that nothing serves.
fn is_one_port(service: &DraftService) -> bool {
    only_port(service).is_some() || service.backend_ports().all(|port| port.is_some())
}

/// Whether and how workers judge a backend. A healthy backend of a service with many ports may have closed ones, so a
/// single port has to be named.
pub(super) fn passive(service: &DraftService, check: Option<&Check>) -> Result<Option<Passive>, Flaw> {
    let checked = check.and_then(|check| check.kind.port()).filter(|port| has_port(service, *port));
    let (draft, port) = match service.passive {
        Judgement::Off => return Ok(None),
        // A datagram may go unanswered for many good reasons.
        Judgement::Unsaid if has_no_tcp(service) => return Ok(None),
        Judgement::On(draft) if has_no_tcp(service) => {
            let protocol = service.protocol;
            return Err(draft.flaw(format!(
                "passive judges by TCP connections, and a service of protocol \"{protocol}\" has none of"
            )));
        }
        Judgement::Unsaid if service.mode == Mode::Dsr => return Ok(None),
        Judgement::On(draft) if service.mode == Mode::Dsr => {
            return Err(draft.flaw("in mode \"dsr\" no worker sees what backends answer; leave passive out"));
        }
        Judgement::Unsaid if check.is_none() || (!is_one_port(service) && checked.is_none()) => return Ok(None),
        Judgement::Unsaid => (PASSIVE, None),
        Judgement::On(draft) => {
            let name = &service.name.value;
            if let Some(port) = draft.value.port.filter(|port| !has_port(service, port.value)) {
                return Err(port.flaw(format!("{} is no port of service {name:?}, so no client opens it", port.value)));
            }
            if draft.value.port.is_none() && !is_one_port(service) && checked.is_none() {
                return Err(draft.flaw(format!(
                    "passive needs a port: service {name:?} has many, and a client that tries a closed one would take \
                     healthy backends out; write passive = {{ port = … }}, or give the check a port of the service"
                )));
            }
            (draft.value, draft.value.port.map(|port| port.value))
        }
    };
    let DraftPassive { fails, timeout, hold, port: _ } = draft;
    let port = port.or(if is_one_port(service) { None } else { checked });
    Ok(Some(Passive { fails, timeout, hold, port }))
}

/// Where to search for backends. A discovered one joins only once its check succeeds, so there must be a check.
pub(super) fn discover(service: &DraftService) -> Result<Option<Discover>, Flaw> {
    let Some(discover) = &service.discover else {
        return Ok(None);
    };
    let DraftDiscover { places, limit, interval } = &discover.value;
    if service.check.is_none() {
        return Err(discover.flaw("discover needs a check too: only nodes that pass it become backends"));
    }
    for (number, place) in places.iter().enumerate() {
        check_place(service, place)?;
        let network = place.network.value;
        let overlaps = |other: &&DraftPlace| {
            other.network.value.contains(network.first()) || network.contains(other.network.value.first())
        };
        if let Some(other) = places.iter().take(number).find(overlaps) {
            let text = format!("the networks {} and {network} overlap", other.network.value);
            return Err(place.network.flaw(text).see(other.network.mark));
        }
    }
    let places = places.iter().map(|place| Place {
        network: place.network.value,
        to: place.to.map_or_else(|| asked(place.network.value), |to| to.value),
        interface: place.interface.clone(),
    });
    Ok(Some(Discover { places: places.collect(), limit: *limit, interval: *interval }))
}

/// The default destination of the search.
fn asked(network: Network) -> IpAddr {
    if network.is_ipv4() { network.last() } else { ALL_NODES.into() }
}

fn check_place(service: &DraftService, place: &DraftPlace) -> Result<(), Flaw> {
    let network = place.network.value;
    let (family, range) = if network.is_ipv4() { ("IPv4", PREFIX4) } else { ("IPv6", PREFIX6) };
    if !range.contains(&network.length()) {
        let (least, most) = (range.start(), range.end());
        let text = format!("{network} cannot be searched: its prefix length is not between /{least} and /{most}");
        return Err(place.network.flaw(text));
    }
    if one_host(&network.first()).is_err() || one_host(&network.last()).is_err() {
        return Err(place.network.flaw(format!("{network} has no addresses that backends can have")));
    }
    if !service.vips.iter().any(|vip| vip.value.is_ipv4() == network.is_ipv4()) {
        let name = &service.name.value;
        return Err(place
            .network
            .flaw(format!("{network} is an {family} network, but service {name:?} has no {family} VIP")));
    }
    if let Some(to) = place.to.filter(|to| network.is_ipv4() && !network.contains(to.value)) {
        return Err(to.flaw(format!("{} is outside of the network {network}", to.value)).see(place.network.mark));
    }
    if !network.is_ipv4() && place.interface.is_none() {
        return Err(place
            .network
            .flaw("interface is missing: ff02::1 exists on every link, so name the one to ask on"));
    }
    Ok(())
}

/// The port of a service that has exactly one.
fn only_port(service: &DraftService) -> Option<u16> {
    match service.ports.as_slice() {
        [At { value: PortRange { low, high }, .. }] if low == high => Some(*low),
        _ => None,
    }
}

fn has_no_tcp(service: &DraftService) -> bool {
    matches!(service.protocol, Protocol::Udp | Protocol::Sctp)
}

pub(super) fn has_port(service: &DraftService, port: u16) -> bool {
    let within = |range: &At<PortRange>| (range.value.low..=range.value.high).contains(&port);
    service.ports.is_empty() || service.ports.iter().any(within)
}
