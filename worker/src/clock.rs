//! The time of packets.

use crate::decide::Now;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The monotonic clock. The coarse one is read without a system call and ticks often enough.
pub(crate) fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    Now { seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX), millis: millis(time) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
