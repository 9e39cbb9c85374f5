//! A `[[service]]` and its backends.

use super::keys::{AFFINITY, BACKEND};
use super::probe;
use super::table::{Item, Table, addresses, boolean, read, seconds};
use crate::address::address;
use crate::draft::{DraftMember, DraftService, Judgement};
use crate::location::{At, Flaw};
use crate::plan::{MAX_TIMEOUT, MAX_WEIGHT};
use crate::value;
use crate::{AFFINITY_TIMEOUT, MAGLEV_SEED, MODE, PREFIX4, PREFIX6};
use loaded_ipc::{Affinity, Mode, Policy, PortRange, Protocol, Strategy};

/// Longest name of a service; it appears in logs and status.
const MAX_NAME: usize = 64;

/// `may_lack`: its backends may be in an included file.
pub(super) fn service(table: &Table<'_>, may_lack: bool) -> DraftService {
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

pub(super) fn service_name(text: &str) -> Result<String, String> {
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

pub(super) fn member(table: &Table<'_>) -> Option<DraftMember> {
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
