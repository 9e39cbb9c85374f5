//! The roles of processes.

use std::fmt;

/// The four kinds of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Root, trimmed.
    Supervisor,
    /// One per core, reads packets.
    Worker,
    /// Checks the backends.
    Prober,
    /// Shows metrics and status by HTTP.
    Exporter,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Supervisor => "supervisor",
            Role::Worker => "worker",
            Role::Prober => "prober",
            Role::Exporter => "exporter",
        })
    }
}
