//! What this instance has installed on the host: its netfilter rules, its routes by mark, and settings.

use crate::children::worker::Worker;
use crate::fastpath::{FastPath, Leftovers, Off, off};
use crate::roster::Roster;
use loaded_config::plan::Fast;
use loaded_control::Tuple;
use loaded_control::explain::Path;
use loaded_host::HostSettings;
use loaded_ipc::Explained;
use loaded_netfilter::routes::{Hops, Routes};
use loaded_netfilter::{self as rules, Installed, Missing, RuleSet};

/// What this instance has installed on the host.
pub(crate) struct HostState {
    /// `None` until the start is nearly over.
    rules: Option<Installed>,
    pub(crate) routes: Routes,
    /// Settings of the host that were written.
    pub(crate) settings: HostSettings,
    /// The kernel path, if there is one.
    pub(crate) fast: Option<FastPath>,
    /// Why it is not attached, or not there.
    fast_off: Off,
    /// What an earlier kernel path has left, while there is none that takes it over.
    leftovers: Leftovers,
}

impl HostState {
    pub(crate) fn new(routes: Routes, settings: HostSettings) -> Self {
        Self { rules: None, routes, settings, fast: None, fast_off: Off::NotWanted, leftovers: Leftovers::default() }
    }

    /// Takes over the kernel path, or the reason why there is none.
    pub(crate) fn set_kernel_path(&mut self, path: Result<FastPath, Off>) {
        match path {
            Ok(path) => self.fast = Some(path),
            Err(why) => self.fast_off = why,
        }
    }

    /// Attaches the kernel path, or detaches it, by what the configuration says now.
    pub(crate) fn follow_wish(&mut self, fast: Fast, roster: &Roster) {
        match (&mut self.fast, fast) {
            (Some(path), Fast::Auto) if !path.is_open() => path.open(roster),
            (Some(path), Fast::Auto) => path.follow(roster),
            (Some(path), Fast::Off) => {
                path.close();
                self.fast_off = Off::NotWanted;
            }
            (None, Fast::Off) => self.fast_off = Off::NotWanted,
            (None, Fast::Auto) if self.fast_off == Off::NotWanted => self.fast_off = Off::StartedWithout.told(),
            (None, Fast::Auto) => {}
        }
    }

    /// Why the kernel path is not attached.
    pub(crate) fn fast_off(&self) -> Option<&Off> {
        self.fast.as_ref().is_none_or(|path| !path.is_open()).then_some(&self.fast_off)
    }

    /// Which path a packet takes that its worker has explained.
    pub(crate) fn path_of(&mut self, tuple: Tuple, explained: &Explained, worker: &Worker, roster: &Roster) -> Path {
        match &mut self.fast {
            Some(path) if path.is_open() => path.next(tuple, explained, worker, roster),
            _ => off(&self.fast_off),
        }
    }

    /// Detaches what an earlier instance of this base has attached; what that needed is removed at the end.
    pub(crate) fn detach_leftovers(&mut self, base: u16) {
        self.take_over(Leftovers::detach(base));
    }

    /// What an earlier instance has left is this one's to remove.
    pub(crate) fn take_over(&mut self, leftovers: Leftovers) {
        match &mut self.fast {
            Some(fast) => fast.take_over(leftovers),
            None => self.leftovers = std::mem::take(&mut self.leftovers).and(leftovers),
        }
    }

    /// Interfaces whose `clsact` is this instance's to remove.
    pub(crate) fn clsacts(&self) -> Vec<u32> {
        self.fast.as_ref().map_or_else(|| self.leftovers.clsacts(), FastPath::clsacts)
    }

    /// Detaches the kernel path, and removes what is left of earlier ones.
    pub(crate) fn end_kernel_path(&mut self, base: u16) {
        if let Some(fast) = &mut self.fast {
            fast.detach();
        }
        std::mem::take(&mut self.leftovers).remove(base);
    }

    /// Takes over rules that were just installed.
    pub(crate) fn set_rules(&mut self, installed: Installed) {
        for note in installed.notes() {
            log::warn!("{note}");
        }
        self.rules = Some(installed);
    }

    /// Replaces the rules, if there are any.
    ///
    /// # Errors
    /// If they cannot be replaced; the old ones stay.
    pub(crate) fn update_rules(&mut self, rules: &RuleSet) -> Result<(), rules::Error> {
        self.rules.as_mut().map_or(Ok(()), |installed| installed.update(rules))
    }

    /// Whether iptables works on nftables here.
    pub(crate) fn is_nft(&self) -> bool {
        self.rules.as_ref().is_some_and(Installed::is_nft)
    }

    /// What somebody else has removed of our rules.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn missing_rules(&mut self) -> Result<Vec<Missing>, rules::Error> {
        self.rules.as_mut().map_or_else(|| Ok(Vec::new()), Installed::missing)
    }

    /// Packets in a backend's name that the rules have refused since they were written; `None` if that cannot be read.
    pub(crate) fn refused_replies(&self) -> Option<u64> {
        self.rules.as_ref()?.refused_replies().ok()
    }

    /// Puts back every setting that was written, unless another instance may need it. Returns what became of each.
    pub(crate) fn put_settings_back(&mut self) -> Vec<String> {
        let others = self.rules.as_ref().map_or_else(Vec::new, others);
        self.settings.put_back(&others)
    }

    /// Writes the rules again.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn put_rules_back(&mut self) -> Result<(), rules::Error> {
        self.rules.as_mut().map_or(Ok(()), Installed::put_back)
    }

    /// The rules, which are from now on the caller's to remove.
    pub(crate) fn take_rules(&mut self) -> Option<Installed> {
        self.rules.take()
    }

    /// Makes `hops` the only routes; on an error, which the log shows, it is tried again later.
    pub(crate) fn settle_routes(&mut self, hops: &Hops) {
        if let Err(error) = self.routes.settle(hops) {
            log::error!("{error}; will try again");
        }
    }

    /// Removes the routes; an error only shows in the log.
    pub(crate) fn remove_routes(&mut self) {
        if let Err(error) = self.routes.remove() {
            log::warn!("{error}");
        }
    }

    /// Checks that the routes are still there, and removes what a failed successor has added.
    pub(crate) fn mend_routes(&mut self) {
        self.routes.mend();
    }
}

/// Queue bases of other instances that serve here.
pub(super) fn others(rules: &Installed) -> Vec<u16> {
    rules.others().unwrap_or_else(|error| {
        log::warn!("whether another instance serves here cannot be told: {error}");
        Vec::new()
    })
}
