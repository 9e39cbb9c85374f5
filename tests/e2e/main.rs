//! The release binary from outside: a client, a balancer and three backends in network namespaces of their own, with
//! real nginx behind the virtual IP. Each test has a lab of its own (`scripts/lab`, under a second) and takes it down
//! at its end, also when it fails. They measure and count, so run them one at a time:
//!
//! ```text
//! LOADED_CI=1 cargo test --test e2e -- --test-threads=1     as root; target/release/loaded must be built
//! ```
//!
//! `LOADED_BIN` names another binary, `E2E_WRK_SECONDS` (5) and `E2E_DOWNLOAD_BYTES` (the whole 1 GiB) are the sizes of
//! the load, `E2E_EXPLAIN_TUPLES` (10,000) that of the comparison in `explain`, `E2E_FLOOD` (10,000,000) that of
//! `flood`. With `LOADED_CI` set, what cannot run is a failure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../generate/mod.rs"]
mod generate;
mod lab;
mod loaded;
mod net;
mod packet;
mod routers;
mod wire;

mod balance;
mod checked;
mod control;
mod discover;
mod doctor;
mod double;
mod drain;
mod dsr;
mod explain;
mod failover;
mod failures;
mod fence;
mod flood;
mod fragments;
mod generated;
mod gone;
mod hostile;
mod hung;
mod icmp;
mod idle;
mod jail;
mod judged;
mod killed;
mod life;
mod load;
mod mtu;
mod offload;
mod poison;
mod policies;
mod privacy;
mod prober;
mod protocols;
mod refusal;
mod reload;
mod reused;
mod rules;
mod scarce;
mod spread;
mod storm;
mod survive;
mod taken;
mod trace;
mod upgrade;
mod witness;
