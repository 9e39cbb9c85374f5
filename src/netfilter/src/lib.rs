//! Netfilter and routing: the rules that hand packets to the workers, which worker a packet goes to, and the routes of
//! mode "dsr". Knows what others have hooked in where packets come in; never which backend is up, nor who runs.
#![forbid(unsafe_code)]

mod error;
mod family;
pub mod routes;
mod rules;
mod tools;
pub mod trial;

pub use error::Error;
pub use family::Family;
pub use rules::{HashKeys, Installed, Reach, RuleSet, Served, Steering, clean_stale};
pub use tools::Tools;
