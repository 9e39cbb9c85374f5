#[cfg(feature = "load")]
use nix::errno::Errno;
use std::io;
use thiserror::Error;

/// What can go wrong while the program is loaded or its maps are opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A map could not be mapped.
    #[error("kernel path: map {what}: {source}")]
    Map {
        /// Which map.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The addresses of VIPs and backends do not fit into the program's table of them.
    #[error("kernel path: {addresses} addresses of virtual IPs and backends are too many or too alike for its table")]
    Addresses {
        /// How many.
        addresses: usize,
    },
    /// A number is too high.
    #[error("kernel path: {what} {number} is not below {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number.
        number: usize,
        /// The first one that does not fit.
        limit: usize,
    },
    /// The kernel or the loader refused something.
    #[error("kernel path: {act}: {reason}")]
    Kernel {
        /// The operation.
        act: &'static str,
        /// The whole chain of reasons.
        reason: String,
    },
}

impl Error {
    /// The kernel has refused this act.
    #[cfg(feature = "load")]
    pub(crate) fn refused(act: &'static str, errno: Errno) -> Self {
        Self::Kernel { act, reason: io::Error::from(errno).to_string() }
    }
}
