//! A look at this host, which need not be repeated as long as nothing has changed.

use super::{Host, parse_locals};
use crate::connected::ConnectedNetworks;
use crate::discovery::OwnNetworks;
use crate::hooks;
use crate::links::{Links, is_bridge_port, leads_out, reaches};
use crate::passage::Passages;
use crate::problem::{Problem, SETTINGS};
use crate::procfs;
use crate::route::parse_routes;
use loaded_config::plan::Plan;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

/// Bytes of a number of 64 bits with its sign and the end of the line.
const LONGEST: usize = 24;

/// What a look at the host has found, and the settings that it went by.
#[derive(Debug, Default)]
pub struct HostReport {
    /// What must change.
    pub problems: Vec<Problem>,
    /// By their paths below /proc/sys/net; `None`: there is no such setting.
    settings: BTreeMap<String, Option<i64>>,
}

impl HostReport {
    /// Looks at everything.
    ///
    /// # Errors
    /// If something is there and cannot be read, as for want of a file descriptor. What it would have said is not known.
    pub fn of(plan: &Plan) -> io::Result<Self> {
        let settings = RefCell::new(BTreeMap::new());
        let links = Links::read()?;
        let (passages, own_networks) = (RefCell::new(Passages::open()?), OwnNetworks::read());
        let host = Host {
            networks: ConnectedNetworks::read()?,
            own: links.holders.keys().copied().collect(),
            links,
            routes: parse_routes(&procfs::text("/proc/net/route")?),
            locals: parse_locals(&procfs::text("/proc/net/fib_trie")?),
            sysctl: &|key| *settings.borrow_mut().entry(key.to_owned()).or_insert_with(|| setting(key)),
            leads_out: &leads_out,
            reaches: &reaches,
            passes: &|passage| passages.borrow_mut().are_open(passage),
            network_around: &|address| own_networks.around(address),
            is_bridge_port: &is_bridge_port,
        };
        let mut problems = host.problems(plan);
        problems.extend(host.arrival(plan));
        problems.extend(host.passages(plan, &problems));
        let interfaces: BTreeSet<_> =
            host.links.holders.values().map(String::as_str).filter(|name| *name != "lo").collect();
        problems.extend(hooks::of_others(&interfaces));
        Ok(Self { problems, settings: settings.into_inner() })
    }

    /// Whether the settings that it went by are as they were. Of everything that it rests on these alone may change without an
    /// announcement ([`crate::HostEvents`]); there are a few for each interface, however many backends there are.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.settings.iter().all(|(key, value)| setting(key) == *value)
    }
}

/// `None`: this kernel, or this host, has no such setting. Read at once, for it is done every few seconds.
fn setting(key: &str) -> Option<i64> {
    let mut text = [0; LONGEST];
    let length = File::open(format!("{SETTINGS}/{key}")).and_then(|mut file| file.read(&mut text)).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()
}
