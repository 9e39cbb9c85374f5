//! The clock of this process: microseconds, monotonic.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Microseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000;

/// Microseconds since some point before this process started. Every kernel has this clock.
pub(crate) fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let (seconds, nanoseconds) = (t.tv_sec().unsigned_abs(), t.tv_nsec().unsigned_abs());
        seconds * SECOND + nanoseconds / 1_000
    })
}

/// Microseconds, as ppoll(2) takes them.
pub(crate) fn timespec(microseconds: u64) -> TimeSpec {
    TimeSpec::from_duration(Duration::from_micros(microseconds))
}
