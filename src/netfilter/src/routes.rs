//! Routes by mark, for backends that answer clients themselves (mode "dsr"): a worker marks a packet with the number of
//! its backend, a routing rule asks for the mark, and the table it names has one next hop, the backend. So the packet
//! reaches the backend's link address with its own addresses untouched.
//!
//! What is there is read first, and only what differs is changed: the same act adds, mends and removes, also what a
//! killed instance has left. Everything of ours has a protocol number and tables of our own.

mod text;

use crate::{Family, Tools};
use std::collections::BTreeMap;
use std::net::IpAddr;
use text::{PROTOCOL, PresentRoutes};

/// What went wrong with the routes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not in any of the directories that are searched.
    #[error("ip not found, and mode \"dsr\" routes by it; install the package iproute2")]
    ToolMissing,
    /// The program would not run, or failed.
    #[error("{family} routes of mode \"dsr\": {source}")]
    Failed {
        /// Which family.
        family: Family,
        /// Why.
        source: crate::Error,
    },
    /// Somebody else's rule.
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
        /// Where it is.
        priority: u32,
    },
    /// No network of this host has the backend.
    #[error(
        "backend {0} is not in a network of this host; mode \"dsr\" sends to the backend's link address, and no router can \
         be between"
    )]
    NotConnected(IpAddr),
}

/// Where packets with a mark go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The backend.
    pub address: IpAddr,
    /// The interface of its network.
    pub interface: String,
}

/// Backends by their number.
pub type Hops = BTreeMap<u16, Hop>;

/// The routes of one instance. Dropping this leaves them there.
#[derive(Debug)]
pub struct Routes {
    base: u16,
    tools: Tools,
    hops: Hops,
    /// What is there may be more: somebody before us has made it.
    unsure: bool,
    /// The last trouble with mending, so that it is told once.
    trouble: Option<String>,
}

impl Routes {
    /// None yet. `base` is the queue base, which tells one instance from another.
    #[must_use]
    pub fn new(base: u16, tools: Tools) -> Self {
        Self { base, tools, hops: Hops::new(), unsure: false, trouble: None }
    }

    /// Takes out what a killed instance with this queue base has left and nobody wants.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn clean_stale(&mut self) -> Result<(), Error> {
        self.hops.clear();
        if self.tools.has_ip() { self.apply(false) } else { Ok(()) }
    }

    /// Somebody else's are in use, and are settled later.
    pub fn inherit(&mut self) {
        self.unsure = true;
    }

    /// Adds what is not there. To be done before a worker uses these marks.
    ///
    /// # Errors
    /// Then what was added is taken back as far as possible.
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

    /// Removes what is not among these. To be done when no worker uses other marks.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn settle(&mut self, hops: &Hops) -> Result<(), Error> {
        if self.hops == *hops && !self.unsure {
            return Ok(());
        }
        self.hops.clone_from(hops);
        self.apply(false)?;
        self.unsure = false;
        Ok(())
    }

    /// Puts back what others have taken away: an interface that was down has lost its routes, and some managers of
    /// networks remove every rule that they have not made.
    pub fn mend(&mut self) {
        let trouble = self.apply(false).err().map(|error| error.to_string());
        if let Some(text) = trouble.as_ref().filter(|text| self.trouble.as_ref() != Some(*text)) {
            log::error!("{text}; to be tried again");
        }
        self.trouble = trouble;
    }

    /// Whether nothing is routed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hops.is_empty()
    }

    /// Takes everything out.
    ///
    /// # Errors
    /// If that cannot be done.
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
            // A host without the other family has nothing of ours there.
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
            // What goes may have gone by itself: what counts is that nothing is left.
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
