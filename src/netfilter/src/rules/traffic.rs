//! Which part of an address's traffic is balanced, as iptables match clauses.

use loaded_ipc::{PortRange, Protocol};

/// `XT_MULTI_PORTS`; a range takes two of them (net/netfilter/xt_multiport.c).
const MULTIPORT_SLOTS: usize = 15;

/// Which port a clause matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// The union of what several services balance at one address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    /// Everything, whatever the protocol.
    whole: bool,
    /// `None`: nothing. Empty: every port.
    tcp: Option<Vec<PortRange>>,
    udp: Option<Vec<PortRange>>,
    sctp: Option<Vec<PortRange>>,
}

impl Traffic {
    /// Each protocol with its ports; none means every port.
    pub(crate) fn of<'a>(parts: impl Iterator<Item = (Protocol, &'a [PortRange])>) -> Self {
        parts.fold(Self::default(), |mut all, (protocol, ports)| {
            match protocol {
                Protocol::Any => all.whole = true,
                Protocol::Tcp => all.tcp = Some(union(all.tcp, ports)),
                Protocol::Udp => all.udp = Some(union(all.udp, ports)),
                Protocol::Sctp => all.sctp = Some(union(all.sctp, ports)),
            }
            all
        })
    }

    pub(crate) fn everything() -> Self {
        Self { whole: true, ..Self::default() }
    }

    /// The protocols of which some of these ports are balanced.
    pub(crate) fn protocols_on(&self, ports: PortRange) -> Vec<&'static str> {
        let meets = |balanced: &Option<Vec<PortRange>>| {
            let overlaps = |range: &PortRange| range.low <= ports.high && ports.low <= range.high;
            balanced.as_ref().is_some_and(|balanced| balanced.is_empty() || balanced.iter().any(overlaps))
        };
        let all = [("tcp", meets(&self.tcp)), ("udp", meets(&self.udp))];
        all.into_iter().filter(|(_, balanced)| self.whole || *balanced).map(|(protocol, _)| protocol).collect()
    }

    /// Whether everything is balanced, whatever the protocol.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// One match clause for each rule needed, with a leading space.
    pub(crate) fn clauses(&self, side: Side) -> Vec<String> {
        if self.whole {
            return vec![String::new()];
        }
        let one = |protocol, ports: &Option<Vec<PortRange>>| {
            ports.as_ref().map_or_else(Vec::new, |ports| port_clauses(protocol, side, ports))
        };
        [one("tcp", &self.tcp), one("udp", &self.udp), one("sctp", &self.sctp)].concat()
    }
}

/// Sorted, merged where they touch.
fn union(before: Option<Vec<PortRange>>, more: &[PortRange]) -> Vec<PortRange> {
    let Some(mut ports) = before else { return merged(more.to_vec()) };
    if ports.is_empty() || more.is_empty() {
        return Vec::new();
    }
    ports.extend_from_slice(more);
    merged(ports)
}

fn merged(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable();
    ports.into_iter().fold(Vec::new(), |mut merged: Vec<PortRange>, next| {
        match merged.last_mut() {
            Some(last) if next.low <= last.high.saturating_add(1) => last.high = last.high.max(next.high),
            _ => merged.push(next),
        }
        merged
    })
}

fn port_clauses(protocol: &str, side: Side, ports: &[PortRange]) -> Vec<String> {
    let (single, multiple) = match side {
        Side::Source => ("sport", "sports"),
        Side::Destination => ("dport", "dports"),
    };
    match ports {
        [] => vec![format!(" -p {protocol}")],
        // For SCTP there is a module of its own too, xt_sctp; multiport is there anyway.
        [only] if protocol != "sctp" => vec![format!(" -p {protocol} -m {protocol} --{single} {}", written(*only))],
        many => {
            let lists = lists(many).into_iter();
            lists.map(|list| format!(" -p {protocol} -m multiport --{multiple} {list}")).collect()
        }
    }
}

/// Splits ports into lists that multiport can take.
fn lists(ports: &[PortRange]) -> Vec<String> {
    let mut lists: Vec<(usize, Vec<String>)> = Vec::new();
    for &port in ports {
        let slots = if port.low == port.high { 1 } else { 2 };
        match lists.last_mut() {
            Some((used, list)) if *used + slots <= MULTIPORT_SLOTS => {
                *used += slots;
                list.push(written(port));
            }
            _ => lists.push((slots, vec![written(port)])),
        }
    }
    lists.into_iter().map(|(_, list)| list.join(",")).collect()
}

fn written(port: PortRange) -> String {
    if port.low == port.high { port.low.to_string() } else { format!("{}:{}", port.low, port.high) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn range(low: u16, high: u16) -> PortRange {
        PortRange { low, high }
    }

    #[test]
    fn fifteen_slots_a_list_and_a_range_takes_two() {
        let ports: Vec<_> = (0..16).map(|n| range(n * 10, n * 10)).collect();
        assert_eq!(lists(&ports), ["0,10,20,30,40,50,60,70,80,90,100,110,120,130,140", "150"]);
        let ranges: Vec<_> = (0..8).map(|n| range(n * 10, n * 10 + 1)).collect();
        assert_eq!(lists(&ranges), ["0:1,10:11,20:21,30:31,40:41,50:51,60:61", "70:71"]);
        let mut mixed: Vec<_> = (0..7).map(|n| range(n * 10, n * 10 + 1)).collect();
        mixed.push(range(900, 900));
        assert_eq!(lists(&mixed).len(), 1);
    }

    #[test]
    fn ports_of_several_services_are_merged() {
        assert_eq!(
            union(Some(vec![range(80, 80), range(443, 443)]), &[range(81, 90)]),
            [range(80, 90), range(443, 443)]
        );
        assert_eq!(union(Some(vec![range(1, 65535)]), &[range(80, 80)]), [range(1, 65535)]);
        assert_eq!(union(Some(vec![range(80, 80)]), &[]), []);
        assert_eq!(union(Some(vec![]), &[range(80, 80)]), []);
    }
}
