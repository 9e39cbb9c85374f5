//! Netfilter and routing: the rules that hand packets to the workers, which worker a packet goes to, and the routes of
//! mode "dsr". Knows what is hooked into netfilter, by us and by others; never knows which backend is up or which
//! process runs.
#![forbid(unsafe_code)]

mod error;
mod events;
mod family;
pub mod routes;
mod rules;
mod tools;
pub mod trial;

pub use error::Error;
pub use events::{Changes, Events};
pub use family::Family;
pub use rules::{
    HashKeys, Installed, Missing, Reach, RuleSet, Served, Steering, clean_stale, refused_replies, refused_replies_text,
    served_by_another, unhooked,
};
pub use tools::Tools;
