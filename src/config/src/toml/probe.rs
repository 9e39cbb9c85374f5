//! The keys `check`, `passive` and `discover`.

use super::table::{Item, KnownKeys, Table, read};
use crate::address::address4;
use crate::check_kind;
use crate::draft::{DraftCheck, DraftDiscover, DraftPassive, DraftPlace, Judgement, PASSIVE, Pace};
use crate::duration;
use crate::location::{At, Flaw};
use crate::network::Network;
use crate::value;
use crate::{CHECK_INTERVAL, CHECK_TIMEOUT, DISCOVER_INTERVAL, DISCOVER_LIMIT, FALL, JITTER, RISE};
use loaded_ipc::Passive;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

pub(super) const CHECK: KnownKeys = KnownKeys {
    table: "check",
    known: &[&["kind", "interval", "interval_down", "timeout", "jitter", "rise", "fall"], &check_kind::KEYS],
    later: &[],
    elsewhere: &[],
};

pub(super) const PASSIVE_KEYS: KnownKeys =
    KnownKeys { table: "passive", known: &[&["fails", "timeout", "hold", "port"]], later: &[], elsewhere: &[] };

pub(super) const DISCOVER: KnownKeys = KnownKeys {
    table: "discover",
    known: &[&["network", "interface", "limit", "interval", "to4"]],
    later: &[],
    elsewhere: &[],
};

/// Milliseconds between two checks of a backend: at most a day.
const INTERVAL: RangeInclusive<u32> = 100..=86_400_000;
/// Milliseconds until a check has failed.
const TIMEOUT: RangeInclusive<u32> = 10..=60_000;
/// Milliseconds between two looks for new backends.
const LOOK: RangeInclusive<u32> = 1000..=86_400_000;

pub(super) fn check(item: Item<'_>) -> Result<At<DraftCheck>, Flaw> {
    let table = item.table(&CHECK)?;
    let port = table.number("port", 1..=u16::MAX);
    let pace = pace(&table);
    let kind = check_kind::read_kind(&table)?;
    Ok(At { value: DraftCheck { kind, port, pace }, mark: item.mark })
}

fn pace(table: &Table<'_>) -> Pace {
    let millis = |key, range: RangeInclusive<u32>| table.text(key, |text| duration::millis(text, range.clone()));
    let interval = millis("interval", INTERVAL).map_or(CHECK_INTERVAL, |interval| interval.value);
    let interval_down = millis("interval_down", INTERVAL).map_or(interval, |interval| interval.value);
    let most = interval.min(interval_down);
    let timeout = millis("timeout", TIMEOUT);
    let known = table.unread().spares(&["interval", "interval_down"]);
    if let Some(timeout) = timeout.filter(|timeout| known && timeout.value > most) {
        let (said, most) = (duration::span(timeout.value.into()), duration::span(most.into()));
        let text = format!("timeout is {said}, but a check must be over before the next begins; write at most {most}");
        table.mistakes.add(timeout.flaw(text));
    }
    Pace {
        interval,
        interval_down,
        timeout: timeout.map_or(CHECK_TIMEOUT.min(most), |timeout| timeout.value),
        jitter: table.number("jitter", 0..=50).unwrap_or(JITTER),
        rise: table.number("rise", 1..=u8::MAX).unwrap_or(RISE),
        fall: table.number("fall", 1..=u8::MAX).unwrap_or(FALL),
    }
}

pub(super) fn passive(item: Item<'_>) -> Result<Judgement, Flaw> {
    match item.boolean() {
        Some(false) => return Ok(Judgement::Off),
        Some(true) => return Ok(Judgement::On(At { value: PASSIVE, mark: item.mark })),
        None if !item.is_table() => return Err(item.not("true, false or a table")),
        None => {}
    }
    let table = item.table(&PASSIVE_KEYS)?;
    let timeout = table.text("timeout", |text| duration::millis(text, Passive::TIMEOUTS));
    let hold = table.text("hold", |text| duration::seconds(text, Passive::HOLDS));
    let value = DraftPassive {
        fails: table.number("fails", Passive::FAILS).unwrap_or(PASSIVE.fails),
        timeout: timeout.map_or(PASSIVE.timeout, |timeout| timeout.value),
        hold: hold.map_or(PASSIVE.hold, |hold| hold.value),
        port: table.optional("port", port),
    };
    Ok(Judgement::On(At { value, mark: item.mark }))
}

fn port(item: Item<'_>) -> Result<At<u16>, Flaw> {
    item.number(1..=u16::MAX).map(|port| At { value: port, mark: item.mark })
}

pub(super) fn discover(item: Item<'_>) -> Result<At<DraftDiscover>, Flaw> {
    let table = item.table(&DISCOVER)?;
    let network = |item| read(item, Network::parse);
    let networks = table.required("network", "write network = \"198.51.100.0/24\" or an array of networks", |item| {
        if item.is_array() { item.each(network) } else { network(item).map(|network| vec![network]) }
    });
    let networks = networks.unwrap_or_default();
    let interface = table.text("interface", value::interface);
    let to4 = table.text("to4", address4);
    let has_to4 = |network: &At<Network>| to4.is_some_and(|to| network.value.contains(to.value.into()));
    if let Some(to4) = to4.filter(|_| table.unread().spares(&["network"]) && !networks.iter().any(has_to4)) {
        table.mistakes.add(to4.flaw(format!("{} is outside of every IPv4 network here", to4.value)));
    }
    let to = |to: At<Ipv4Addr>| to.with(IpAddr::from(to.value));
    let place = |network: At<Network>| DraftPlace {
        network,
        to: to4.filter(|_| has_to4(&network)).map(to),
        interface: interface.as_ref().map(|interface| interface.value.clone()),
    };
    let interval = table.text("interval", |text| duration::millis(text, LOOK));
    let value = DraftDiscover {
        places: networks.into_iter().map(place).collect(),
        limit: table.number("limit", 1..=1024).unwrap_or(DISCOVER_LIMIT),
        interval: interval.map_or(DISCOVER_INTERVAL, |interval| interval.value),
    };
    Ok(At { value, mark: item.mark })
}
