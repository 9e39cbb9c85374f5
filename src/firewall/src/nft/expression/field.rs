//! What rules of nftables compare: fields of packets, interfaces, states, routes.

use crate::matches::{Match, States};
use crate::save::{flags, network, protocol_number};
use loaded_netfilter::Family;
use serde_json::Value;
use std::net::IpAddr;

/// The left side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Input,
    Output,
    /// `meta nfproto`
    Family,
    /// `meta protocol`: EtherType.
    Link,
    Protocol,
    /// `ip saddr`: packets of another family do not match, whatever is compared.
    Source(Family),
    Destination(Family),
    /// `tcp sport`; `None`: of any protocol with ports.
    SourcePort(Option<u8>),
    DestinationPort(Option<u8>),
    /// TCP's flags under a mask.
    Flags(u8),
    State,
    /// Anything else of connection tracking.
    Tracked,
    RouteBack {
        strict: bool,
    },
    SourceType,
    DestinationType,
    /// What differs from packet to packet of one kind.
    Varying,
    /// ICMP, or something else that is no packet of a service with ports.
    Of(u8),
    /// What IPv4 or IPv6 packets have.
    In(Family),
}

impl Field {
    /// `None`: not understood.
    pub(super) fn of(left: &Value) -> Option<Self> {
        let (kind, value) = left.as_object()?.iter().next()?;
        let of = |key: &str| value.get(key).and_then(Value::as_str);
        match kind.as_str() {
            "meta" => Self::meta(of("key")?),
            "payload" => Self::payload(of("protocol")?, of("field")?),
            "ct" => Some(if of("key")? == "state" { Self::State } else { Self::Tracked }),
            "fib" => Self::fib(value),
            "&" => match value.as_array()?.as_slice() {
                [field, mask] => match Self::of(field)? {
                    Self::Flags(_) => Some(Self::Flags(named_flags(mask)?)),
                    Self::Varying => Some(Self::Varying),
                    _ => None,
                },
                _ => None,
            },
            "numgen" => Some(Self::Varying),
            _ => None,
        }
    }

    fn meta(key: &str) -> Option<Self> {
        Some(match key {
            "iifname" | "iif" => Self::Input,
            "oifname" | "oif" => Self::Output,
            "nfproto" => Self::Family,
            "protocol" => Self::Link,
            "l4proto" => Self::Protocol,
            "mark" | "pkttype" | "length" | "time" | "hour" | "day" | "cpu" | "random" | "priority" => Self::Varying,
            _ => return None,
        })
    }

    fn payload(protocol: &str, field: &str) -> Option<Self> {
        let number = || protocol_number(protocol);
        Some(match (protocol, field) {
            ("ip", "saddr") => Self::Source(Family::V4),
            ("ip6", "saddr") => Self::Source(Family::V6),
            ("ip", "daddr") => Self::Destination(Family::V4),
            ("ip6", "daddr") => Self::Destination(Family::V6),
            ("ip", "protocol") | ("ip6", "nexthdr") => Self::Protocol,
            ("ip", _) => Self::In(Family::V4),
            ("ip6", _) => Self::In(Family::V6),
            ("th", "sport") => Self::SourcePort(None),
            ("th", "dport") => Self::DestinationPort(None),
            ("tcp", "flags") => Self::Flags(u8::MAX),
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "sport") => Self::SourcePort(number()),
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite", "dport") => Self::DestinationPort(number()),
            ("tcp" | "udp" | "sctp" | "dccp" | "udplite" | "icmp" | "icmpv6" | "igmp" | "esp" | "ah", _) => {
                Self::Of(number()?)
            }
            _ => return None,
        })
    }

    /// `fib saddr . mark . iif oif`
    fn fib(value: &Value) -> Option<Self> {
        let flags = value.get("flags")?;
        let flags: Vec<_> = match flags {
            Value::Array(flags) => flags.iter().filter_map(Value::as_str).collect(),
            one => vec![one.as_str()?],
        };
        let has = |flag: &str| flags.contains(&flag);
        match (value.get("result")?.as_str()?, has("saddr"), has("daddr"), has("oif")) {
            ("oif" | "check", true, false, false) => Some(Self::RouteBack { strict: has("iif") }),
            ("type", true, false, false) => Some(Self::SourceType),
            ("type", false, true, false) => Some(Self::DestinationType),
            _ => None,
        }
    }

    /// It is one of these elements, or not, or less or more than the one.
    pub(super) fn compared(self, op: &str, right: &Value, elements: Vec<&Value>) -> Option<Match> {
        let any = || self.any(&elements);
        let found = match (self, op) {
            (Self::Tracked, _) => Match::Tracked,
            // A list of states or flags without a set: any of them is set.
            (Self::State, "in") => Match::State(states(right)?),
            (Self::Flags(_), "in" | "!") => {
                let none = Match::Flags { mask: named_flags(right)?, value: 0 };
                if op == "!" { none } else { none.not() }
            }
            (_, "==" | "in") => any()?,
            (_, "!=") => any()?.not(),
            (Self::SourcePort(_) | Self::DestinationPort(_), _) => self.ports(below_or_above(op, right)?),
            (Self::Varying | Self::Of(_) | Self::In(_), _) => Match::Part,
            _ => return None,
        };
        Some(Match::All(self.first().into_iter().chain([found]).collect()))
    }

    /// What a packet has to be to have the field.
    fn first(self) -> Option<Match> {
        match self {
            Self::Source(family) | Self::Destination(family) | Self::In(family) => Some(Match::Family(family)),
            Self::SourcePort(Some(number)) | Self::DestinationPort(Some(number)) | Self::Of(number) => {
                Some(Match::Protocol(number))
            }
            Self::Flags(_) => Some(Match::Protocol(crate::packet::TCP)),
            _ => None,
        }
    }

    /// Any of these. Addresses and ports are gathered, for there may be very many.
    fn any(self, elements: &[&Value]) -> Option<Match> {
        match self {
            Self::Source(_) => {
                Some(Match::Source(elements.iter().map(|value| addresses(value)).collect::<Option<_>>()?))
            }
            Self::Destination(_) => {
                Some(Match::Destination(elements.iter().map(|value| addresses(value)).collect::<Option<_>>()?))
            }
            Self::SourcePort(_) | Self::DestinationPort(_) => {
                Some(self.ports(elements.iter().map(|value| ports(value)).collect::<Option<_>>()?))
            }
            _ => Some(Match::Any(elements.iter().map(|value| self.plain(value)).collect::<Option<_>>()?)),
        }
    }

    /// It is this element of a set, and the packet has the field.
    pub(super) fn is(self, value: &Value) -> Option<Match> {
        if value.as_str() == Some("*") {
            return Some(Match::Unread);
        }
        Some(Match::All(self.first().into_iter().chain([self.any(&[value])?]).collect()))
    }

    fn ports(self, spans: Vec<(u16, u16)>) -> Match {
        if matches!(self, Self::SourcePort(_)) { Match::SourcePort(spans) } else { Match::DestinationPort(spans) }
    }

    fn plain(self, value: &Value) -> Option<Match> {
        let name = value.as_str();
        Some(match self {
            Self::Input => Match::Input(name?.to_owned()),
            Self::Output => Match::Output(name?.to_owned()),
            Self::Family => match name? {
                "ipv4" => Match::Family(Family::V4),
                "ipv6" => Match::Family(Family::V6),
                _ => return None,
            },
            Self::Link => match name? {
                "ip" => Match::Family(Family::V4),
                "ip6" => Match::Family(Family::V6),
                _ => Match::never(),
            },
            Self::Protocol => Match::Protocol(number(value)?),
            Self::Flags(mask) => Match::Flags { mask, value: named_flags(value)? },
            Self::State => Match::State(states(value)?),
            Self::Tracked => Match::Tracked,
            Self::RouteBack { strict } => {
                let there = Match::RouteBack { strict, local: false };
                if is_missing(value)? { there.not() } else { there }
            }
            Self::SourceType => kind(name?, Match::SourceLocal)?,
            Self::DestinationType => kind(name?, Match::DestinationLocal)?,
            Self::Varying | Self::Of(_) | Self::In(_) => Match::Part,
            Self::Source(_) | Self::Destination(_) | Self::SourcePort(_) | Self::DestinationPort(_) => return None,
        })
    }
}

