//! What is settled when an instance starts and never changes in its life.

use crate::options::Options;
use crate::process::invocation::Invocation;
use loaded_netfilter::Steering;
use loaded_queue::RepeatSupport;
use std::time::{Duration, Instant, SystemTime};

/// A wall clock that differs by more than this was set.
const CLOCK_WAS_SET: Duration = Duration::from_secs(2);

/// What never changes in the life of an instance.
#[derive(Debug)]
pub(crate) struct Fixed {
    /// The command line, with absolute paths.
    pub(crate) options: Options,
    /// How to start another binary in the same way.
    pub(crate) invocation: Invocation,
    /// Queue of each worker, in their order.
    pub(crate) queues: Vec<u16>,
    /// Which client's packets go to which worker.
    pub(crate) steering: Steering,
    /// Layers of the sandbox that this kernel has.
    pub(crate) layers: Vec<String>,
    /// Whether this kernel repeats packets (NF_REPEAT).
    pub(crate) repeat: RepeatSupport,
    pub(crate) started: StartTime,
}

/// When the instance was started, by the wall clock and by the clock that nobody sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTime {
    wall: SystemTime,
    monotonic: Instant,
}

impl StartTime {
    pub(crate) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    /// How long ago.
    pub(crate) fn elapsed(self) -> Duration {
        self.monotonic.elapsed()
    }

    /// By the wall clock as it is set now. The time stays the same as long as the clock is not set.
    pub(crate) fn wall(self) -> SystemTime {
        let by_now = SystemTime::now() - self.monotonic.elapsed();
        let difference = by_now.duration_since(self.wall).unwrap_or_else(|error| error.duration());
        if difference < CLOCK_WAS_SET { self.wall } else { by_now }
    }
}
