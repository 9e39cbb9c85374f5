//! Checks that began late: counted, and told to the log without filling it.

use std::time::{Duration, Instant, SystemTime};

/// Between two lines of the log.
const QUIET: Duration = Duration::from_secs(60);

/// The late checks of an instance, whichever of its probers were late.
#[derive(Debug, Default)]
pub struct LateChecks {
    /// How many there were.
    pub count: u64,
    /// How long after it was due the latest of all began, milliseconds.
    pub longest: u32,
    /// When the prober has last told of one.
    pub last: Option<SystemTime>,
    /// Since the last line of the log: how many, and the longest delay in milliseconds.
    untold: (u64, u32),
    told: Option<Instant>,
}

impl LateChecks {
    /// Notes that `late` more checks began late, the latest of them by `delay` milliseconds. Returns what to log.
    pub(crate) fn note(&mut self, late: u32, delay: u32, now: Instant) -> Option<String> {
        if late == 0 {
            return None;
        }
        self.count = self.count.saturating_add(late.into());
        self.longest = self.longest.max(delay);
        self.last = Some(SystemTime::now());
        self.untold = (self.untold.0.saturating_add(late.into()), self.untold.1.max(delay));
        if self.told.is_some_and(|told| now.duration_since(told) < QUIET) {
            return None;
        }
        self.told = Some(now);
        let (count, delay) = std::mem::take(&mut self.untold);
        Some(format!(
            "prober: {count} checks began late, up to {delay} ms after they were due, so a failure is found that much later: \
             the prober gets too little CPU time, or RLIMIT_NOFILE is too low for a socket per backend"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_line_a_minute_and_no_check_is_forgotten() {
        let (mut late, now) = (LateChecks::default(), Instant::now());
        assert_eq!(late.note(0, 0, now), None);
        assert!(late.note(3, 400, now).unwrap().contains("3 checks began late, up to 400 ms"));
        assert_eq!(late.note(5, 900, now + QUIET / 2), None);
        assert_eq!(late.note(0, 0, now + QUIET), None);
        assert!(late.note(2, 300, now + QUIET).unwrap().contains("7 checks began late, up to 900 ms"));
        assert_eq!((late.count, late.longest), (10, 900));
    }
}
