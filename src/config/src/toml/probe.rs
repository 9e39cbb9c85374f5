//! The keys `check`, `passive` and `discover`.

use super::table::{Item, KnownKeys, Table};
use super::{read, text_or};
use crate::draft::{DraftCheck, DraftDiscover, DraftKind, DraftPassive, DraftPlace, Judgement, PASSIVE, Pace};
use crate::duration;
use crate::location::{At, Flaw};
use crate::near::nearest;
use crate::network::Network;
use crate::value::{self, address4};
use crate::{CHECK_INTERVAL, CHECK_TIMEOUT, DISCOVER_INTERVAL, DISCOVER_LIMIT, FALL, JITTER, RISE, STATUS};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

const CHECK: KnownKeys = KnownKeys {
    table: "check",
    known: &[
        "kind",
        "interval",
        "interval_down",
        "timeout",
        "jitter",
        "rise",
        "fall",
        "port",
        "method",
        "path",
        "host",
        "status",
        "send",
        "expect",
        "name",
    ],
    later: &[],
    elsewhere: &[],
};

/// The keys of a check that only some kinds have.
const SPECIFIC: [&str; 8] = ["port", "method", "path", "host", "status", "send", "expect", "name"];

/// Each kind of check, and which of those it has.
const KINDS: [(&str, &[&str]); 6] = [
    ("icmp", &[]),
    ("tcp", &["port"]),
    ("icmp+tcp", &["port"]),
    ("http", &["port", "method", "path", "host", "status"]),
    ("udp", &["port", "send", "expect"]),
    ("dns", &["port", "name"]),
];

const PASSIVE_KEYS: KnownKeys =
    KnownKeys { table: "passive", known: &["fails", "timeout", "hold", "port"], later: &[], elsewhere: &[] };

const DISCOVER: KnownKeys = KnownKeys {
    table: "discover",
    known: &["network", "interface", "limit", "interval", "to4"],
    later: &[],
    elsewhere: &[],
};

/// Milliseconds between two checks of a backend: at most a day.
const INTERVAL: RangeInclusive<u32> = 100..=86_400_000;
/// Milliseconds until a check has failed.
const TIMEOUT: RangeInclusive<u32> = 10..=60_000;
/// Milliseconds between two looks for new backends.
const LOOK: RangeInclusive<u32> = 1000..=86_400_000;
/// Milliseconds until an opening counts as unanswered.
const UNANSWERED: RangeInclusive<u32> = 50..=60_000;
/// Seconds until a backend is tried again.
const HOLD: RangeInclusive<u32> = 1..=3600;
/// Most bytes of a text in a check; a message to the prober carries up to three.
const MAX_TEXT: usize = 128;
/// Most bytes of a method.
const MAX_METHOD: usize = 16;
/// Most bytes between two dots of a name, RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

pub(super) fn check(item: Item<'_>) -> Result<At<DraftCheck>, Flaw> {
    let table = item.table(&CHECK)?;
    let kind = read(table.require("kind", "write kind = \"icmp\", \"tcp\", \"http\", …")?, kind)?.value;
    let own = KINDS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, own)| *own);
    if let Some(key) = SPECIFIC.into_iter().find(|key| table.get(key).is_some() && !own.contains(key)) {
        let has = if own.is_empty() { "no keys of its own".to_owned() } else { own.join(", ") };
        let text = format!("{key} does not belong to a check of kind {kind:?}, which has {has}");
        return Err(table.key_mark(key).flaw(text));
    }
    let kind = match kind {
        "tcp" => DraftKind::Tcp,
        "icmp+tcp" => DraftKind::IcmpTcp,
        "http" => DraftKind::Http {
            method: text_or(&table, "method", "GET", method)?,
            path: text_or(&table, "path", "/", path)?,
            host: table.get("host").map(|item| read(item, host)).transpose()?.map(|host| host.value),
            status: table.get("status").map(status).transpose()?.unwrap_or(STATUS),
        },
        "udp" => DraftKind::Udp {
            send: bytes(table.require("send", "write what the backend answers to: send = \"…\" or [0x01, …]")?)?,
            expect: table.get("expect").map(bytes).transpose()?.unwrap_or_default(),
        },
        "dns" => DraftKind::Dns { name: read(table.require("name", "write name = \"…\"")?, dns_name)?.value },
        _ => DraftKind::Icmp,
    };
    let port = table.number("port", 1..=u16::MAX)?;
    Ok(At { value: DraftCheck { kind, port, pace: pace(&table)? }, mark: item.mark })
}

fn kind(text: &str) -> Result<&'static str, String> {
    let names = KINDS.map(|(name, _)| name);
    if text == "https" {
        return Err("there is no kind \"https\": the prober has no TLS library; write \"tcp\", or \"http\" to a port \
                    that tells the backend's state without TLS"
            .to_owned());
    }
    names.into_iter().find(|name| *name == text).ok_or_else(|| match nearest(text, &names) {
        Some(meant) => format!("there is no check of kind {text:?}; {meant} was meant?"),
        None => format!("there is no check of kind {text:?}; write one of {}", names.join(", ")),
    })
}

