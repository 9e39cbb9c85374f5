//! Notes on VIPs that share backends in mode "nat": a backend sees no VIP, so a client's two flows to two VIPs, from one port,
//! look alike there. The worker gives the second one another backend; whoever configures it should know.

use super::draft::{Draft, DraftMember, DraftService};
use super::location::{At, Flaw};
use loaded_ipc::{Mode, PortRange, Protocol};
use std::net::IpAddr;

const BENDS: &str = "if a client uses one source port to both at once, its second connection goes to another backend, \
                     whatever affinity says, and is refused where none is left";
const AVOID: &str = "give each VIP backends or backend addresses of its own, or use mode dsr";

/// At most one note for each service: about its own VIPs, or else about the first service before it that shares backends.
pub(super) fn notes(draft: &Draft) -> Vec<Flaw> {
    let translating: Vec<_> = draft.services.iter().filter(|service| service.mode == Mode::Nat).collect();
    let note = |(place, service): (usize, &&DraftService)| {
        let earlier = translating.iter().take(place);
        among_own(service).or_else(|| earlier.into_iter().find_map(|other| between(other, service)))
    };
    translating.iter().enumerate().filter_map(note).collect()
}

/// A service with two VIPs of one family.
fn among_own(service: &DraftService) -> Option<Flaw> {
    let pairs = || service.vips.iter().enumerate().flat_map(|(n, vip)| service.vips[..n].iter().map(move |v| (v, vip)));
    let (first, second) = pairs().find(|(one, other)| one.value.is_ipv4() == other.value.is_ipv4())?;
    let text = format!(
        "{} and {} of service {:?} share its backends: {BENDS}; to avoid that, {AVOID}",
        first.value, second.value, service.name.value
    );
    Some(second.flaw(text).see(first.mark))
}

/// Two services that send the same ports of one family to the same backends. One VIP cannot have a port of both, so their
/// VIPs differ.
fn between(first: &DraftService, second: &DraftService) -> Option<Flaw> {
    let what = match (first.protocol, second.protocol) {
        (Protocol::Any, Protocol::Any) => "everything".to_owned(),
        (Protocol::Any, one) | (one, Protocol::Any) => format!("{one}"),
        (one, other) if one == other => format!("{one} port {}", common_port(&first.ports, &second.ports)?),
        _ => return None,
    };
    let mut shared = second.members.iter().filter_map(|member| Some((same_address(first, member)?, member)));
    let (there, here) = shared.next()?;
    let (more, get) = match shared.count() {
        0 => (String::new(), "gets"),
        1 => (" and 1 more backend".to_owned(), "get"),
        more => (format!(" and {more} more backends"), "get"),
    };
    let text = format!(
        "{}{more} {get} {what} of services {:?} and {:?}, which have different VIPs: {BENDS}; to avoid that, {AVOID}",
        here.address.value, first.name.value, second.name.value
    );
    Some(here.address.flaw(text).see(there.mark))
}

/// The lowest port in both lists; an empty list is every port.
pub(super) fn common_port(first: &[At<PortRange>], second: &[At<PortRange>]) -> Option<u16> {
    let every = [PortRange { low: 1, high: u16::MAX }];
    let ranges = |ports: &[At<PortRange>]| match ports {
        [] => every.to_vec(),
        ports => ports.iter().map(|port| port.value).collect(),
    };
    let (first, second) = (ranges(first), ranges(second));
    let overlaps = first.iter().flat_map(|a| second.iter().map(|b| (a.low.max(b.low), a.high.min(b.high))));
    overlaps.filter(|(low, high)| low <= high).map(|(low, _)| low).min()
}

fn same_address<'s>(service: &'s DraftService, member: &DraftMember) -> Option<&'s At<IpAddr>> {
    service.members.iter().map(|other| &other.address).find(|address| address.value == member.address.value)
}
