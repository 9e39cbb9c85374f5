//! The prober: checks backends and pushes membership to the workers.
//!
//! Not part of this version: the supervisor refuses `-f` and `failover`, and nothing links this crate.
#![forbid(unsafe_code)]
