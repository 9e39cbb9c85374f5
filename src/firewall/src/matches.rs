//! What a rule asks of a packet.

use crate::packet::Packet;
use crate::truth::Truth;
use loaded_netfilter::Family;
use std::net::IpAddr;

/// What a rule asks of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    Family(Family),
    /// The number of the protocol above IP.
    Protocol(u8),
    /// Any of these, from the first to the last.
    Source(Vec<(IpAddr, IpAddr)>),
    Destination(Vec<(IpAddr, IpAddr)>),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    /// The interface it came by; of a name that ends in `*` the beginning.
    Input(String),
    /// The one it leaves by.
    Output(String),
    /// Any of these states of connection tracking.
    State(States),
    /// Something of its entry in connection tracking. Balanced packets have none, and rules that ask for it, or for its
    /// opposite, do not match (nft_ct_get_eval, net/netfilter/nft_ct.c; conntrack_mt, net/netfilter/xt_conntrack.c).
    Tracked,
    /// TCP's flags under the mask are these.
    Flags {
        mask: u8,
        value: u8,
    },
    /// There is a route to the source, by the interface it came by if `strict`. A source that is an address of this host has
    /// none (nft_fib4_eval, net/ipv4/netfilter/nft_fib_ipv4.c; rpfilter_lookup_reverse, net/ipv4/netfilter/ipt_rpfilter.c),
    /// unless `local`.
    RouteBack {
        strict: bool,
        local: bool,
    },
    /// Its source is an address of this host, or its destination is.
    SourceLocal,
    DestinationLocal,
    /// Some packets of any kind.
    Part,
    /// It is not understood.
    Unread,
    Not(Box<Match>),
    Any(Vec<Match>),
    All(Vec<Match>),
}

/// States of connection tracking that matter to balanced packets; every other is another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) invalid: bool,
    pub(crate) untracked: bool,
}

impl States {
    /// From their names, in lower or upper case.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        names.fold(Self::default(), |states, name| match () {
            () if name.eq_ignore_ascii_case("invalid") => Self { invalid: true, ..states },
            () if name.eq_ignore_ascii_case("untracked") => Self { untracked: true, ..states },
            () => states,
        })
    }
}

impl Match {
    pub(crate) fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Every one of these packets.
    pub(crate) fn always() -> Self {
        Self::All(Vec::new())
    }

    pub(crate) fn never() -> Self {
        Self::Any(Vec::new())
    }

    /// Whether the packet meets it.
    pub(crate) fn asks(&self, packet: &Packet<'_>) -> Truth {
        packet.world.spend(1);
        match self {
            Self::Family(family) => (*family == packet.family).into(),
            Self::Protocol(number) => packet.protocol.map_or(Truth::Part, |protocol| (protocol == *number).into()),
            Self::Source(spans) => address(packet, packet.source, spans),
            Self::Destination(spans) => address(packet, packet.destination, spans),
            Self::SourcePort(spans) => port(packet, packet.source_port, spans),
            Self::DestinationPort(spans) => port(packet, packet.destination_port, spans),
            Self::Input(pattern) => packet.input.map_or(Truth::Part, |name| fits(pattern, name).into()),
            Self::Output(pattern) => match packet.output {
                None => Truth::No,
                Some(None) => Truth::Part,
                Some(Some(name)) => fits(pattern, name).into(),
            },
            Self::State(states) => (if packet.untracked { states.untracked } else { states.invalid }).into(),
            Self::Tracked => Truth::No,
            Self::Flags { mask, value } => packet.flags.map_or(Truth::Part, |flags| (flags & mask == *value).into()),
            Self::RouteBack { strict, local } => route_back(packet, *strict, *local),
            Self::SourceLocal => is_local(packet, packet.source),
            Self::DestinationLocal => is_local(packet, packet.destination),
            Self::Part => Truth::Part,
            Self::Unread => Truth::Unread,
            Self::Not(other) => other.asks(packet).not(),
            Self::Any(all) => all.iter().fold(Truth::No, |truth, one| truth.or(one.asks(packet))),
            Self::All(all) => all.iter().fold(Truth::Yes, |truth, one| truth.and(one.asks(packet))),
        }
    }
}

