//! The matches of a rule of iptables: `-s 192.0.2.0/24 -p tcp -m tcp ! --dport 80 -m conntrack --ctstate NEW`.

use crate::matches::{Match, States};
use crate::packet::{ACK, SCTP, SYN, TCP, UDP};
use loaded_config::network::Network;
use std::net::IpAddr;

/// An option with what follows it, and whether a `!` comes before it.
#[derive(Debug)]
struct Asked<'a> {
    not: bool,
    name: &'a str,
    values: Vec<&'a str>,
}

/// What the words before `-j` ask for.
pub(super) fn matches(words: &[String]) -> Vec<Match> {
    let asked = options(words);
    let mut matches = Vec::new();
    let (own, modules) = asked.split_at(asked.iter().position(|asked| asked.name == "-m").unwrap_or(asked.len()));
    matches.extend(own.iter().map(base));
    let mut rest = modules;
    while let [module, more @ ..] = rest {
        let end = more.iter().position(|asked| !asked.name.starts_with("--")).unwrap_or(more.len());
        let (of_module, next) = more.split_at(end);
        match module.name {
            "-m" => matches.extend(self::module(module.values.first().copied().unwrap_or(""), of_module)),
            _ => matches.push(base(module)),
        }
        rest = next;
    }
    matches
}

fn options(words: &[String]) -> Vec<Asked<'_>> {
    let (mut asked, mut not) = (Vec::<Asked<'_>>::new(), false);
    for word in words {
        match word.as_str() {
            "!" => not = true,
            name if name.starts_with('-') && name.len() > 1 => {
                asked.push(Asked { not: std::mem::take(&mut not), name, values: Vec::new() });
            }
            value => {
                if let Some(last) = asked.last_mut() {
                    last.values.push(value);
                }
            }
        }
    }
    asked
}

impl Asked<'_> {
    fn value(&self) -> &str {
        self.values.first().copied().unwrap_or_default()
    }

    /// The match, or its opposite.
    fn turned(&self, found: Option<Match>) -> Match {
        match found {
            None => Match::Unread,
            Some(Match::Tracked) => Match::Tracked,
            Some(found) if self.not => found.not(),
            Some(found) => found,
        }
    }
}

/// An option that belongs to no module.
fn base(asked: &Asked<'_>) -> Match {
    let found = match asked.name {
        "-s" => network(asked.value()).map(|span| Match::Source(vec![span])),
        "-d" => network(asked.value()).map(|span| Match::Destination(vec![span])),
        "-i" => Some(Match::Input(pattern(asked.value()))),
        "-o" => Some(Match::Output(pattern(asked.value()))),
        "-p" => protocol(asked.value()),
        // The kernel reassembles packets before the rules see them.
        "-f" => Some(Match::never()),
        _ => None,
    };
    asked.turned(found)
}

