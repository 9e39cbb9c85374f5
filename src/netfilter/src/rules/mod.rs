//! Netfilter rules: what hands packets to the workers. The supervisor owns chains named `LOADED-<queue base>…` in the
//! raw table of each family and a jump to them in PREROUTING and OUTPUT; it adds and removes exactly those, in one transaction
//! a family, and never flushes what is not its own.

mod apply;
mod bpf;
mod present;
mod reach;
mod steer;
mod text;
mod tools;
mod traffic;

pub use apply::{Installed, clean_stale};
pub use reach::{Reach, Served};
pub use steer::{Keys, Steering};
pub use tools::Tools;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

/// An address family, as iptables divides its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// iptables
    V4,
    /// ip6tables
    V6,
}

impl Family {
    /// Both, in the order of installation.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    /// What nft calls it.
    fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// What went wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not in any of the directories that are searched.
    #[error("{name} not found; install the package iptables")]
    ToolMissing {
        /// Its file name.
        name: &'static str,
    },
    /// The operating system would not run a program.
    #[error("{}: cannot {act}: {source}", program.display())]
    Run {
        /// Path of the program.
        program: PathBuf,
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with an error; nothing has changed, for each call is one transaction.
    #[error("{command}: {status}: {said}")]
    Failed {
        /// Path and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        said: String,
    },
    /// A program did not end.
    #[error("{}: no end within {seconds} s, killed; does another program hold /run/xtables.lock?", program.display())]
    Timeout {
        /// Path of the program.
        program: PathBuf,
        /// The patience it had.
        seconds: u64,
    },
    /// A family's rules could not be changed.
    #[error("{family} rules: cannot {act}: {source}")]
    Rules {
        /// Which family.
        family: Family,
        /// install, remove …
        act: &'static str,
        /// Why not.
        source: Box<Error>,
    },
}

/// One chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    name: String,
    rules: Vec<String>,
}

/// Rules as desired state; [`Installed`] is the act. Two are equal when they treat every packet alike, in whatever order
/// and however often a [`Reach`] names things: an update to an equal one can be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    base: u16,
    /// Where the kernel puts packets together first.
    chains: [Vec<Chain>; 2],
    /// Where it does not.
    with_pieces: [Vec<Chain>; 2],
    /// Whether it is to do it.
    defrag: apply::Defrag,
}

impl RuleSet {
    /// `queues` holds one queue number a worker, in the order of the workers, at least one. A family without a VIP gets
    /// no rules.
    ///
    /// # Panics
    /// If `queues` is empty.
    #[must_use]
    pub fn new(reach: &Reach, queues: &[u16], steering: &Steering) -> Self {
        assert!(!queues.is_empty(), "no worker, no rules");
        let chains = |defrag| {
            Family::ALL.map(|family| {
                let wanted = reach.vips().any(|vip| family.has(vip));
                if wanted { text::chains(reach, family, queues, steering, defrag) } else { Vec::new() }
            })
        };
        let (on, off) = (apply::Defrag::On, apply::Defrag::Off);
        let defrag = if reach.defragment { on } else { off };
        Self { base: reach.base, chains: chains(on), with_pieces: chains(off), defrag }
    }

    /// No rules at all.
    fn nothing(base: u16) -> Self {
        let none = || [Vec::new(), Vec::new()];
        Self { base, chains: none(), with_pieces: none(), defrag: apply::Defrag::Off }
    }

    /// What is fed to `iptables-restore --noflush` (or `ip6tables-restore`) on a host that has nothing of ours.
    #[must_use]
    pub fn text(&self, family: Family) -> Option<String> {
        let nothing = present::Present::default();
        (!self.chains(family, self.defrag).is_empty()).then(|| apply::script(self, family, &nothing, self.defrag))
    }

    fn chains(&self, family: Family, defrag: apply::Defrag) -> &[Chain] {
        let chains = if defrag == apply::Defrag::On { &self.chains } else { &self.with_pieces };
        &chains[family as usize]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
