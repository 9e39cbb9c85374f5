//! Times as nginx writes them.

/// `30s`, `1h30m`, `500ms`, `10` (seconds), as milliseconds: src/core/ngx_parse.c.
pub(super) fn time(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (count, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let millis = match unit.trim() {
            "ms" => 1,
            "s" | "" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return None,
        };
        sum = sum.checked_add(count.parse::<u64>().ok()?.checked_mul(millis)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_sums() {
        let times = [("10m", 600_000), ("1h30m", 5_400_000), ("500ms", 500), ("10", 10_000), ("1h 5s", 3_605_000)];
        for (text, millis) in times {
            assert_eq!(time(text), Some(millis), "{text}");
        }
        for wrong in ["", "s", "1y", "-1", "99999999999999999999", "9999999999999999w"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
