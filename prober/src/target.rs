//! A backend under check, and what is known of it.

use crate::health::Health;
use loaded_ipc::{BackendIndex, Cause};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// A backend, and what is known of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) backend: BackendIndex,
    /// Where pings go.
    pub(crate) address: IpAddr,
    /// Where connections and datagrams go: the address, or in mode "dsr" a virtual IP.
    pub(crate) destination: IpAddr,
    /// The marked socket for these in mode "dsr". Also `None` while a check uses it.
    pub(crate) marked: Option<OwnedFd>,
    /// Index of its [`crate::check::CheckPlan`].
    pub(crate) check: u16,
    pub(crate) health: Health,
    /// The result of the last check.
    pub(crate) cause: Cause,
    /// How long the last check took, microseconds.
    pub(crate) latency: u32,
    /// When the next measurement may be reported, microseconds.
    pub(crate) measure_from: u64,
    /// Whether it is up as far as checks have told the supervisor; `None` before the first result.
    pub(crate) reported: Option<bool>,
}
