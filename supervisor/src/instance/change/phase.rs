//! What an instance is doing, exactly one thing at a time, and what it was asked to do next.

use crate::children::exporter::ListenerChange;
use crate::handover::successor::{Successor, SuccessorStage};
use crate::instance::generation::Generation;
use loaded_netfilter::routes::Hops;
use std::fmt;
use std::mem;
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// What an instance is doing.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Its children start for the first time. TERM ends that.
    Starting,
    /// The same, beside workers of a killed supervisor. TERM waits until these are taken over, so that all end in order.
    AdoptingOrphans,
    /// It serves, and nothing is changing.
    Serving,
    /// It changes to another generation of the configuration.
    Reconfiguring(Reconfiguration),
    /// Another binary is about to take its place.
    Upgrading(Successor),
}

/// Asked for while another change was under way. Done when that is over: first what was ordered at run time
/// ([`crate::instance::operator::PendingAmendments`]), then the reload.
#[derive(Debug, Default)]
pub(crate) struct Postponed {
    pub(crate) reload: bool,
    pub(crate) upgrade: bool,
}

/// A change to another generation of the configuration.
#[derive(Debug)]
pub(crate) struct Reconfiguration {
    pub(crate) trigger: Trigger,
    /// For the log and the history, one line each.
    pub(crate) changes: Vec<String>,
    /// Routes of the next generation.
    pub(crate) hops: Hops,
    /// Where metrics are served by the next generation.
    pub(crate) listener: ListenerChange,
    pub(crate) stage: Stage,
}

/// How far a change of the configuration has come.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Workers of the next generation prepare, since this time. Giving up changes nothing yet.
    Preparing { next: Box<Generation>, since: Instant },
    /// The next generation is the current one; its workers take over, since this time.
    TakingOver { since: Instant },
}

/// What has triggered a change of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// HUP.
    Operator,
    /// A backend was added, removed or weighed at run time.
    Amendment,
    /// Nodes were discovered.
    Discovery,
    /// A backend or service that was removed has drained.
    Departure,
}

impl Phase {
    /// Whether a change is under way.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Self::Reconfiguring(_) | Self::Upgrading(_))
    }

    /// Whether it has not served yet.
    pub(crate) fn is_start(&self) -> bool {
        matches!(self, Self::Starting | Self::AdoptingOrphans)
    }

    /// Whether our workers end or have ended, so that a successor's can serve.
    pub(crate) fn has_given_way(&self) -> bool {
        matches!(self, Self::Upgrading(successor) if successor.stage() != SuccessorStage::Preparing)
    }

    /// Whether workers of the next generation prepare.
    pub(crate) fn is_preparing(&self) -> bool {
        matches!(self, Self::Reconfiguring(Reconfiguration { stage: Stage::Preparing { .. }, .. }))
    }

    pub(crate) fn successor(&self) -> Option<&Successor> {
        if let Self::Upgrading(successor) = self { Some(successor) } else { None }
    }

    /// The link to the successor, to wait on.
    pub(crate) fn link(&self) -> Option<BorrowedFd<'_>> {
        self.successor().map(Successor::link)
    }

    /// When a successor has taken too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.successor().map(Successor::deadline)
    }

    /// Ends a reconfiguration and goes on serving; `None` if none is under way.
    pub(crate) fn take_reconfiguration(&mut self) -> Option<Reconfiguration> {
        match mem::replace(self, Self::Serving) {
            Self::Reconfiguring(reconfiguration) => Some(reconfiguration),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Ends an upgrade and goes on serving; `None` if none is under way.
    pub(crate) fn take_successor(&mut self) -> Option<Successor> {
        match mem::replace(self, Self::Serving) {
            Self::Upgrading(successor) => Some(successor),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "reload",
            Self::Amendment => "run time",
            Self::Discovery => "discovery",
            Self::Departure => "departure",
        })
    }
}
