//! Reads the rules of others as they are now.

use crate::rule::Table;
use crate::{nft, save};
use loaded_netfilter::{Family, Tools};
use std::collections::BTreeSet;

/// The rules of nftables and iptables in this network namespace.
#[derive(Debug, Default)]
pub struct Firewall {
    pub(crate) tables: Vec<Table>,
    /// What could not be read, and why.
    pub(crate) unread: Vec<String>,
}

/// Longest listing that is read, bytes; some 50,000 rules.
const LONGEST: usize = 16 << 20;

impl Firewall {
    /// Reads all rules, by running iptables-save, ip6tables-save and, where it is installed, nft. `base`: our queue base, by which
    /// our own chains are known. `owned`: the queues that somebody reads; `None`: not known.
    #[must_use]
    pub fn read(tools: &Tools, base: Option<u16>, owned: Option<&BTreeSet<u16>>) -> Self {
        let mut this = Self::read_rules(tools, base);
        this.tables.iter_mut().for_each(|table| table.know_queues(owned));
        this
    }

    fn read_rules(tools: &Tools, base: Option<u16>) -> Self {
        let mut this = Self::default();
        let saved = Family::ALL.map(|family| match tools.save(family) {
            Ok(saved) => saved,
            Err(error) => {
                this.unread.push(format!("rules of {family} could not be read: {error}"));
                String::new()
            }
        });
        for (family, saved) in Family::ALL.into_iter().zip(&saved) {
            if saved.len() > LONGEST {
                this.unread.push(format!("{family} has more rules than are examined: send a request"));
            } else {
                this.tables.extend(save::tables(family, saved, base));
            }
        }
        let is_shown = |family: Family, table: &str| {
            saved[family as usize].lines().any(|line| line.strip_prefix('*') == Some(table))
        };
        match tools.nft(&["-s", "-j", "list", "ruleset"]) {
            None => {}
            Some(Ok(listed)) if listed.len() > LONGEST => {
                this.unread.push("nftables has more rules than are examined: send a request".to_owned());
            }
            Some(Ok(listed)) => match nft::tables(&listed, is_shown) {
                Ok(mut tables) => {
                    if tables.iter().any(nft::lacks_devices)
                        && let Some(Ok(chains)) = tools.nft(&["list", "chains"])
                    {
                        nft::add_devices(&mut tables, &chains);
                    }
                    this.tables.extend(tables);
                }
                Err(error) => this.unread.push(format!("what nft lists could not be read: {error}")),
            },
            Some(Err(error)) => this.unread.push(format!("rules of nftables could not be read: {error}")),
        }
        this
    }

    #[cfg(test)]
    pub(crate) fn of(mut tables: Vec<Table>) -> Self {
        tables.iter_mut().for_each(|table| table.know_queues(Some(&BTreeSet::from([7]))));
        Self { tables, unread: Vec::new() }
    }
}
