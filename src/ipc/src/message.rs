//! The messages: one enum per direction of one link. Configuration travels as a transaction: `Begin`, items, `Commit`;
//! the child begins to work by it only at `Go`. A file for each process that the supervisor talks to.

mod exporter;
mod prober;
mod successor;
#[cfg(test)]
mod tests;
mod worker;

pub use exporter::{Document, FromExporter, MAX_DOCUMENT, MAX_LARGE_FRAME, MAX_PART, ToExporter};
pub use prober::{FromProber, Membership, Pinger, Silence, ToProber};
pub use successor::{FromSuccessor, ToSuccessor};
pub use worker::{FromWorker, ToWorker};

/// Version of the messages. Bump it with any change to them.
pub const VERSION: u16 = 16;

/// Largest frame either side accepts, bytes.
pub const MAX_FRAME: usize = 512;

/// Longest string in a message, bytes: a frame less tag and length, rounded down.
pub const MAX_TEXT: usize = 480;
