//! This host as the kernel reports it: interfaces, addresses, neighbours, routes, settings, and whom a sandbox has killed. Knows
//! what is there and what a plan needs of it; never changes anything but settings ([`HostSettings`]), and never
//! knows what runs, but for the other instances that it is told of when settings are put back.
#![forbid(unsafe_code)]

mod audit;
mod check;
mod connected;
mod cores;
mod discovery;
mod events;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod fixture;
mod hooks;
mod interfaces;
mod links;
mod neighbours;
mod next_hops;
mod own_ports;
mod passage;
mod paths;
mod problem;
mod procfs;
mod route;
mod settings;
mod shared;

pub use audit::AuditLog;
pub use check::HostReport;
pub use connected::ConnectedNetworks;
pub use cores::available_cores;
pub use discovery::{OwnNetworks, check_discovery, own_addresses, source_of};
pub use events::{HostChanges, HostEvents};
pub use interfaces::{Interface, LinkHeader, reachable_interfaces};
pub use neighbours::{Neighbour, NeighbourEvents};
pub use next_hops::{SilentNeighbour, silent_neighbours, silent_neighbours_now};
pub use own_ports::own_ports;
pub use paths::{ClientPaths, Paths};
pub use problem::{Problem, SETTINGS, Setting, Severity, sysctl_name};
pub use settings::{HostSettings, WrittenSetting};
pub use shared::shared_interfaces;
