//! The kernel path: a program at tc ingress sends packets of known flows on, as the worker would, at kernel speed. It decides
//! nothing: it reads the flow table that the worker fills, writes packets, counters and reports, and leaves whatever is
//! unusual to the rules and the queue.
//!
//! It knows packets, routes and the layout of a flow table. It never knows services, policies, health or why a backend is
//! chosen.
//!
//! | who | has |
//! |---|---|
//! | supervisor | [`load`]: the program; its maps, which it alone writes ([`program`], [`records`]); [`filter`]: where it is attached; [`Towards`]: where replies come from; [`foretell`]: which packet goes on |
//! | worker | its table, the [`Keeping`] bytes, [`Reports`]: three mappings made before its sandbox closes, and no bpf(2) |
//! | program | counters, and the ring of reports |
//!
//! - `bpf/` is the program, in C, a file for each concern; `shared` what it shares with this crate. The build compares both.
//! - `mapping` has the only unsafe code: maps seen as atomics.
//! - [`address_table`] places addresses so that the program finds each in one bucket. Pure.
#![deny(unsafe_code)]

pub mod address_table;
mod error;
#[cfg(feature = "load")]
pub mod filter;
#[cfg(feature = "load")]
pub mod foretell;
mod keeping;
#[cfg(feature = "load")]
pub mod load;
mod mapping;
#[cfg(feature = "load")]
pub mod program;
#[cfg(feature = "load")]
pub mod records;
mod reports;
#[cfg(feature = "load")]
mod ring_fix;
#[allow(dead_code, unreachable_pub, reason = "build.rs includes it too, and the program knows more of it")]
mod shared;
#[cfg(feature = "load")]
mod towards;

pub use error::Error;
pub use keeping::{Keep, Keeping, unseen};
pub use reports::{REPORTS_BYTES, Report, Reports};
pub use shared::{MAX_BACKENDS, MAX_VIPS, MAX_WORKERS, Miss};
#[cfg(feature = "load")]
pub use towards::Towards;