fn pace(table: &Table<'_>) -> Result<Pace, Flaw> {
    let millis = |key, range: RangeInclusive<u32>| {
        table.get(key).map(|item| read(item, |text| duration::millis(text, range.clone()))).transpose()
    };
    let interval = millis("interval", INTERVAL)?.map_or(CHECK_INTERVAL, |interval| interval.value);
    let interval_down = millis("interval_down", INTERVAL)?.map_or(interval, |interval| interval.value);
    let most = interval.min(interval_down);
    let timeout = match millis("timeout", TIMEOUT)? {
        None => CHECK_TIMEOUT.min(most),
        Some(timeout) if timeout.value <= most => timeout.value,
        Some(timeout) => {
            let most = duration::span(most.into());
            return Err(timeout.flaw(format!("a check must be over before the next begins; write at most {most}")));
        }
    };
    Ok(Pace {
        interval,
        interval_down,
        timeout,
        jitter: table.number("jitter", 0..=50)?.unwrap_or(JITTER),
        rise: table.number("rise", 1..=u8::MAX)?.unwrap_or(RISE),
        fall: table.number("fall", 1..=u8::MAX)?.unwrap_or(FALL),
    })
}

pub(super) fn passive(item: Option<Item<'_>>) -> Result<Judgement, Flaw> {
    let Some(item) = item else {
        return Ok(Judgement::Unsaid);
    };
    match item.boolean() {
        Some(false) => return Ok(Judgement::Off),
        Some(true) => return Ok(Judgement::On(At { value: PASSIVE, mark: item.mark })),
        None if !item.is_table() => return Err(item.not("true, false or a table")),
        None => {}
    }
    let table = item.table(&PASSIVE_KEYS)?;
    let timeout = table.get("timeout").map(|item| read(item, |text| duration::millis(text, UNANSWERED))).transpose()?;
    let hold = table.get("hold").map(|item| read(item, |text| duration::seconds(text, HOLD))).transpose()?;
    let port = table.get("port");
    let port =
        port.map(|item| item.number(1..=u16::MAX).map(|port| At { value: port, mark: item.mark })).transpose()?;
    let value = DraftPassive {
        fails: table.number("fails", 1..=u8::MAX)?.unwrap_or(PASSIVE.fails),
        timeout: timeout.map_or(PASSIVE.timeout, |timeout| timeout.value),
        hold: hold.map_or(PASSIVE.hold, |hold| hold.value),
        port,
    };
    Ok(Judgement::On(At { value, mark: item.mark }))
}

pub(super) fn discover(item: Item<'_>) -> Result<At<DraftDiscover>, Flaw> {
    let table = item.table(&DISCOVER)?;
    let networks = table.require("network", "write network = \"198.51.100.0/24\" or an array of networks")?;
    let networks = if networks.is_array() { networks.list()? } else { vec![networks] };
    let networks: Vec<_> = networks.into_iter().map(|item| read(item, Network::parse)).collect::<Result<_, _>>()?;
    let interface = table.get("interface").map(|item| read(item, value::interface)).transpose()?;
    let to4 = table.get("to4").map(|item| read(item, address4)).transpose()?;
    let has_to4 = |network: &At<Network>| to4.is_some_and(|to| network.value.contains(to.value.into()));
    if let Some(to4) = to4.filter(|_| !networks.iter().any(has_to4)) {
        return Err(to4.flaw(format!("{} is outside of every IPv4 network here", to4.value)));
    }
    let to = |to: At<Ipv4Addr>| to.with(IpAddr::from(to.value));
    let place = |network: At<Network>| DraftPlace {
        network,
        to: to4.filter(|_| has_to4(&network)).map(to),
        interface: interface.as_ref().map(|interface| interface.value.clone()),
    };
    let interval = table.get("interval").map(|item| read(item, |text| duration::millis(text, LOOK))).transpose()?;
    let value = DraftDiscover {
        places: networks.into_iter().map(place).collect(),
        limit: table.number("limit", 1..=1024)?.unwrap_or(DISCOVER_LIMIT),
        interval: interval.map_or(DISCOVER_INTERVAL, |interval| interval.value),
    };
    Ok(At { value, mark: item.mark })
}

fn method(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'-';
    match (1..=MAX_METHOD).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a method of HTTP; write \"GET\", \"HEAD\" or another in capitals")),
    }
}

/// Visible ASCII alone: a blank or a line end would begin another part of the request.
fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') && text.len() <= MAX_TEXT && text.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("{text:?} is not a path; write / and up to {} more visible ASCII characters", MAX_TEXT - 1))
        }
    }
}

fn host(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    match (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a host; write a name or an address, with :port if it is not 80")),
    }
}

fn status(item: Item<'_>) -> Result<(u16, u16), Flaw> {
    if item.is_integer() {
        let status = item.number(100..=599)?;
        return Ok((status, status));
    }
    let range = |text: &str| value::range(text, 100..=599);
    read(item, range).map(|status| status.value)
}

/// Text as it stands, or bytes one by one for what is not UTF-8.
fn bytes(item: Item<'_>) -> Result<Vec<u8>, Flaw> {
    let bytes = match item.is_array() {
        true => item.list()?.into_iter().map(|item| item.number(0..=u8::MAX)).collect::<Result<_, _>>()?,
        false => item.string()?.value.as_bytes().to_vec(),
    };
    match bytes.len() > MAX_TEXT {
        true => Err(item.mark.flaw(format!("{} has {} bytes; at most {MAX_TEXT} fit", item.key, bytes.len()))),
        false => Ok(bytes),
    }
}

fn dns_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let label = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(plain);
    match text.len() <= MAX_TEXT && text.strip_suffix('.').unwrap_or(text).split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a name to ask DNS for; write one such as \"www.example.com\"")),
    }
}