fn module(name: &str, asked: &[Asked<'_>]) -> Vec<Match> {
    let each = |read: fn(&Asked<'_>) -> Option<Match>| asked.iter().map(|one| one.turned(read(one))).collect();
    match name {
        "comment" => Vec::new(),
        "tcp" | "udp" | "sctp" | "dccp" | "udplite" => each(ports),
        "multiport" => each(multiport),
        "iprange" => each(range),
        "conntrack" | "state" => conntrack(asked),
        "connmark" | "connlabel" | "connbytes" | "helper" => vec![Match::Tracked],
        "rpfilter" => rpfilter(asked),
        "addrtype" => each(address_type),
        "limit" | "hashlimit" | "statistic" | "recent" | "mark" | "length" | "ttl" | "hl" | "dscp" | "tos" | "ecn"
        | "time" | "quota" | "mac" | "pkttype" | "connlimit" | "physdev" | "policy" | "tcpmss" | "cpu" | "realm"
        | "socket" => vec![Match::Part],
        _ => vec![Match::Unread],
    }
}

fn ports(asked: &Asked<'_>) -> Option<Match> {
    let spans = || asked.value().split(',').map(span).collect::<Option<Vec<_>>>();
    match asked.name {
        "--sport" => spans().map(Match::SourcePort),
        "--dport" => spans().map(Match::DestinationPort),
        "--syn" => Some(Match::Flags { mask: 0x17, value: SYN }),
        "--tcp-flags" => match asked.values.as_slice() {
            [mask, value] => Some(Match::Flags { mask: flags(mask)?, value: flags(value)? }),
            _ => None,
        },
        _ => None,
    }
}

fn multiport(asked: &Asked<'_>) -> Option<Match> {
    let spans = asked.value().split(',').map(span).collect::<Option<Vec<_>>>()?;
    match asked.name {
        "--sports" => Some(Match::SourcePort(spans)),
        "--dports" => Some(Match::DestinationPort(spans)),
        "--ports" => Some(Match::Any(vec![Match::SourcePort(spans.clone()), Match::DestinationPort(spans)])),
        _ => None,
    }
}

fn range(asked: &Asked<'_>) -> Option<Match> {
    let (low, high) = asked.value().split_once('-')?;
    let span = vec![(low.parse().ok()?, high.parse().ok()?)];
    match asked.name {
        "--src-range" => Some(Match::Source(span)),
        "--dst-range" => Some(Match::Destination(span)),
        _ => None,
    }
}

/// If a state is asked for, it alone decides about packets without an entry (conntrack_mt).
fn conntrack(asked: &[Asked<'_>]) -> Vec<Match> {
    let state = asked.iter().find(|asked| matches!(asked.name, "--ctstate" | "--state"));
    vec![state.map_or(Match::Tracked, |asked| asked.turned(Some(Match::State(States::of(asked.value().split(','))))))]
}

fn rpfilter(asked: &[Asked<'_>]) -> Vec<Match> {
    let has = |name: &str| asked.iter().any(|asked| asked.name == name);
    let valid = Match::RouteBack { strict: !has("--loose"), local: has("--accept-local") };
    vec![if has("--invert") { valid.not() } else { valid }]
}

fn address_type(asked: &Asked<'_>) -> Option<Match> {
    let local = match asked.name {
        "--src-type" => Match::SourceLocal,
        "--dst-type" => Match::DestinationLocal,
        _ => return None,
    };
    match asked.value() {
        "LOCAL" => Some(local),
        "UNICAST" => Some(local.not()),
        // No packet to or from a backend, a client or a VIP is of these.
        types if types.split(',').all(|kind| matches!(kind, "BROADCAST" | "MULTICAST" | "ANYCAST" | "UNSPEC")) => {
            Some(Match::never())
        }
        _ => None,
    }
}

pub(crate) fn network(text: &str) -> Option<(IpAddr, IpAddr)> {
    let network = match text.split_once('/') {
        None => text
            .parse()
            .ok()
            .and_then(|address: IpAddr| Network::around(address, if address.is_ipv4() { 32 } else { 128 })),
        Some(_) => Network::split(text).ok().and_then(|(address, length)| Network::around(address, length)),
    }?;
    Some((network.first(), network.last()))
}

fn pattern(interface: &str) -> String {
    interface.strip_suffix('+').map_or_else(|| interface.to_owned(), |start| format!("{start}*"))
}

/// By name or number; the names are those of iptables-save and nft.
pub(crate) fn protocol_number(name: &str) -> Option<u8> {
    Some(match name {
        "icmp" => 1,
        "igmp" => 2,
        "tcp" => TCP,
        "udp" => UDP,
        "dccp" => 33,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmpv6" | "ipv6-icmp" => 58,
        "ospf" => 89,
        "vrrp" => 112,
        "sctp" => SCTP,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}

fn protocol(name: &str) -> Option<Match> {
    if name == "all" { Some(Match::always()) } else { protocol_number(name).map(Match::Protocol) }
}

fn span(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once(':').unwrap_or((text, text));
    Some((low.parse().ok()?, high.parse().ok()?))
}

/// TCP's flags by their names in capitals: `SYN,ACK`, `NONE`, `ALL`.
pub(crate) fn flags(names: &str) -> Option<u8> {
    names.split(',').try_fold(0, |flags, name| {
        Some(
            flags
                | match name.to_ascii_uppercase().as_str() {
                    "NONE" => 0,
                    "ALL" => 0x3f,
                    "FIN" => 0x01,
                    "SYN" => SYN,
                    "RST" => 0x04,
                    "PSH" => 0x08,
                    "ACK" => ACK,
                    "URG" => 0x20,
                    "ECN" => 0x40,
                    "CWR" => 0x80,
                    _ => return None,
                },
        )
    })
}
