//! Firewalls of others: reads the rules of nftables and iptables, whatever hook and priority they have, and says what they make
//! of balanced packets. Changes nothing.
//!
//! Each rule is asked what it does to the first packet of a connection on each leg of its round trip ([`mod@judge`]): from the
//! client to the worker, from the worker to the backend, and back. The answer is a [`truth::Truth`], for much is not known: the
//! client's address, or what a match means that this reader does not know. Only what drops every such packet for sure is told as
//! a loss; what cannot be read is told as that.
//!
//! ```text
//! read     runs iptables-save and nft, and bounds what they may say
//! save     text of iptables-save → rules        nft   JSON of nft → rules
//! rule     tables, chains, rules, verdicts      matches   what a rule asks of a packet
//! packet   the packets that rules are asked about
//! walk     the way of one packet through one base chain
//! judge    all packets of a plan through all base chains → problems
//! ```
#![forbid(unsafe_code)]

mod judge;
mod matches;
mod nft;
mod packet;
mod read;
mod rule;
mod save;
mod truth;
mod walk;

pub use judge::judge;
pub use read::Firewall;
