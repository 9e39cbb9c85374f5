//! The kinds of checks: the name and the keys of each, how it is read and written, what it takes from its service, and its words
//! in `--check`. The keys that every check has are in `toml::probe`.

mod surroundings;

use crate::location::Flaw;
use crate::near::nearest;
use crate::toml::table::{Item, Table, read};
use crate::{DNS_PORT, STATUS, value};
use loaded_ipc::{CheckKind, PortRange, Protocol};
use serde::Serialize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
pub(crate) use surroundings::Surroundings;

/// What a check does, as written, without its port.
#[derive(Debug, Clone)]
pub(crate) enum DraftKind {
    Icmp,
    Tcp,
    IcmpTcp,
    Http {
        method: String,
        path: String,
        /// `None`: the first VIP.
        host: Option<String>,
        status: (u16, u16),
        via: Option<SocketAddr>,
    },
    Udp {
        send: Vec<u8>,
        expect: Vec<u8>,
    },
    Dns {
        name: String,
    },
}

/// A kind, the keys that it has, and how these are read.
struct KindRow {
    name: &'static str,
    keys: &'static [&'static str],
    read: fn(&Table<'_>) -> DraftKind,
}

static KINDS: [KindRow; 6] = [
    KindRow { name: "icmp", keys: &[], read: |_| DraftKind::Icmp },
    KindRow { name: "tcp", keys: &["port"], read: |_| DraftKind::Tcp },
    KindRow { name: "icmp+tcp", keys: &["port"], read: |_| DraftKind::IcmpTcp },
    KindRow { name: "http", keys: &["port", "method", "path", "host", "status", "via"], read: read_http },
    KindRow { name: "udp", keys: &["port", "send", "expect"], read: read_udp },
    KindRow { name: "dns", keys: &["port", "name"], read: read_dns },
];

/// The keys that only some kinds have.
pub(crate) const KEYS: [&str; 9] = ["port", "method", "path", "host", "status", "via", "send", "expect", "name"];

/// Longest text in a check, bytes; a message to the prober carries up to three.
const MAX_TEXT: usize = 128;
/// Longest method, bytes.
const MAX_METHOD: usize = 16;
/// Longest label between two dots of a name, bytes, RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

/// Reads the kind, and the keys that it has. Another kind's keys are refused.
pub(crate) fn read_kind(table: &Table<'_>) -> Result<DraftKind, Flaw> {
    let item = table
        .get("kind")
        .ok_or_else(|| table.mark.flaw("kind is missing; write kind = \"icmp\", \"tcp\", \"http\", …"))?;
    let kind = read(item, row)?.value;
    for key in KEYS.into_iter().filter(|key| table.get(key).is_some() && !kind.keys.contains(key)) {
        let has = if kind.keys.is_empty() { "no keys of its own".to_owned() } else { kind.keys.join(", ") };
        let text = format!("{key} does not belong to a check of kind {:?}, which has {has}", kind.name);
        table.mistakes.add(table.key_mark(key).flaw(text));
    }
    Ok((kind.read)(table))
}

fn row(text: &str) -> Result<&'static KindRow, String> {
    KINDS.iter().find(|kind| kind.name == text).ok_or_else(|| unknown(text))
}

fn unknown(text: &str) -> String {
    if text == "https" {
        return "there is no kind \"https\": the prober has no TLS library; write \"tcp\", or \"http\" with via = \
                \"127.0.0.1:PORT\", where a checker of your own listens (docs/guide.md, HTTPS)"
            .to_owned();
    }
    let names = KINDS.each_ref().map(|kind| kind.name);
    match nearest(text, &names) {
        Some(meant) => format!("there is no check of kind {text:?}; did you mean {meant}?"),
        None => format!("there is no check of kind {text:?}; write one of {}", names.join(", ")),
    }
}

fn read_http(table: &Table<'_>) -> DraftKind {
    DraftKind::Http {
        method: table.text("method", method).map_or_else(|| "GET".to_owned(), |method| method.value),
        path: table.text("path", path).map_or_else(|| "/".to_owned(), |path| path.value),
        host: table.text("host", host).map(|host| host.value),
        status: table.optional("status", status).unwrap_or(STATUS),
        via: table.text("via", via).map(|via| via.value),
    }
}

fn read_udp(table: &Table<'_>) -> DraftKind {
    let hint = "write what the backend answers to: send = \"…\" or [0x01, …]";
    DraftKind::Udp {
        send: table.required("send", hint, bytes).unwrap_or_default(),
        expect: table.optional("expect", bytes).unwrap_or_default(),
    }
}

fn read_dns(table: &Table<'_>) -> DraftKind {
    let name = table.required("name", "write name = \"…\"", |item| read(item, dns_name));
    DraftKind::Dns { name: name.map(|name| name.value).unwrap_or_default() }
}

