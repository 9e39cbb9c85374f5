//! Points in time as numbers that another process on this machine understands: milliseconds of the monotonic clock, which all
//! processes share and nobody can set (clock_gettime(2), CLOCK_MONOTONIC; `std::time::Instant` reads the same clock).

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::{Duration, Instant};

/// Writes a time; for `#[serde(with = "crate::monotonic")]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
    to_millis(*time).serialize(serializer)
}

/// Reads a time back; one that this clock cannot show becomes now.
///
/// # Errors
/// If there is no number.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
    Ok(from_millis(i64::deserialize(deserializer)?))
}

/// The same for an `Option<Instant>`.
pub mod option {
    use super::{from_millis, to_millis};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Instant;

    /// Writes a time, if there is one.
    ///
    /// # Errors
    /// Those of the serializer.
    #[allow(clippy::ref_option, reason = "serde passes the field")]
    pub fn serialize<S: Serializer>(time: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(to_millis).serialize(serializer)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// If there is something other than a number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(from_millis))
    }
}

fn to_millis(time: Instant) -> i64 {
    let now = Instant::now();
    let ahead = millis(time.saturating_duration_since(now));
    let ago = millis(now.saturating_duration_since(time));
    clock().saturating_add(ahead).saturating_sub(ago)
}

fn from_millis(at: i64) -> Instant {
    let (now, clock) = (Instant::now(), clock());
    let distance = Duration::from_millis(at.abs_diff(clock));
    let time = if at >= clock { now.checked_add(distance) } else { now.checked_sub(distance) };
    time.unwrap_or(now)
}

/// Seconds of that clock, as the workers' tables count them.
#[must_use]
pub fn seconds() -> u32 {
    u32::try_from(clock() / 1000).unwrap_or(0)
}

/// Milliseconds of that clock now.
#[must_use]
pub fn clock() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| millis(time.into()))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_as_a_number() {
        let now = Instant::now();
        for (time, text) in [
            (now, "now"),
            (now + Duration::from_secs(3600), "in an hour"),
            (now.checked_sub(Duration::from_millis(50)).unwrap_or(now), "just now"),
        ] {
            let back = from_millis(to_millis(time));
            let apart = back.saturating_duration_since(time).max(time.saturating_duration_since(back));
            assert!(apart < Duration::from_millis(5), "{text}: {apart:?}");
        }
        // Numbers out of range do no harm.
        from_millis(i64::MAX);
        from_millis(i64::MIN);
    }
}
