//! Why the supervisor cannot serve. Each text names the object and the act.

use loaded_config::ConfigError;
use loaded_config::plan::CoresError;
use loaded_queue::OwnerError;
use loaded_sandbox::SandboxError;
use std::io;

/// An error of the supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Started by another user.
    #[error("loaded must be started as root: it opens queues, installs rules and starts workers as another user")]
    NotRoot,
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Cores that the configuration names do not exist or may not be used.
    #[error("{0}")]
    Cores(#[from] CoresError),
    /// The host is not set up as it has to be, for each of these reasons.
    #[error("{}", .0.join("; "))]
    Host(Vec<String>),
    /// The sandbox, or what it needs.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// Taking over or giving way, the journal, or a queue that somebody else answers.
    #[error("{0}")]
    Handover(#[from] loaded_handover::Error),
    /// Another instance serves a virtual IP of this one.
    #[error(
        "vip {vip} is served by another instance here, with the queue base {base}, and packets can go to one alone: stop it, or \
         take the address out of one of the configurations"
    )]
    VipTaken {
        /// The virtual IP.
        vip: std::net::IpAddr,
        /// The queue base of the other instance.
        base: u16,
    },
    /// A queue cannot be opened.
    #[error("{0}")]
    Queue(OwnerError),
    /// Netfilter rules.
    #[error("{0}")]
    Rules(#[from] loaded_netfilter::Error),
    /// Routes by mark.
    #[error("{0}")]
    Routes(#[from] loaded_netfilter::routes::Error),
    /// The kernel path.
    #[error("{0}")]
    FastPath(#[from] loaded_fastpath::Error),
    /// A child cannot be started or told.
    #[error("{0}")]
    Children(#[from] loaded_children::Error),
    /// A child has ended before it served.
    #[error("{0}")]
    ChildFailed(String),
    /// A reload asks for what only a restart can change.
    #[error("{0}")]
    Immutable(String),
    /// A reload asks for more at once than there are numbers.
    #[error("{0}")]
    Full(String),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] loaded_control::ControlError),
    /// The group that may read does not exist.
    #[error("monitor_group: {0}")]
    Monitors(io::Error),
    /// This process: PID file, signals, becoming a daemon.
    #[error("{0}")]
    Process(#[from] loaded_process::Error),
    /// A signal has ended the start.
    #[error("ended by a signal while starting")]
    Interrupted,
    /// The kernel has refused something.
    #[error("{act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl Error {
    /// Each reason by itself: mistakes in files with their lines, and what the host lacks.
    #[must_use]
    pub fn reports(&self) -> Vec<String> {
        match self {
            Self::Config(error) => error.reports(),
            Self::Host(reasons) => reasons.clone(),
            _ => vec![self.to_string()],
        }
    }
}

impl From<crate::roster::NumbersExhausted> for Error {
    fn from(exhausted: crate::roster::NumbersExhausted) -> Self {
        Self::Full(exhausted.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_line_at_a_start_and_all_have_one_in_a_status() {
        let error = Error::Host(vec!["eth0 is down".to_owned(), "forwarding is off".to_owned()]);
        assert_eq!(error.to_string(), "eth0 is down; forwarding is off");
        assert_eq!(error.reports(), ["eth0 is down", "forwarding is off"]);
        assert_eq!(Error::NotRoot.reports(), [Error::NotRoot.to_string()]);
    }
}
