//! `loaded.toml`: several services, each with its VIPs, ports, strategy, affinity and weighted backends.
//! `scripts/loaded.toml` shows every key. Unknown keys are refused, and so are keys of later versions.

#[cfg(test)]
mod documented;
mod keys;
mod probe;
pub(crate) mod table;

use super::draft::{Draft, DraftFailures, DraftMember, DraftService};
use super::location::{At, Flaw, Mark};
use super::value::{self, address};
use super::{AFFINITY_TIMEOUT, MAGLEV_SEED, MODE, PREFIX4, PREFIX6, QUOTA};
use crate::plan::{MAX_DRAIN, MAX_STOP_HOLD, MAX_TIMEOUT, MAX_WEIGHT, QUEUE_LENS, TABLE_ENTRIES};
use ::toml::de::DeTable;
use keys::{AFFINITY, BACKEND, ON_FAILURE, SERVICE, TOP};
use loaded_ipc::{Affinity, Mode, OnFailure, Policy, PortRange, Protocol, Quota, Strategy, Unserved};
use std::net::IpAddr;
use table::{Item, Table, boolean, mark_of, read, seconds};

/// Longest name of a service; it appears in logs and status.
const MAX_NAME: usize = 64;

/// Reads one document.
pub(super) fn draft(text: &str) -> Result<Draft, Flaw> {
    let document = DeTable::parse(text).map_err(|error| syntax(&error))?;
    let top = Table::open(document.get_ref(), mark_of(&document), &TOP)?;
    let services = top.require("service", "write a [[service]]")?.tables(&SERVICE)?;
    Ok(Draft {
        user: top.get("user").map(|item| read(item, value::user)).transpose()?.map(|user| user.value),
        cores: top.get("cores").map(cores).transpose()?,
        queue_base: top.number("queue_base", 0..=u16::MAX)?,
        queue_len: top.number("queue_len", QUEUE_LENS)?,
        flows: top.number("flows", TABLE_ENTRIES)?,
        clients: top.number("clients", TABLE_ENTRIES)?,
        quota: top.get("quota").map(quota).transpose()?,
        unserved: top.get("unserved").map(|item| read(item, unserved)).transpose()?.map(|unserved| unserved.value),
        on_failure: top.get("on_failure").map(on_failure).transpose()?.unwrap_or_default(),
        nameservers: top.get("nameservers").map(addresses).transpose()?.unwrap_or_default(),
        gateways: Vec::new(),
        drain: top.get("drain").map(|item| seconds(item, 1..=MAX_DRAIN)).transpose()?,
        stop_hold: top.get("stop_hold").map(|item| seconds(item, 0..=MAX_STOP_HOLD)).transpose()?,
        defragment: top.get("defragment").map(boolean).transpose()?,
        linger: top.get("linger").map(boolean).transpose()?,
        services: services.iter().map(service).collect::<Result<_, _>>()?,
    })
}

fn syntax(error: &::toml::de::Error) -> Flaw {
    let offset = error.span().map_or(0, |span| span.start);
    let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    Mark { source: 0, offset }.flaw(format!("not TOML: {message}"))
}

fn service(table: &Table<'_>) -> Result<DraftService, Flaw> {
    let name = read(table.require("name", "write name = \"…\"")?, service_name)?;
    let vips = addresses(table.require("vip", "write vip = \"address\" or an array of addresses")?)?;
    let protocol = protocol(table)?;
    let mode = table.get("mode").map(|item| read(item, mode)).transpose()?.map_or(MODE, |mode| mode.value);
    let discover = table.get("discover").map(probe::discover).transpose()?;
    let members = match table.get("backend") {
        None if discover.is_some() => Vec::new(),
        _ => table.require("backend", "write a [[service.backend]] with an address")?.tables(&BACKEND)?,
    };
    Ok(DraftService {
        name,
        vips,
        protocol,
        ports: ports(table, protocol)?,
        port: table.get("port").map(backend_port).transpose()?,
        mode,
        strategy: strategy(table)?,
        affinity: affinity(table.get("affinity"))?,
        policy: policy(table, mode)?,
        passive: probe::passive(table.get("passive"))?,
        check: table.get("check").map(probe::check).transpose()?,
        discover,
        members: members.iter().map(member).collect::<Result<_, _>>()?,
    })
}

fn member(table: &Table<'_>) -> Result<DraftMember, Flaw> {
    let address = read(table.require("address", "write address = \"…\"")?, address)?;
    Ok(DraftMember {
        address,
        port: table.get("port").map(backend_port).transpose()?,
        weight: table.number("weight", 1..=MAX_WEIGHT)?.unwrap_or(1),
        backup: table.get("backup").map(boolean).transpose()?.unwrap_or(false),
    })
}

