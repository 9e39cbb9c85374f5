//! `loaded backend`: orders about one backend.

use clap::{Args, Subcommand};
use loaded_config::duration;
use loaded_config::plan::{MAX_DRAIN, MAX_WEIGHT};
use loaded_control::{Action, AmendAction, Request};
use loaded_ipc::Destination;

/// An order about one backend.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum BackendOrder {
    /// Add one to a service, until a file says otherwise; returns when workers use it, as its checks allow
    Add {
        /// Where.
        #[command(flatten)]
        backend: MemberLine,
        /// Its share relative to the others of the service [default: 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WEIGHT)))]
        weight: Option<u16>,
        /// Use it only while no other can be used
        #[arg(long)]
        backup: bool,
    },
    /// Remove one from a service, until a file says otherwise; its flows go on for the time of the key drain
    Remove {
        /// Where.
        #[command(flatten)]
        backend: MemberLine,
    },
    /// Change its weight, until a file says otherwise
    Weight {
        /// Where.
        #[command(flatten)]
        backend: MemberLine,
        /// Its share relative to the others of the service
        #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WEIGHT)))]
        weight: u16,
    },
    /// Give it no new flows; its flows go on until the deadline
    Drain {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
        /// How long its flows may go on: 90s, 5m, 2h, at most 7d [default: the configuration's drain]
        #[arg(long, value_name = "TIME", value_parser = deadline)]
        deadline: Option<u32>,
    },
    /// Use it again, as its checks allow
    Enable {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
    },
    /// Give it no flows at all; its flows are treated as if it were down
    Disable {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
    },
}

/// The backend an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackendLine {
    #[allow(rustdoc::broken_intra_doc_links, reason = "what --help says")]
    /// Its address; with a port, only the backend on that port: 198.51.100.11:8080, [2001:db8::11]:8080
    #[arg(value_name = "ADDR[:PORT]")]
    pub(crate) named: Destination,
    /// In this service only; without it, in every service that has the backend
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

/// A backend as a member of a service.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct MemberLine {
    /// The service's name
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// The backend's address, and the port that its packets get if that is not the service's: 198.51.100.11:8080
    #[arg(value_name = "ADDR[:PORT]")]
    pub(crate) named: Destination,
}

impl BackendOrder {
    /// The order as the instance takes it.
    pub(crate) fn request(self) -> Request {
        let backend = |BackendLine { named: Destination { address, port }, service }, action| Request::Backend {
            action,
            address,
            port,
            service,
        };
        let member = |MemberLine { service, named: Destination { address, port } }, act| Request::Amend {
            service,
            act,
            address,
            port,
        };
        match self {
            Self::Add { backend, weight, backup } => member(backend, AmendAction::Add { weight, backup }),
            Self::Remove { backend } => member(backend, AmendAction::Remove),
            Self::Weight { backend, weight } => member(backend, AmendAction::Weight(weight)),
            Self::Drain { backend: line, deadline } => backend(line, Action::Drain { deadline }),
            Self::Enable { backend: line } => backend(line, Action::Enable),
            Self::Disable { backend: line } => backend(line, Action::Disable),
        }
    }
}

/// Reads a duration such as `90s`, `5m`, `2h` or `1d`; in seconds.
pub(super) fn deadline(text: &str) -> Result<u32, String> {
    duration::seconds(text, 1..=MAX_DRAIN)
}
