//! From one supervisor to the next: what it writes down for its successor, and how a successor takes over from a
//! predecessor that gives way, or from one that was killed.

pub(crate) mod adoption;
mod descriptors;
pub(crate) mod inheritance;
pub(crate) mod journal;
mod kernel_path;
pub(crate) mod orphans;
pub(crate) mod predecessor;
pub(crate) mod snapshot;
pub(crate) mod successor;

pub(crate) use descriptors::{Descriptor, WorkerDescriptor};
pub(crate) use kernel_path::PathHandover;
pub(crate) use loaded_roster::monotonic;
