//! `loaded.toml`: several services, each with its VIPs, ports, strategy, affinity and weighted backends.
//! `scripts/loaded.toml` shows every key. Unknown keys are refused, and so are keys of later versions.

#[cfg(test)]
mod documented;
pub(crate) mod include;
mod keys;
mod probe;
pub(crate) mod table;

use super::address::address;
use super::draft::{Draft, DraftFailures, DraftMember, DraftService, Judgement};
use super::invisible;
use super::location::{At, Flaw, Mark, Source};
use super::mistake::Mistakes;
use super::value;
use super::{AFFINITY_TIMEOUT, MAGLEV_SEED, MODE, PREFIX4, PREFIX6, QUOTA};
use crate::plan::{
    Fast, HostPolicy, LogLevel, MAX_DRAIN, MAX_STOP_HOLD, MAX_TIMEOUT, MAX_WEIGHT, MetricsAddress, QUEUE_LENS,
    TABLE_ENTRIES,
};
use ::toml::Spanned;
use ::toml::de::DeTable;
use keys::{AFFINITY, BACKEND, ON_FAILURE, SERVICE, TOP};
use loaded_ipc::{Affinity, Mode, OnFailure, Policy, PortRange, Protocol, Quota, Strategy, Unserved};
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use table::{Item, Table, boolean, read, seconds};

/// Words of a program's command line.
const MAX_WORDS: usize = 32;
/// Longest name of a service; it appears in logs and status.
const MAX_NAME: usize = 64;

/// Reads a document and those that it includes; what cannot be read is told. `None` if one is no TOML.
pub(super) fn draft(main: &str, included: &[Source], mistakes: &Mistakes) -> Option<Draft> {
    let documents: Vec<_> =
        included.iter().enumerate().map(|(at, source)| document(source.text(), at + 1, mistakes)).collect();
    let main = document(main, 0, mistakes)?;
    let parts = documents.into_iter().collect::<Option<Vec<_>>>()?;
    let mut draft = of_main(&main, mistakes);
    include::merge(&parts, &mut draft, mistakes);
    Some(draft)
}

fn document<'t>(text: &'t str, source: usize, mistakes: &Mistakes) -> Option<Spanned<DeTable<'t>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    // What else is wrong in a broken text is anybody's guess.
    errors.iter().for_each(|error| mistakes.add(syntax(error, text, source)));
    errors.is_empty().then_some(document)
}

fn of_main(document: &Spanned<DeTable<'_>>, mistakes: &Mistakes) -> Draft {
    let top = Table::open(document.get_ref(), Mark::START.at(document.span()), &TOP, mistakes);
    let includes = top.optional("include", include::patterns).is_some();
    let services = match includes {
        true => top.optional("service", |item| item.tables(&SERVICE)),
        false => top.required("service", "write a [[service]]", |item| item.tables(&SERVICE)),
    };
    Draft {
        user: top.text("user", value::user).map(|user| user.value),
        cores: top.optional("cores", cores),
        queue_base: top.number("queue_base", 0..=u16::MAX),
        queue_len: top.number("queue_len", QUEUE_LENS),
        flows: top.number("flows", TABLE_ENTRIES),
        clients: top.number("clients", TABLE_ENTRIES),
        quota: top.optional("quota", quota),
        unserved: top.text("unserved", unserved).map(|unserved| unserved.value),
        on_failure: top.optional("on_failure", on_failure).unwrap_or_default(),
        nameservers: top.optional("nameservers", addresses).unwrap_or_default(),
        gateways: Vec::new(),
        drain: top.optional("drain", |item| seconds(item, 1..=MAX_DRAIN)),
        stop_hold: top.optional("stop_hold", |item| seconds(item, 0..=MAX_STOP_HOLD)),
        defragment: top.optional("defragment", boolean),
        linger: top.optional("linger", boolean),
        fast: top.text("fast", Fast::read).map(|fast| fast.value),
        host: top.text("host", HostPolicy::read).map(|host| host.value),
        log_level: top.text("log_level", LogLevel::read).map(|level| level.value),
        metrics: top.text("metrics", MetricsAddress::read),
        monitor_group: top.text("monitor_group", value::group).map(|group| group.value),
        notify: top.optional("notify", program).unwrap_or_default(),
        notify_user: top.text("notify_user", value::user).map(|user| user.value),
        services: services.unwrap_or_default().iter().map(|table| service(table, includes)).collect(),
        unread: top.unread(),
    }
}

