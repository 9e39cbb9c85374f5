//! Reads the clock.

use crate::time::Now;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The time of the monotonic clock. The coarse one is read without a system call and ticks every 1 to 10 ms.
pub(crate) fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    Now { seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX), millis: millis(time) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