impl DraftKind {
    /// Completes it with what it takes from its service.
    pub(crate) fn complete(self, around: &Surroundings<'_>) -> Result<CheckKind, String> {
        Ok(match self {
            Self::Icmp => CheckKind::Icmp,
            Self::Tcp => CheckKind::Tcp { port: around.port("tcp", Protocol::Tcp)? },
            Self::IcmpTcp => CheckKind::IcmpTcp { port: around.port("icmp+tcp", Protocol::Tcp)? },
            Self::Http { method, path, host, status, via } => {
                let port = around.port("http", Protocol::Tcp)?;
                let host = host.or_else(|| around.default_host(port)).unwrap_or_default();
                CheckKind::Http { port, method, path, host, status, via }
            }
            Self::Udp { send, expect } => CheckKind::Udp { port: around.port("udp", Protocol::Udp)?, send, expect },
            Self::Dns { name } => {
                CheckKind::Dns { port: around.port.or(around.own_port(Protocol::Udp)).unwrap_or(DNS_PORT), name }
            }
        })
    }
}

/// A kind and its keys, as they stand in a file.
#[derive(Serialize, Default)]
pub(crate) struct WrittenKind<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Payload {
    Text(String),
    Bytes(Vec<u8>),
}

impl<'a> WrittenKind<'a> {
    /// Names the port unless it follows from each backend's own.
    pub(crate) fn of(kind: &'a CheckKind, names_port: bool) -> Self {
        let own = Self { port: kind.port().filter(|_| names_port), ..Self::default() };
        match kind {
            CheckKind::Icmp => Self { kind: "icmp", ..own },
            CheckKind::Tcp { .. } => Self { kind: "tcp", ..own },
            CheckKind::IcmpTcp { .. } => Self { kind: "icmp+tcp", ..own },
            CheckKind::Http { method, path, host, status: (low, high), via, .. } => {
                let (status, via) = (Some(format!("{low}-{high}")), *via);
                Self { kind: "http", method: Some(method), path: Some(path), host: Some(host), status, via, ..own }
            }
            CheckKind::Udp { send, expect, .. } => {
                Self { kind: "udp", send: Some(send.into()), expect: Some(expect.into()), ..own }
            }
            CheckKind::Dns { name, .. } => Self { kind: "dns", name: Some(name), ..own },
        }
    }
}

impl From<&Vec<u8>> for Payload {
    /// Text where it can be read as such.
    fn from(bytes: &Vec<u8>) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) => Self::Text(text.to_owned()),
            _ => Self::Bytes(bytes.clone()),
        }
    }
}

/// What a check does, in words.
pub(crate) fn say(kind: &CheckKind) -> String {
    let port = kind.port().unwrap_or_default();
    match kind {
        CheckKind::Icmp => "ping".to_owned(),
        CheckKind::Tcp { .. } => format!("connection to tcp port {port}"),
        CheckKind::IcmpTcp { .. } => format!("ping, then connection to tcp port {port}"),
        CheckKind::Http { method, path, host, status: (low, high), via, .. } => {
            let status = PortRange { low: *low, high: *high };
            let via = via.map(|via| format!("by the checker at {via}, ")).unwrap_or_default();
            format!("{via}http {method} {path} on port {port}, host {host}, status {status},")
        }
        CheckKind::Udp { send, expect, .. } => {
            let answer = match expect.is_empty() {
                true => "any answer".to_owned(),
                false => format!("answer \"{}\"", expect.escape_ascii()),
            };
            format!("\"{}\" to udp port {port}, {answer},", send.escape_ascii())
        }
        CheckKind::Dns { name, .. } => format!("dns query for {name} to port {port}"),
    }
}

fn method(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'-';
    match (1..=MAX_METHOD).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not an HTTP method; write \"GET\", \"HEAD\" or another in capitals")),
    }
}

/// Visible ASCII only: a blank or a line end would begin another part of the request.
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

/// Where a checker listens. On this host as a rule, so that nobody between can lie about backends.
fn via(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().ok();
    let fits = |at: &SocketAddr| at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast();
    address.filter(fits).ok_or_else(|| {
        format!("{text:?} is not where a checker listens; write an address and a port, such as 127.0.0.1:974")
    })
}

/// Final ones: an interim answer (1xx) is read past until the final one comes, RFC 9110 §15.2.
const STATUSES: RangeInclusive<u16> = 200..=599;

fn status(item: Item<'_>) -> Result<(u16, u16), Flaw> {
    let interim = |said: &dyn std::fmt::Display| {
        format!("{said} has the status of an interim answer (1xx), which decides nothing; write 200 to 599")
    };
    if item.is_integer() {
        return match item.number::<u16>(100..=199) {
            Ok(status) => Err(item.mark.flaw(interim(&status))),
            Err(_) => item.number(STATUSES).map(|status| (status, status)),
        };
    }
    let range = |text: &str| {
        let is_interim = value::range(text, 100..=599).is_ok();
        value::range(text, STATUSES).map_err(|wrong| if is_interim { interim(&text) } else { wrong })
    };
    read(item, range).map(|status| status.value)
}

/// Text as it stands, or bytes one by one for what is not UTF-8.
fn bytes(item: Item<'_>) -> Result<Vec<u8>, Flaw> {
    let bytes = match item.is_array() {
        true => item.each(|item| item.number(0..=u8::MAX))?,
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
        false => Err(format!("{text:?} is not a DNS name; write one such as \"www.example.com\"")),
    }
}
