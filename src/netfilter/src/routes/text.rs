//! Scripts for `ip`, and parsing of its output.

use super::hop::Hop;
use crate::Family;
use loaded_ipc::{BackendIndex, MARK_MASK, MAX_BACKEND_INDEX, mark_of};
use std::collections::{BTreeMap, BTreeSet};

/// Marks our rules and routes as ours (`rtm_protocol`, `FRA_PROTOCOL`): no number of include/uapi/linux/rtnetlink.h or
/// of iproute2's rt_protos.
pub(super) const PROTOCOL: u8 = 76;
/// Priority of our first rule: after the local table (0), before the main table (32766) and what others put near it.
const PRIORITY: u32 = 10_000;
/// Our first table: 8192 for each queue base, far above what people write into rt_tables.
const TABLES: u32 = 0x4000_0000;
/// Metric of the guard route, which applies when the backend's route is gone with its interface. `ip -6` would take the
/// largest metric for the kernel's own and hide the route.
const GUARD_METRIC: u32 = 1_000_000;

/// A routing rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoutingRule {
    pub(super) priority: u32,
    /// Value and mask.
    pub(super) mark: Option<(u32, u32)>,
    pub(super) table: Option<u32>,
    ours: bool,
    /// As `ip` shows it.
    pub(super) text: String,
}

/// The rules and routes present in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PresentRoutes {
    pub(super) rules: Vec<RoutingRule>,
    /// Table, next hop, interface.
    hops: BTreeSet<(u32, String, String)>,
    /// Tables that have the guard route.
    guards: BTreeSet<u32>,
}

fn tables(base: u16) -> std::ops::Range<u32> {
    let first = TABLES + u32::from(base) * u32::from(MAX_BACKEND_INDEX);
    first..first + u32::from(MAX_BACKEND_INDEX)
}

fn priorities() -> std::ops::Range<u32> {
    PRIORITY..PRIORITY + u32::from(MAX_BACKEND_INDEX)
}

impl PresentRoutes {
    /// Parses `ip -N rule show` and `ip -N -o route show table all proto 76`.
    pub(super) fn parse(rules: &str, routes: &str) -> Self {
        let mut present = Self { rules: rules.lines().filter_map(rule).collect(), ..Self::default() };
        for words in routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            let after = |key: &str| words.windows(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
            let Some(table) = after("table").and_then(|table| table.parse().ok()) else { continue };
            match (after("via"), after("dev")) {
                (Some(via), Some(dev)) => drop(present.hops.insert((table, via.to_owned(), dev.to_owned()))),
                _ => drop(present.guards.insert(table)),
            }
        }
        present
    }

    /// Rules of an instance with this queue base.
    fn ours(&self, base: u16) -> impl Iterator<Item = &RoutingRule> {
        self.rules.iter().filter(move |rule| rule.ours && rule.table.is_some_and(|t| tables(base).contains(&t)))
    }

    /// Non-empty tables of an instance with this queue base.
    fn our_tables(&self, base: u16) -> BTreeSet<u32> {
        let routed = self.hops.iter().map(|hop| hop.0).chain(self.guards.iter().copied());
        routed.chain(self.ours(base).filter_map(|rule| rule.table)).filter(|t| tables(base).contains(t)).collect()
    }

    pub(super) fn has_ours(&self, base: u16) -> bool {
        !self.our_tables(base).is_empty()
    }

    /// A foreign rule that conflicts with ours: it has one of our priorities or tables, or matches bits of the mark that are
    /// ours and so could match our packets.
    pub(super) fn in_the_way(&self, base: u16) -> Option<&RoutingRule> {
        let ours: Vec<_> = self.ours(base).collect();
        let foreign = self.rules.iter().filter(|rule| !ours.contains(rule));
        let bad = |rule: &&RoutingRule| {
            let asks = rule.mark.is_some_and(|(value, mask)| {
                let bits = mask & MARK_MASK;
                bits != 0 && !(bits == MARK_MASK && value & bits == 0)
            });
            asks || priorities().contains(&rule.priority) || rule.table.is_some_and(|t| tables(base).contains(&t))
        };
        foreign.into_iter().find(bad)
    }

