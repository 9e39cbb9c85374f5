//! Netfilter rules: what hands packets to the workers. The supervisor owns chains named `LOADED-<queue base>…` in the
//! raw table of each family and a jump to them in PREROUTING and OUTPUT; it adds and removes exactly those, in one transaction
//! a family, and never flushes what is not its own.

mod apply;
mod bpf;
mod chain;
mod hits;
mod missing;
mod present;
mod reach;
mod refused;
mod removal;
mod rule_set;
mod steer;
mod traffic;
mod write;

pub use apply::{Installed, served_by_another};
pub use missing::{Missing, unhooked};
pub use reach::{Reach, Served};
pub use refused::{refused_replies, refused_replies_text};
pub use removal::clean_stale;
pub use rule_set::RuleSet;
pub use steer::{HashKeys, Steering};

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