/// A program with its arguments.
fn program(item: Item<'_>) -> Result<Vec<String>, Flaw> {
    let words = item.list()?;
    if let Some(word) = words.get(MAX_WORDS) {
        return Err(word.mark.flaw(format!("{} has more than {MAX_WORDS} words", item.key)));
    }
    let mut program = Vec::new();
    for word in words {
        let text = word.string()?;
        if program.is_empty() && !Path::new(text.value).is_absolute() {
            return Err(text.flaw(format!(
                "{:?} is no absolute path of a program; write one such as /usr/local/sbin/tell",
                text.value
            )));
        }
        if text.value.contains('\0') {
            return Err(text.flaw("no argument of a program can have a zero byte"));
        }
        program.push(text.value.to_owned());
    }
    Ok(program)
}

fn syntax(error: &::toml::de::Error, text: &str, source: usize) -> Flaw {
    let Range { start, end } = error.span().unwrap_or_default();
    let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    // What nobody sees: without its name the message would point at nothing.
    let unseen = text.get(start..).and_then(|rest| rest.chars().next()).filter(|c| invisible::is_invisible(*c));
    let unseen = unseen.map(|c| format!("; {} is there, which no editor shows: take it out", invisible::name(c)));
    Mark::start_of(source).at(start..end.max(start)).flaw(format!("not TOML: {message}{}", unseen.unwrap_or_default()))
}

/// `may_lack`: its backends may be in an included file.
fn service(table: &Table<'_>, may_lack: bool) -> DraftService {
    let nameless = At { value: "(unnamed)".to_owned(), mark: table.mark };
    let name = table.required("name", "write name = \"…\"", |item| read(item, service_name)).unwrap_or(nameless);
    let vips = table.required("vip", "write vip = \"address\" or an array of addresses", addresses);
    let protocol = protocol(table);
    let mode = table.text("mode", mode).map_or(MODE, |mode| mode.value);
    let discover = table.optional("discover", probe::discover);
    let members = |item: Item<'_>| Ok(item.tables(&BACKEND)?.iter().filter_map(member).collect());
    let members: Option<Vec<_>> = match table.get("discover") {
        None if !may_lack => table.required("backend", "write a [[service.backend]] with an address", members),
        _ => table.optional("backend", members),
    };
    let (ports, strategy, mut policy) = (ports(table, protocol), strategy(table), policy(table, mode));
    if let Err(text) = may_adopt(mode, protocol, !ports.is_empty()) {
        let is_read = || protocol.is_some() && table.unread().spares(&["mode", "ports", "protocol"]);
        if let Some(item) = table.get("adopt").filter(|_| policy.adopt && is_read()) {
            table.mistakes.add(item.mark.flaw(text));
        }
        policy.adopt = false;
    }
    DraftService {
        name,
        vips: vips.unwrap_or_default(),
        protocol: protocol.unwrap_or(Protocol::Tcp),
        ports,
        port: table.optional("port", backend_port),
        mode,
        strategy,
        affinity: table.optional("affinity", affinity).unwrap_or(Some(CLIENT)),
        policy,
        passive: table.optional("passive", probe::passive).unwrap_or(Judgement::Unsaid),
        check: table.optional("check", probe::check),
        discover,
        members: members.unwrap_or_default(),
        unread: table.unread(),
    }
}

fn member(table: &Table<'_>) -> Option<DraftMember> {
    let address = table.required("address", "write address = \"…\"", |item| read(item, address));
    let port = table.optional("port", backend_port);
    let weight = table.optional("weight", weight).unwrap_or(1);
    let backup = table.optional("backup", boolean).unwrap_or(false);
    // Without its port it looks like another backend.
    let address = address.filter(|_| table.unread().spares(&["port"]))?;
    Some(DraftMember { address, port, weight, backup })
}

