//! Notes on VIPs, and ports there, that share backends in mode "nat": a backend sees neither, so a client's two flows from one
//! port look alike if they meet one port of it. The worker gives the second one another backend; whoever configures it should know.

use super::draft::{Draft, DraftMember, DraftService};
use super::location::{At, Flaw};
use loaded_ipc::{Mode, PortRange, Protocol};

const BENDS: &str = "if a client uses one source port to both at once, its second connection goes to another backend, \
                     whatever affinity says, and is refused where none is left";
const AVOID: &str = "give each VIP backends, backend addresses or backend ports of its own, or use mode dsr";

const SEPARATE: &str = "make a service of each port, with backend ports of its own, or remove port";

/// At most one note for each service: about its own VIPs, or else about the first service before it that shares backends.
pub(super) fn notes(draft: &Draft) -> Vec<Flaw> {
    let translating: Vec<_> = draft.services.iter().filter(|service| service.mode == Mode::Nat).collect();
    let note = |(place, service): (usize, &&DraftService)| {
        let earlier = translating.iter().take(place);
        among_own(service).or_else(|| earlier.into_iter().find_map(|other| between(other, service)))
    };
    translating.iter().enumerate().filter_map(note).collect()
}

/// A service with two VIPs of one family, or with two ports that become one.
fn among_own(service: &DraftService) -> Option<Flaw> {
    let pairs = || service.vips.iter().enumerate().flat_map(|(n, vip)| service.vips[..n].iter().map(move |v| (v, vip)));
    let name = &service.name.value;
    if let Some((first, second)) = pairs().find(|(one, other)| one.value.is_ipv4() == other.value.is_ipv4()) {
        let (one, other) = (first.value, second.value);
        let text = format!("{one} and {other} of service {name:?} share its backends: {BENDS}; to avoid that, {AVOID}");
        return Some(second.flaw(text).see(first.mark));
    }
    let port = service.members.iter().find_map(|member| service.port_of(member))?;
    let is_one = matches!(service.ports.as_slice(), [only] if only.value.low == only.value.high);
    let text =
        format!("several ports of service {name:?} become port {}: {BENDS}; to avoid that, {SEPARATE}", port.value);
    (!is_one).then(|| port.flaw(text))
}

/// Two services whose packets meet at one port of a backend: by different VIPs, or by different ports of one.
fn between(first: &DraftService, second: &DraftService) -> Option<Flaw> {
    let met =
        |member| first.members.iter().find_map(|other| Some((meet((first, other), (second, member))?, other, member)));
    let mut shared = second.members.iter().filter_map(met);
    let (what, there, here) = shared.next()?;
    let (more, get) = match shared.count() {
        0 => (String::new(), "gets"),
        1 => (" and 1 more backend".to_owned(), "get"),
        more => (format!(" and {more} more backends"), "get"),
    };
    let one_vip = first.vips.iter().any(|vip| second.vips.iter().any(|other| other.value == vip.value));
    let differ = if one_vip { "ports" } else { "VIPs" };
    let text = format!(
        "{}{more} {get} {what} of services {:?} and {:?}, which have different {differ}: {BENDS}; to avoid that, {AVOID}",
        here.address.value, first.name.value, second.name.value
    );
    Some(here.address.flaw(text).see(there.address.mark))
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

/// What two services both send to a backend, if it is one.
fn meet(
    (first, there): (&DraftService, &DraftMember),
    (second, here): (&DraftService, &DraftMember),
) -> Option<String> {
    if there.address.value != here.address.value {
        return None;
    }
    match (first.protocol, second.protocol) {
        (Protocol::Any, Protocol::Any) => Some("everything".to_owned()),
        (Protocol::Any, one) | (one, Protocol::Any) => Some(one.to_string()),
        (one, other) if one == other => {
            let port = common_port(&ports_at(first, there), &ports_at(second, here))?;
            Some(format!("{one} port {port}"))
        }
        _ => None,
    }
}

/// The ports that a service's packets have at a backend; empty: every port.
fn ports_at(service: &DraftService, member: &DraftMember) -> Vec<At<PortRange>> {
    match service.port_of(member) {
        Some(port) => vec![port.with(PortRange { low: port.value, high: port.value })],
        None => service.ports.clone(),
    }
}