fn address(packet: &Packet<'_>, address: Option<IpAddr>, spans: &[(IpAddr, IpAddr)]) -> Truth {
    packet.world.spend(spans.len());
    let inside = |address: IpAddr, (low, high): &(IpAddr, IpAddr)| {
        low.is_ipv4() == address.is_ipv4() && (*low..=*high).contains(&address)
    };
    match address {
        Some(address) => spans.iter().any(|span| inside(address, span)).into(),
        None => {
            let mut of_family = spans.iter().filter(|(low, _)| low.is_ipv4() == (packet.family == Family::V4));
            of_family
                .try_fold(Truth::No, |_, span| if is_everything(span) { Err(Truth::Yes) } else { Ok(Truth::Part) })
                .unwrap_or_else(|everything| everything)
        }
    }
}

fn is_everything((low, high): &(IpAddr, IpAddr)) -> bool {
    match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => low.to_bits() == 0 && high.to_bits() == u32::MAX,
        (IpAddr::V6(low), IpAddr::V6(high)) => low.to_bits() == 0 && high.to_bits() == u128::MAX,
        _ => false,
    }
}

fn port(packet: &Packet<'_>, (low, high): (u16, u16), spans: &[(u16, u16)]) -> Truth {
    packet.world.spend(spans.len());
    let whole = |span: &(u16, u16)| span.0 <= low && high <= span.1;
    let part = |span: &(u16, u16)| span.0 <= high && low <= span.1;
    match () {
        () if spans.iter().any(whole) => Truth::Yes,
        () if spans.iter().any(part) => Truth::Part,
        () => Truth::No,
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

fn is_local(packet: &Packet<'_>, address: Option<IpAddr>) -> Truth {
    address.map_or(Truth::No, |address| packet.world.paths.is_own(address).into())
}

fn route_back(packet: &Packet<'_>, strict: bool, local: bool) -> Truth {
    let Some(source) = packet.source else {
        // A client: a default route leads back to whoever it is.
        let by = packet.input.filter(|_| strict);
        let back =
            packet.world.paths.has_default(packet.family == Family::V4, by) && (packet.input.is_some() || !strict);
        return if back { Truth::Yes } else { Truth::Part };
    };
    if packet.world.paths.is_own(source) {
        return if local { Truth::Part } else { Truth::No };
    }
    match (packet.world.paths.towards(source), packet.input) {
        (None, _) => Truth::No,
        (Some(_), None) if strict => Truth::Part,
        (Some(by), Some(input)) if strict => (by == input).into(),
        (Some(_), _) => Truth::Yes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::World;
    use crate::packet::fixture::request;
    use loaded_host::Paths;

    #[test]
    fn what_is_not_known_of_a_packet_is_neither_yes_nor_no() {
        let world = World::new(Paths::default());
        let packet = request(&world);
        let net = |low: [u8; 4], high: [u8; 4]| vec![(IpAddr::from(low), IpAddr::from(high))];
        for (question, answer) in [
            (Match::Source(net([10, 0, 0, 0], [10, 255, 255, 255])), Truth::Part),
            (Match::Source(net([0; 4], [255; 4])), Truth::Yes),
            (Match::Source(vec![]), Truth::No),
            (Match::Destination(net([198, 51, 100, 0], [198, 51, 100, 255])), Truth::Yes),
            (Match::Destination(net([198, 51, 101, 0], [198, 51, 101, 255])), Truth::No),
            (Match::DestinationPort(vec![(1, 79), (80, 90)]), Truth::Yes),
            (Match::SourcePort(vec![(1024, 65_535)]), Truth::Part),
            (Match::Input("eth*".into()), Truth::Yes),
            (Match::Output("eth0".into()), Truth::No),
            (Match::State(States { invalid: true, untracked: false }), Truth::No),
            (Match::Flags { mask: 0x17, value: 0x02 }, Truth::Yes),
            (Match::Any(vec![Match::Part, Match::Unread]), Truth::Unread),
            (Match::Any(vec![Match::Part, Match::always()]), Truth::Yes),
            (Match::All(vec![Match::Unread, Match::never()]), Truth::No),
            (Match::RouteBack { strict: false, local: false }, Truth::Part),
        ] {
            assert_eq!(question.asks(&packet), answer, "{question:?}");
        }
        let before = Packet { untracked: false, ..packet };
        assert_eq!(Match::State(States { invalid: true, untracked: false }).asks(&before), Truth::Yes);
    }
}
