//! The release binary from outside: a client, a balancer and three backends in network namespaces of their own, with
//! real nginx behind the virtual IP. Each test has a lab of its own (`scripts/lab`, under a second) and takes it down
//! at its end, also when it fails. Tests that do not measure share the machine, four labs at once (`E2E_LABS`); those that
//! measure times but hardly use it come next, four at once; each of the others has it to itself (`rig/gate.rs`). So give
//! each test a thread to wait on:
//!
//! ```text
//! LOADED_CI=1 cargo test --test e2e -- --test-threads=500     as root; target/release/loaded must be built
//! ```
//!
//! `LOADED_BIN` names another binary, `E2E_WRK_SECONDS` (5) and `E2E_DOWNLOAD_BYTES` (the whole 1 GiB) are the sizes of
//! the load, `E2E_EXPLAIN_TUPLES` (10,000) that of the comparison in `explain`, `E2E_FLOOD` (10,000,000) that of
//! `flood`, `E2E_ATTACK` (1) how many times as much `security::forged` sends, `E2E_IDLE` (6) the seconds of `host::idle`.
//! `E2E_TAKEOVERS` (1) is how often tests of several balancers run, `E2E_CRASHES` (1) how many crashes `lifecycle::beside_conntrackd`
//! compares, `E2E_FORGED` (50,000) the packets in backends' names of `traffic::orphans`. `E2E_FLOWS` (50,000), `E2E_FLOOD_RATE` (2000
//! packets a second) and `E2E_ROUNDS` (0) are the flows, the flood and the measurements of `host::many_flows`. `E2E_MIGRATE` is a folder
//! of other balancers' configurations for `host::migrate`.
//! With `E2E_PORTS` the backends of services are on other ports (`rig/ports.rs`); `scripts/test` runs a part of the tests so
//! too. With `LOADED_CI` set, what cannot run is a failure.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../generate/mod.rs"]
mod generate;
mod rig;

mod health;
mod host;
mod lifecycle;
mod security;
mod traffic;