fn weight(item: Item<'_>) -> Result<u16, Flaw> {
    match item.number(0..=0_u16) {
        Ok(zero) => value::weight(zero).map_err(|text| item.mark.flaw(text)),
        Err(_) => item.number(1..=MAX_WEIGHT),
    }
}

fn policy(table: &Table<'_>, mode: Mode) -> Policy {
    let mut policy = Policy::STANDARD;
    for key in &crate::policy::KEYS {
        table.optional(key.name, |item| (key.read)(item, &mut policy));
    }
    if let Some(item) = table.get("asymmetric").filter(|_| policy.asymmetric && mode == Mode::Dsr) {
        let text = "in mode \"dsr\" replies do not come this way, so asymmetric = true has no effect; take it out";
        table.mistakes.add(item.mark.flaw(text));
    }
    policy
}

/// Whether a backend's packets without a connection may be held for replies at all.
fn may_adopt(mode: Mode, protocol: Option<Protocol>, names_ports: bool) -> Result<(), &'static str> {
    match protocol {
        _ if mode == Mode::Dsr => {
            Err("in mode \"dsr\" replies do not come this way, so adopt = true has no effect; take it out")
        }
        Some(Protocol::Any) | None => {
            Err("backends have traffic of their own; name the protocol and the service's ports, or take adopt out")
        }
        _ if names_ports => Ok(()),
        _ => Err("backends open connections of their own from any port; name the service's ports, or take adopt out"),
    }
}

fn quota(item: Item<'_>) -> Result<Quota, Flaw> {
    let table = item.table(&keys::QUOTA)?;
    Ok(Quota {
        prefix4: table.number("prefix4", 1..=32).unwrap_or(QUOTA.prefix4),
        prefix6: table.number("prefix6", 1..=128).unwrap_or(QUOTA.prefix6),
        percent: table.number("percent", 1..=100).unwrap_or(QUOTA.percent),
    })
}

fn unserved(text: &str) -> Result<Unserved, String> {
    match text {
        "pass" => Ok(Unserved::Pass),
        "drop" => Ok(Unserved::Drop),
        _ => Err(format!("unserved cannot be {text:?}; write pass or drop")),
    }
}

fn on_failure(item: Item<'_>) -> Result<DraftFailures, Flaw> {
    let table = item.table(&ON_FAILURE)?;
    let way = |key: &'static str| {
        let parse = |text: &str| match text {
            "drop" => Ok(OnFailure::Drop),
            "pass" => Ok(OnFailure::Pass),
            _ => Err(format!("{key} cannot be {text:?}; write drop or pass")),
        };
        table.text(key, parse)
    };
    Ok(DraftFailures {
        no_worker: way("no_worker"),
        queue_full: way("queue_full"),
        receive_overrun: way("receive_overrun"),
        parse_error: way("parse_error"),
    })
}

fn protocol(table: &Table<'_>) -> Option<Protocol> {
    let parse = |text: &str| match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        "any" => Ok(Protocol::Any),
        _ => Err(format!("there is no protocol {text:?}; write tcp, udp, sctp or any")),
    };
    let hint = "write protocol = \"tcp\", \"udp\", \"sctp\" or \"any\"";
    table.required("protocol", hint, |item| read(item, parse)).map(|protocol| protocol.value)
}

/// Empty is every port. Where the protocol is unknown, nobody knows whether ports may be there.
fn ports(table: &Table<'_>, protocol: Option<Protocol>) -> Vec<At<PortRange>> {
    if protocol.is_some_and(|protocol| protocol != Protocol::Any) && table.get("ports").is_none() {
        table.miss("ports", "write ports = [80, 443] or ports = \"any\"");
    }
    table.optional("ports", |item| port_list(item, protocol)).unwrap_or_default()
}