fn number(value: &Value) -> Option<u8> {
    match value {
        Value::String(name) => protocol_number(name),
        other => other.as_u64().and_then(|number| u8::try_from(number).ok()),
    }
}

/// An address, a network or a range.
fn addresses(value: &Value) -> Option<(IpAddr, IpAddr)> {
    if let Some(prefix) = value.get("prefix") {
        return network(&format!("{}/{}", prefix.get("addr")?.as_str()?, prefix.get("len")?.as_u64()?));
    }
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([low, high]) => Some((low.as_str()?.parse().ok()?, high.as_str()?.parse().ok()?)),
        Some(_) => None,
        None => network(value.as_str()?),
    }
}

fn ports(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|number| u16::try_from(number).ok()),
    };
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([low, high]) => Some((port(low)?, port(high)?)),
        Some(_) => None,
        None => port(value).map(|port| (port, port)),
    }
}

fn below_or_above(op: &str, right: &Value) -> Option<Vec<(u16, u16)>> {
    let (port, _) = ports(right)?;
    let span = match op {
        "<" => (0, port.checked_sub(1)?),
        "<=" => (0, port),
        ">" => (port.checked_add(1)?, u16::MAX),
        ">=" => (port, u16::MAX),
        _ => return None,
    };
    Some(vec![span])
}

fn states(value: &Value) -> Option<States> {
    match value {
        Value::String(name) => Some(States::of([name.as_str()].into_iter())),
        Value::Array(names) => Some(States::of(names.iter().filter_map(Value::as_str))),
        _ => None,
    }
}

fn named_flags(value: &Value) -> Option<u8> {
    match value {
        Value::String(name) => flags(name),
        Value::Number(number) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
        Value::Array(names) => names.iter().try_fold(0, |all, name| Some(all | flags(name.as_str()?)?)),
        _ => match value.get("|").and_then(Value::as_array) {
            Some(names) => names.iter().try_fold(0, |all, name| Some(all | named_flags(name)?)),
            None => None,
        },
    }
}

/// `fib … oif missing` is written as false, or as the number 0.
fn is_missing(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(there) => Some(!there),
        Value::Number(number) if number.as_u64() == Some(0) => Some(true),
        Value::String(text) if text == "0" => Some(true),
        _ => None,
    }
}

fn kind(name: &str, local: Match) -> Option<Match> {
    match name {
        "local" => Some(local),
        "unicast" => Some(local.not()),
        "broadcast" | "multicast" | "anycast" | "unspec" => Some(Match::never()),
        _ => None,
    }
}
