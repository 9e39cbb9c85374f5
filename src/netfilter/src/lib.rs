//! Netfilter and routing: the rules that hand packets to the workers, which worker a packet goes to, and the routes of
//! mode "dsr". Knows what others have hooked in where packets come in; never which backend is up, nor who runs.
#![forbid(unsafe_code)]

pub mod routes;
mod rules;
pub mod trial;

pub use rules::{Error, Family, Installed, Keys, Reach, RuleSet, Served, Steering, Tools, clean_stale};
