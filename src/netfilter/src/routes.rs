//! Policy routing by mark, for mode "dsr", where backends answer clients directly: a worker marks a packet with its backend's
//! number, a routing rule matches the mark, and the rule's table has the backend as its only next hop. So the packet
//! reaches the backend's link address with its IP addresses untouched.
//!
//! The current state is read first and only differences are applied, so one function adds, repairs and removes, including
//! what a killed instance left behind. Our rules and routes carry a protocol number of our own and use tables of our own.

mod hop;
mod text;

use crate::{Family, Tools};
use std::net::IpAddr;
use text::{PROTOCOL, PresentRoutes};

pub use hop::{Hop, Hops};

/// Why the routes could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `ip` was not found in the directories searched.
    #[error("ip not found, and mode \"dsr\" routes by it; install the package iproute2")]
    ToolMissing,
    /// `ip` could not be run, or failed.
    #[error("{family} routes of mode \"dsr\": {source}")]
    Failed {
        /// Which family.
        family: Family,
        /// The cause.
        source: crate::Error,
    },
    /// Somebody else's routing rule is in the way.
    #[error(
        "the {family} routing rule \"{rule}\" is in the way of mode \"dsr\", which needs the priorities 10000 to 18191, \
         tables of its own and the bits 0x3fff0000 of the mark (one instance of a host can have it): \
         ip -{} rule del priority {priority}",
        if *family == Family::V4 { 4 } else { 6 }
    )]
    Taken {
        /// Which family.
        family: Family,
        /// As `ip` shows it.
        rule: String,
        /// Its priority.
        priority: u32,
    },
    /// The backend is in no network this host is connected to.
    #[error(
        "backend {0} is not in a network of this host; mode \"dsr\" sends to the backend's link address, and no router can \
         be between"
    )]
    NotConnected(IpAddr),
    /// The host's routes cannot be read.
    #[error("mode \"dsr\": this host's routes cannot be read: {0}")]
    Unread(std::io::Error),
}

/// The routes of one instance. Dropping this leaves them in place.
#[derive(Debug)]
pub struct Routes {
    base: u16,
    tools: Tools,
    hops: Hops,
    /// More may be there: a predecessor made it.
    unsure: bool,
    /// The last error while repairing, so that it is logged once.
    trouble: Option<String>,
}

impl Routes {
    /// None yet. `base` is the queue base, which tells one instance from another.
    #[must_use]
    pub fn new(base: u16, tools: Tools) -> Self {
        Self { base, tools, hops: Hops::new(), unsure: false, trouble: None }
    }

    /// Removes what a killed instance with this queue base left behind.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn clean_stale(&mut self) -> Result<(), Error> {
        self.hops.clear();
        if self.tools.has_ip() { self.apply(false) } else { Ok(()) }
    }

    /// A predecessor's routes are in use; [`Routes::settle`] sorts them out later.
    pub fn inherit(&mut self) {
        self.unsure = true;
    }

    /// Adds the missing hops. Call before a worker uses their marks.
    ///
    /// # Errors
    /// If `ip` fails; what was added is then removed again as far as possible.
    pub fn extend(&mut self, more: &Hops) -> Result<(), Error> {
        if more.is_empty() {
            return Ok(());
        }
        let before = self.hops.clone();
        self.hops.extend(more.iter().map(|(index, hop)| (*index, hop.clone())));
        self.apply(true).inspect_err(|_| {
            self.hops = before;
            self.mend();
        })
    }

    /// Removes all other hops. Call once no worker uses their marks.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn settle(&mut self, hops: &Hops) -> Result<(), Error> {
        if self.hops == *hops && !self.unsure {
            return Ok(());
        }
        self.hops.clone_from(hops);
        self.apply(false)?;
        self.unsure = false;
        Ok(())
    }

    /// Restores what others removed: an interface that went down has lost its routes, and some network managers delete
    /// every rule they did not make.
    pub fn mend(&mut self) {
        let trouble = self.apply(false).err().map(|error| error.to_string());
        if let Some(text) = trouble.as_ref().filter(|text| self.trouble.as_ref() != Some(*text)) {
            log::error!("{text}; will try again");
        }
        self.trouble = trouble;
    }

    /// Whether nothing is routed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// Removes everything.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.settle(&Hops::new())
    }

    fn apply(&self, keep: bool) -> Result<(), Error> {
        let mut first = Ok(());
        for family in Family::ALL {
            first = first.and(self.apply_to(family, keep));
        }
        first
    }

    fn apply_to(&self, family: Family, keep: bool) -> Result<(), Error> {
        let wanted = self.hops.values().any(|hop| family.has(hop.address));
        if !self.tools.has_ip() {
            return if wanted { Err(Error::ToolMissing) } else { Ok(()) };
        }
        let fail = |source| Error::Failed { family, source };
        let present = match self.present(family) {
            // A host without this family has nothing of ours in it.
            Err(_) if !wanted => return Ok(()),
            present => present.map_err(fail)?,
        };
        if wanted && let Some(rule) = present.in_the_way(self.base) {
            return Err(Error::Taken { family, rule: rule.text.clone(), priority: rule.priority });
        }
        let script = present.script(self.base, family, &self.hops, keep);
        if script.is_empty() {
            return Ok(());
        }
        match wanted {
            true => self.tools.ip(family, &["-batch", "-"], &script).map(drop).map_err(fail),
            // Some of it may have disappeared by itself; all that counts is that nothing is left.
            false => {
                let done = self.tools.ip(family, &["-force", "-batch", "-"], &script);
                match self.present(family).map_err(fail)?.has_ours(self.base) {
                    true => done.map(drop).map_err(fail),
                    false => Ok(()),
                }
            }
        }
    }

    fn present(&self, family: Family) -> Result<PresentRoutes, crate::Error> {
        let rules = self.tools.ip(family, &["-N", "rule", "show"], "")?;
        let protocol = PROTOCOL.to_string();
        let routes = self.tools.ip(family, &["-N", "-o", "route", "show", "table", "all", "proto", &protocol], "")?;
        Ok(PresentRoutes::parse(&rules, &routes))
    }
}
