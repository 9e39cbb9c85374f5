//! Connection tracking: how full its table is.

use super::finding::{Finding, sound, warning};
use std::fs;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

pub(super) fn finding() -> Finding {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    table(number(COUNT), number(MAX))
}

/// Balanced packets need no entry; this host's other connections do, and are refused once the table is full.
fn table(count: Option<u64>, max: Option<u64>) -> Finding {
    match (count, max) {
        (None, _) => sound("conntrack", "is not loaded"),
        (Some(count), Some(max)) if max > 0 && count.saturating_mul(10) >= max.saturating_mul(9) => warning(
            "conntrack",
            format!(
                "its table is nearly full ({count} of {max}): balanced packets need no entry, but connections of backends, of \
                 the checks and of this host do: sysctl -w net.netfilter.nf_conntrack_max={}",
                max.saturating_mul(2)
            ),
        ),
        (Some(count), _) => {
            sound("conntrack", format!("is loaded ({count} entries); balanced packets are not tracked"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_table_that_fills_up_is_named() {
        assert_eq!(table(None, None).grade, Grade::Sound);
        assert_eq!(table(Some(89_999), Some(100_000)).grade, Grade::Sound);
        let full = table(Some(90_000), Some(100_000));
        assert!(full.grade == Grade::Warning && full.text.ends_with("nf_conntrack_max=200000"), "{}", full.text);
    }
}
