//! Durations as people write them: one number and one unit.

use std::ops::RangeInclusive;

/// Units, each with its milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Milliseconds as a text: in the largest unit that needs no fraction.
#[must_use]
pub(crate) fn span(millis: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| millis >= *unit && millis.is_multiple_of(*unit);
    UNITS.iter().rev().find(fits).map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// Seconds in a text such as `90s`, `15m`, `1h` or `7d`, within `range`.
///
/// # Errors
/// What is wrong, and how to write it.
pub fn seconds(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let whole = format!("{text:?} is finer than a second; write whole seconds, such as 1s");
    if text.ends_with("ms") {
        return Err(whole);
    }
    let (least, most) = (u64::from(*range.start()) * 1000, u64::from(*range.end()) * 1000);
    let millis = duration(text, least..=most, "s, m, h or d, such as 90s")?;
    u32::try_from(millis / 1000).map_err(|_| whole)
}

/// Milliseconds in a text such as `500ms`, `2s` or `1h`, within `range`.
///
/// # Errors
/// What is wrong, and how to write it.
pub(crate) fn millis(text: &str, range: RangeInclusive<u32>) -> Result<u32, String> {
    let (least, most) = (u64::from(*range.start()), u64::from(*range.end()));
    let millis = duration(text, least..=most, "ms, s, m, h or d, such as 500ms")?;
    u32::try_from(millis).map_err(|_| format!("{text:?} is too long"))
}

/// Milliseconds within a range of them.
fn duration(text: &str, range: RangeInclusive<u64>, units: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, millis)| *millis);
    let count: Option<u64> = digits.parse().ok();
    let millis = count.zip(unit).and_then(|(count, unit)| count.checked_mul(unit));
    millis.filter(|millis| range.contains(millis)).ok_or_else(|| {
        let (least, most) = (span(*range.start()), span(*range.end()));
        format!("{text:?} is not a duration from {least} to {most}; write one number and {units}")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_they_are_read() {
        for (millis, text) in [(0, "0s"), (1500, "1500ms"), (90_000, "90s"), (300_000, "5m"), (86_400_000, "1d")] {
            assert_eq!(span(millis), text);
        }
    }

    #[test]
    fn durations_are_one_number_and_one_unit() {
        let year = |text| seconds(text, 1..=365 * 86_400);
        for (text, expected) in [("90s", 90), ("15m", 900), ("1h", 3600), ("365d", 31_536_000)] {
            assert_eq!(year(text), Ok(expected));
        }
        for wrong in ["", "s", "0s", "1", "1 h", "1h30m", "-1s", "+1s", "366d", "4294967296d", "500ms", "1S", "1ü"] {
            assert!(year(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(seconds("0s", 0..=3600), Ok(0));
        assert_eq!(
            seconds("2h", 0..=3600),
            Err("\"2h\" is not a duration from 0s to 1h; write one number and s, m, h or d, such as 90s".to_owned())
        );
    }

    #[test]
    fn short_durations_have_milliseconds() {
        let short = |text| millis(text, 100..=86_400_000);
        assert_eq!((short("500ms"), short("2s"), short("1d")), (Ok(500), Ok(2000), Ok(86_400_000)));
        for wrong in
            ["99ms", "86400001ms", "2d", "1.5s", "ms", "1000", "18446744073709551615d", "99999999999999999999s"]
        {
            assert!(short(wrong).is_err(), "{wrong:?}");
        }
    }
}
