//! Figures and columns for people.

use std::fmt::Write;

/// Columns as wide as their widest cell, two spaces between them. Cells beyond `right` stand left.
pub(super) fn table(rows: &[Vec<String>], right: &[bool]) -> String {
    let wide = |text: &String| text.chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|n| rows.iter().filter_map(|row| row.get(n)).map(wide).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for ((n, cell), width) in row.iter().enumerate().zip(&widths) {
            let cell = cell.replace('\n', " ");
            let _ = match right.get(n) {
                Some(true) => write!(line, "{cell:>width$}  "),
                _ => write!(line, "{cell:<width$}  "),
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// "9999", "10.0k", "12.3M": never more than six characters.
pub(super) fn count(n: u64) -> String {
    if n < 10_000 {
        return n.to_string();
    }
    let mut unit = 1000_u128;
    for letter in ["k", "M", "G", "T", "P"] {
        let tenths = u128::from(n) * 10 / unit;
        if tenths < 10_000 {
            return format!("{}.{}{letter}", tenths / 10, tenths % 10);
        }
        unit *= 1000;
    }
    format!("{}E", u128::from(n) / unit)
}

/// "5s", "3m12s", "2h5m", "4d3h": two units at most.
pub(super) fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// "412us", "3.2ms", "1.50s"
pub(super) fn latency(us: u32) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{}.{}ms", us / 1000, us / 100 % 10),
        _ => format!("{}.{:02}s", us / 1_000_000, us / 10_000 % 100),
    }
}

/// "2026-11-23 23:34:38.123" of milliseconds since 1970, by the civil calendar: Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", civil_from_days.
pub(super) fn time(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}.{:03}", rest % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short() {
        for (n, text) in [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10.0k"),
            (999_999, "999.9k"),
            (1_000_000, "1.0M"),
            (12_345_678_901, "12.3G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (3599, "59m59s"), (7500, "2h5m"), (90_000, "1d1h")]
        {
            assert_eq!(elapsed(seconds), text);
        }
        for (us, text) in [(0, "0us"), (999, "999us"), (3210, "3.2ms"), (999_999, "999.9ms"), (1_507_000, "1.50s")] {
            assert_eq!(latency(us), text);
        }
    }

    #[test]
    fn times_are_of_the_civil_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400, "2000-02-29 00:00:00.000"),
            (951_868_800, "2000-03-01 00:00:00.000"),
            (1_735_689_599, "2024-12-31 23:59:59.000"),
            (1_795_476_878, "2026-11-23 23:34:38.000"),
            (4_107_542_400, "2100-03-01 00:00:00.000"),
        ] {
            assert_eq!(time(seconds * 1000), text);
        }
        assert_eq!(time(1234), "1970-01-01 00:00:01.234");
        // Whatever an instance says, there is some text.
        assert!(!time(u64::MAX).is_empty());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B"], ["long", "7"], ["x\ny", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[false, true]), "A     B\nlong  7\nx y\n");
    }
}