fn port_list(item: Item<'_>, protocol: Option<Protocol>) -> Result<Vec<At<PortRange>>, Flaw> {
    let array = "an array, such as ports = [80, \"8000-8010\"], or ports = \"any\"";
    if !item.is_array() {
        let Ok(text) = item.string() else { return Err(item.not(array)) };
        return match text.value {
            "any" => Ok(Vec::new()),
            text => Err(item.mark.flaw(format!("ports is {text:?}; write {array}"))),
        };
    }
    if protocol == Some(Protocol::Any) {
        return Err(item.mark.flaw(
            "protocol \"any\" takes every port; leave ports out, or write protocol \"tcp\", \"udp\" or \"sctp\"",
        ));
    }
    item.each(port)
}

fn port(item: Item<'_>) -> Result<At<PortRange>, Flaw> {
    if item.is_integer() {
        let port = item.number(1..=u16::MAX)?;
        return Ok(At { value: PortRange { low: port, high: port }, mark: item.mark });
    }
    read(item, value::ports)
}

/// The port that packets to a backend get.
fn backend_port(item: Item<'_>) -> Result<At<u16>, Flaw> {
    match item.is_integer() {
        true => item.number(1..=u16::MAX).map(|port| At { value: port, mark: item.mark }),
        false => Err(item.mark.flaw(
            "port is the backends' port, one number to which packets to any of ports go: write port = 8080, or leave it out, \
             and each stays what it is",
        )),
    }
}

fn cores(item: Item<'_>) -> Result<At<(u16, u16)>, Flaw> {
    if item.is_integer() {
        let core = item.number(0..=u16::MAX)?;
        return Ok(At { value: (core, core), mark: item.mark });
    }
    read(item, value::cores)
}

fn strategy(table: &Table<'_>) -> Strategy {
    // TOML's integers are i64, so that is the range other readers of the file can represent.
    let seed = table.number("seed", 0..=i64::MAX.unsigned_abs());
    let parse = |text: &str| value::strategy(text, seed.unwrap_or(MAGLEV_SEED));
    let strategy = table.text("strategy", parse).map_or(Strategy::RoundRobin, |strategy| strategy.value);
    let known = table.unread().spares(&["strategy", "seed"]);
    if let Some(seed) = table.get("seed").filter(|_| known && !matches!(strategy, Strategy::Maglev { .. })) {
        let text = format!("strategy {strategy} has no seed; only maglev has one");
        table.mistakes.add(seed.mark.flaw(text));
    }
    strategy
}

/// The affinity of a service that says nothing of it.
const CLIENT: Affinity = Affinity { prefix4: PREFIX4, prefix6: PREFIX6, timeout: AFFINITY_TIMEOUT };

fn affinity(item: Item<'_>) -> Result<Option<Affinity>, Flaw> {
    if !item.is_table() {
        let parse = |text: &str| match text {
            "client" => Ok(Some(CLIENT)),
            "none" => Ok(None),
            _ => Err(format!("there is no affinity {text:?}; write \"client\", \"none\" or {{ by = \"client\", … }}")),
        };
        return read(item, parse).map(|affinity| affinity.value);
    }
    let table = item.table(&AFFINITY)?;
    let by = |text: &str| match text {
        "client" => Ok(()),
        _ => Err(format!("affinity by {text:?} does not exist; write by = \"client\", or affinity = \"none\"")),
    };
    table.required("by", "write by = \"client\"", |item| read(item, by));
    Ok(Some(Affinity {
        prefix4: table.number("prefix4", 1..=32).unwrap_or(PREFIX4),
        prefix6: table.number("prefix6", 1..=128).unwrap_or(PREFIX6),
        timeout: table.optional("timeout", |item| seconds(item, 1..=MAX_TIMEOUT)).unwrap_or(AFFINITY_TIMEOUT),
    }))
}

/// One address, or an array of them.
fn addresses(item: Item<'_>) -> Result<Vec<At<IpAddr>>, Flaw> {
    match item.is_array() {
        true => item.each(|item| read(item, address)),
        false => Ok(vec![read(item, address)?]),
    }
}

fn service_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not a service name; write 1 to {MAX_NAME} letters, digits, and . _ -")),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "nat" => Ok(Mode::Nat),
        "dsr" => Ok(Mode::Dsr),
        _ => Err(format!("there is no mode {text:?}; write nat or dsr")),
    }
}
