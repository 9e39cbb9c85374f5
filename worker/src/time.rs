//! The time of a decision, passed in by whoever reads the clock.

/// A time of a monotonic clock, in the two units that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Seconds, for flows and clients.
    pub seconds: u32,
    /// Milliseconds, for backends and fragments.
    pub millis: u64,
}
