//! The supervisor.
#![forbid(unsafe_code)]

pub mod plan;