fn policy(table: &Table<'_>, mode: Mode) -> Result<Policy, Flaw> {
    let mut policy = Policy::STANDARD;
    for key in &crate::policy::KEYS {
        table.get(key.name).map(|item| (key.read)(item, &mut policy)).transpose()?;
    }
    match table.get("asymmetric").filter(|_| policy.asymmetric && mode == Mode::Dsr) {
        Some(item) => Err(item
            .mark
            .flaw("in mode \"dsr\" replies do not come this way, so asymmetric = true has no effect; take it out")),
        None => Ok(policy),
    }
}

fn quota(item: Item<'_>) -> Result<Quota, Flaw> {
    let table = item.table(&keys::QUOTA)?;
    Ok(Quota {
        prefix4: table.number("prefix4", 1..=32)?.unwrap_or(QUOTA.prefix4),
        prefix6: table.number("prefix6", 1..=128)?.unwrap_or(QUOTA.prefix6),
        percent: table.number("percent", 1..=100)?.unwrap_or(QUOTA.percent),
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
        table.get(key).map(|item| read(item, parse)).transpose()
    };
    Ok(DraftFailures {
        no_worker: way("no_worker")?,
        queue_full: way("queue_full")?,
        receive_overrun: way("receive_overrun")?,
        parse_error: way("parse_error")?,
    })
}

fn protocol(table: &Table<'_>) -> Result<Protocol, Flaw> {
    let item = table.require("protocol", "write protocol = \"tcp\", \"udp\", \"sctp\" or \"any\"")?;
    let parse = |text: &str| match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        "any" => Ok(Protocol::Any),
        _ => Err(format!("there is no protocol {text:?}; write tcp, udp, sctp or any")),
    };
    read(item, parse).map(|protocol| protocol.value)
}

/// Empty is every port.
fn ports(table: &Table<'_>, protocol: Protocol) -> Result<Vec<At<PortRange>>, Flaw> {
    let Some(item) = table.get("ports") else {
        return match protocol {
            Protocol::Any => Ok(Vec::new()),
            _ => table.require("ports", "write ports = [80, 443] or ports = \"any\"").map(|_| Vec::new()),
        };
    };
    if !item.is_array() {
        let any = |text: &str| match text {
            "any" => Ok(Vec::new()),
            _ => Err(format!("{text:?} is not \"any\"; write ports in an array: [80, \"8000-8010\"]")),
        };
        return read(item, any).map(|ports| ports.value);
    }
    if protocol == Protocol::Any {
        return Err(item.mark.flaw(
            "protocol \"any\" takes every port; leave ports out, or write protocol \"tcp\", \"udp\" or \"sctp\"",
        ));
    }
    item.list()?.into_iter().map(port).collect()
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

fn strategy(table: &Table<'_>) -> Result<Strategy, Flaw> {
    // TOML's integers are i64, so that is the range other readers of the file can represent.
    let seed = table.number("seed", 0..=i64::MAX.unsigned_abs())?;
    let parse = |text: &str| match text {
        "rr" => Ok(Strategy::RoundRobin),
        "weighted" => Ok(Strategy::Weighted),
        "maglev" => Ok(Strategy::Maglev { seed: seed.unwrap_or(MAGLEV_SEED) }),
        _ => Err(format!("there is no strategy {text:?}; write rr, weighted or maglev")),
    };
    let strategy = table.get("strategy").map(|item| read(item, parse)).transpose()?;
    let strategy = strategy.map_or(Strategy::RoundRobin, |strategy| strategy.value);
    match (table.get("seed"), strategy) {
        (Some(seed), Strategy::RoundRobin | Strategy::Weighted) => {
            Err(seed.mark.flaw(format!("strategy {strategy} has no seed; only maglev has one")))
        }
        _ => Ok(strategy),
    }
}

fn affinity(item: Option<Item<'_>>) -> Result<Option<Affinity>, Flaw> {
    let default = Affinity { prefix4: PREFIX4, prefix6: PREFIX6, timeout: AFFINITY_TIMEOUT };
    let Some(item) = item else {
        return Ok(Some(default));
    };
    if !item.is_table() {
        let parse = |text: &str| match text {
            "client" => Ok(Some(default)),
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
    read(table.require("by", "write by = \"client\"")?, by)?;
    let timeout = table.get("timeout").map(|item| seconds(item, 1..=MAX_TIMEOUT)).transpose()?;
    Ok(Some(Affinity {
        prefix4: table.number("prefix4", 1..=32)?.unwrap_or(PREFIX4),
        prefix6: table.number("prefix6", 1..=128)?.unwrap_or(PREFIX6),
        timeout: timeout.unwrap_or(AFFINITY_TIMEOUT),
    }))
}

/// One address, or an array of them.
fn addresses(item: Item<'_>) -> Result<Vec<At<IpAddr>>, Flaw> {
    match item.is_array() {
        true => item.list()?.into_iter().map(|item| read(item, address)).collect(),
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
