//! Rules of nftables, from the JSON of `nft -j list ruleset` (libnftables-json(5)).

mod expression;

use crate::rule::{Base, ChainOrder, Dialect, Hook, RAW, Rule, RuleName, Table};
use expression::{Sets, expressions};
use loaded_netfilter::Family;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// What nft has listed, one thing after the other, so that no more than one is in memory as JSON.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

enum Item {
    Chain(Box<Chain>),
    Rule { table: Key, chain: String, handle: u64, expressions: Vec<Value> },
    Set { table: Key, name: String, elements: Vec<Value> },
    Other,
}

/// Family and name of a table.
type Key = (String, String);

struct Chain {
    table: Key,
    name: String,
    base: Option<Base>,
}

/// All tables but those that `is_shown` says iptables-save has shown already.
///
/// # Errors
/// If it is no JSON as nft writes it.
pub(crate) fn tables(listed: &str, is_shown: impl Fn(Family, &str) -> bool) -> Result<Vec<Table>, serde_json::Error> {
    let Listing { nftables } = serde_json::from_str(listed)?;
    let (mut tables, mut sets) = (BTreeMap::<Key, Table>::new(), BTreeMap::<Key, Sets>::new());
    let mut rules = Vec::new();
    for item in nftables {
        match item {
            Item::Chain(chain) => {
                let Some(table) = table(&mut tables, &chain.table, &is_shown) else { continue };
                table.chains.entry(chain.name).or_default();
                table.bases.extend(chain.base);
            }
            Item::Rule { table, chain, handle, expressions } => rules.push((table, chain, handle, expressions)),
            Item::Set { table, name, elements } => drop(sets.entry(table).or_default().insert(name, elements)),
            Item::Other => {}
        }
    }
    let none = Sets::new();
    for (key, chain, handle, listed) in rules {
        let Some(table) = table(&mut tables, &key, &is_shown) else { continue };
        let rules = table.chains.entry(chain).or_default();
        for (matches, ruling) in expressions(&listed, sets.get(&key).unwrap_or(&none)) {
            rules.push(Rule { matches, ruling, name: RuleName::Handle(handle) });
        }
    }
    let mut tables: Vec<_> = tables.into_values().collect();
    for table in &mut tables {
        for base in &mut table.bases {
            base.rules = (0, table.chains.get(&base.chain).map_or(0, Vec::len));
        }
    }
    Ok(tables)
}

/// The table of this key; `None` if no balanced packet meets it, or if it was shown already.
fn table<'t>(
    tables: &'t mut BTreeMap<Key, Table>,
    key: &Key,
    is_shown: impl Fn(Family, &str) -> bool,
) -> Option<&'t mut Table> {
    let (name, families) = match key.0.as_str() {
        "ip" => ("ip", vec![Family::V4]),
        "ip6" => ("ip6", vec![Family::V6]),
        "inet" => ("inet", Family::ALL.to_vec()),
        "netdev" => ("netdev", Family::ALL.to_vec()),
        // Of bridges and ARP.
        _ => return None,
    };
    if families.len() == 1 && is_shown(families[0], &key.1) {
        return None;
    }
    Some(tables.entry(key.clone()).or_insert_with(|| Table {
        dialect: Dialect::Nft(name),
        families,
        name: key.1.clone(),
        chains: BTreeMap::new(),
        bases: Vec::new(),
    }))
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(Value::deserialize(deserializer)?).unwrap_or(Self::Other))
    }
}

impl Item {
    fn of(value: Value) -> Option<Self> {
        let Value::Object(object) = value else { return None };
        let (kind, mut value) = object.into_iter().next()?;
        let table = (text(&value, "family")?, text(&value, "table").or_else(|| text(&value, "name"))?);
        match kind.as_str() {
            "chain" => {
                let name = text(&value, "name")?;
                let base = base(&name, &value);
                Some(Self::Chain(Box::new(Chain { table, name, base })))
            }
            "rule" => Some(Self::Rule {
                table,
                chain: text(&value, "chain")?,
                handle: value.get("handle")?.as_u64()?,
                expressions: list(value.get_mut("expr")?.take()),
            }),
            "set" | "map" => Some(Self::Set {
                table,
                name: text(&value, "name")?,
                elements: value.get_mut("elem").map(Value::take).map(list).unwrap_or_default(),
            }),
            _ => None,
        }
    }
}

fn base(chain: &str, value: &Value) -> Option<Base> {
    // Those of type `nat` see tracked connections alone (nf_nat_inet_fn, net/netfilter/nf_nat_core.c), those of type `route`
    // what this host sends.
    if text(value, "type")? != "filter" {
        return None;
    }
    let hook = match text(value, "hook")?.as_str() {
        "ingress" => Hook::Ingress,
        "prerouting" => Hook::Prerouting,
        "forward" => Hook::Forward,
        "postrouting" => Hook::Postrouting,
        "egress" => Hook::Egress,
        _ => return None,
    };
    let priority = value.get("prio")?.as_i64().and_then(|priority| i32::try_from(priority).ok())?;
    let devices = match value.get("dev") {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let order = match hook {
        Hook::Ingress => ChainOrder::Before,
        Hook::Prerouting if priority < RAW => ChainOrder::Before,
        Hook::Prerouting if priority == RAW => ChainOrder::Unknown,
        _ => ChainOrder::Behind,
    };
    let drops = text(value, "policy").is_some_and(|policy| policy == "drop");
    Some(Base { chain: chain.to_owned(), hook, priority, drops, devices, rules: (0, 0), order })
}

/// Whether it has a chain at an interface that is not told: nft below 1.0.7 has none in its JSON.
pub(crate) fn lacks_devices(table: &Table) -> bool {
    table.bases.iter().any(|base| matches!(base.hook, Hook::Ingress | Hook::Egress) && base.devices.is_empty())
}

/// Adds the interfaces of chains, from the text of `nft list chains`.
pub(crate) fn add_devices(tables: &mut [Table], chains: &str) {
    let (mut table, mut chain) = ("", "");
    for line in chains.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if let Some((_, devices)) = line.split_once(" device") {
            // `device "eth0" priority 0;` or `devices = { "eth0", "eth1" } priority 0;`
            let names: Vec<_> = devices.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            for one in tables.iter_mut() {
                let Dialect::Nft(family) = one.dialect else { continue };
                let same = format!("{family} {}", one.name) == table;
                for base in one.bases.iter_mut().filter(|base| same && base.chain == chain) {
                    base.devices.clone_from(&names);
                }
            }
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

fn list(value: Value) -> Vec<Value> {
    if let Value::Array(values) = value { values } else { vec![value] }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