    /// The script that leads from the present state to the wanted one. With `keep`, unwanted routes stay.
    pub(super) fn script(&self, base: u16, family: Family, wanted: &BTreeMap<u16, Hop>, keep: bool) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut used = BTreeSet::new();
        for (&index, hop) in wanted.iter().filter(|(_, hop)| family.has(hop.address)) {
            let (table, priority) = (tables(base).start + u32::from(index), PRIORITY + u32::from(index));
            let mark = mark_of(BackendIndex(index));
            used.insert(table);
            let Hop { address, interface } = hop;
            let of_table = || self.hops.iter().filter(|(t, ..)| *t == table);
            let right = (table, address.to_string(), interface.clone());
            let stale = of_table().any(|hop| *hop != right);
            if stale {
                lines.push(format!("route flush table {table} proto {PROTOCOL}"));
            }
            if stale || !self.hops.contains(&right) {
                lines.push(format!(
                    "route replace default via {address} dev {interface} onlink table {table} proto {PROTOCOL}"
                ));
            }
            if stale || !self.guards.contains(&table) {
                lines.push(format!(
                    "route replace unreachable default metric {GUARD_METRIC} table {table} proto {PROTOCOL}"
                ));
            }
            // The rule comes last: with its table still empty, packets would fall through to the main table.
            let is_there = |rule: &RoutingRule| rule.priority == priority && rule.mark == Some((mark, MARK_MASK));
            if !self.ours(base).any(|rule| is_there(rule) && rule.table == Some(table)) {
                lines.push(format!(
                    "rule add priority {priority} fwmark {mark:#x}/{MARK_MASK:#x} table {table} protocol {PROTOCOL}"
                ));
            }
        }
        if !keep {
            let unused = |table: &u32| !used.contains(table);
            for rule in self.ours(base).filter(|rule| rule.table.as_ref().is_some_and(unused)) {
                let mark = rule.mark.map(|(value, mask)| format!(" fwmark {value:#x}/{mask:#x}")).unwrap_or_default();
                let table = rule.table.unwrap_or_default();
                lines.push(format!("rule del priority {}{mark} table {table}", rule.priority));
            }
            let gone = self.our_tables(base).into_iter().filter(unused);
            lines.extend(gone.map(|table| format!("route flush table {table} proto {PROTOCOL}")));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// `10000: from all fwmark 0x10000/0x3fff0000 lookup 1073741824 proto 76`; a mask of all bits is not shown.
fn rule(line: &str) -> Option<RoutingRule> {
    let (priority, text) = line.split_once(':')?;
    let words: Vec<_> = text.split_whitespace().collect();
    let after = |key: &str| words.windows(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let mark = after("fwmark").and_then(|text| match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    });
    Some(RoutingRule {
        priority: priority.trim().parse().ok()?,
        mark,
        table: after("lookup").and_then(|table| table.parse().ok()),
        ours: after("proto").and_then(|number| number.parse().ok()) == Some(PROTOCOL),
        text: line.split_whitespace().collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    const SYSTEM: &str = "0:\tfrom all lookup 255\n32766:\tfrom all lookup 254\n32767:\tfrom all lookup 253\n";
    const RULE: &str = "10002:\tfrom all fwmark 0x30000/0x3fff0000 lookup 1073741826 proto 76\n";
    const ROUTES: &str = "default via 198.51.100.11 dev eth1 table 1073741826 onlink \n\
                          7 default table 1073741826 metric 1000000 \n";

    fn hops(list: &[(u16, &str)]) -> BTreeMap<u16, Hop> {
        let hop = |address: &str| Hop { address: address.parse().unwrap(), interface: "eth1".to_owned() };
        list.iter().map(|(index, address)| (*index, hop(address))).collect()
    }

    fn script(rules: &str, routes: &str, wanted: &[(u16, &str)], keep: bool) -> Vec<String> {
        let present = PresentRoutes::parse(&[SYSTEM, rules].concat(), routes);
        let text = present.script(0, Family::V4, &hops(wanted), keep);
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_backend_costs_two_routes_and_then_a_rule() {
        let lines = script("", "", &[(2, "198.51.100.11"), (3, "2001:db8::1")], false);
        assert_eq!(
            lines,
            [
                "route replace default via 198.51.100.11 dev eth1 onlink table 1073741826 proto 76",
                "route replace unreachable default metric 1000000 table 1073741826 proto 76",
                "rule add priority 10002 fwmark 0x30000/0x3fff0000 table 1073741826 protocol 76",
            ]
        );
    }

    #[test]
    fn what_is_as_it_should_be_is_not_touched_and_what_lacks_is_added() {
        let wanted = [(2, "198.51.100.11")];
        assert_eq!(script(RULE, ROUTES, &wanted, false), [""; 0]);
        let guard = "7 default table 1073741826 metric 1000000\n";
        let lines = script(RULE, guard, &wanted, true);
        assert!(lines.len() == 1 && lines[0].starts_with("route replace default via"), "{lines:?}");
        let lines = script("", ROUTES, &wanted, true);
        assert!(lines.len() == 1 && lines[0].starts_with("rule add priority 10002"), "{lines:?}");
    }

    #[test]
    fn a_number_that_means_another_backend_now_loses_the_old_route() {
        let lines = script(RULE, ROUTES, &[(2, "198.51.100.12")], true);
        let expected = [
            "route flush table 1073741826 proto 76",
            "route replace default via 198.51.100.12 dev eth1 onlink table 1073741826 proto 76",
            "route replace unreachable default metric 1000000 table 1073741826 proto 76",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_not_wanted_goes_when_it_may() {
        assert_eq!(script(RULE, ROUTES, &[], true), [""; 0]);
        let expected = [
            "rule del priority 10002 fwmark 0x30000/0x3fff0000 table 1073741826",
            "route flush table 1073741826 proto 76",
        ];
        assert_eq!(script(RULE, ROUTES, &[], false), expected);
        // A table whose rule was not added any more, and rules of another instance.
        assert_eq!(script("", ROUTES, &[], false), ["route flush table 1073741826 proto 76"]);
        let other = RULE.replace("1073741826", &(1_073_741_826 + 8192).to_string());
        assert_eq!(script(&other, "", &[], false), [""; 0]);
    }

    #[test]
    fn who_has_our_numbers_or_asks_for_our_bits_is_in_the_way() {
        let in_the_way = |rule: &str| {
            let present = PresentRoutes::parse(&[SYSTEM, RULE, rule, "\n"].concat(), "");
            present.in_the_way(0).map(|rule| rule.priority)
        };
        for harmless in [
            "",
            "100: from all fwmark 0x1 lookup 100",
            "100: from all fwmark 0x8000/0xc000 lookup 100",
            "100: from all fwmark 0x80000000/0x80000000 lookup 100",
            "9999: from 10.0.0.0/8 lookup 52",
            "18192: from all lookup 52",
        ] {
            assert_eq!(in_the_way(harmless), None, "{harmless}");
        }
        for (bad, priority) in [
            ("100: from all fwmark 0x10000/0x10000 lookup 100", 100),
            ("100: from all fwmark 0x30000/0xffff0000 lookup 100", 100),
            ("100: from all fwmark 0x30000 lookup 100", 100),
            ("10005: from all lookup 7", 10_005),
            ("50: from all lookup 1073741830", 50),
            // Another instance's: the same marks.
            ("10002: from all fwmark 0x30000/0x3fff0000 lookup 1073750018 proto 76", 10_002),
        ] {
            assert_eq!(in_the_way(bad), Some(priority), "{bad}");
        }
    }
}
