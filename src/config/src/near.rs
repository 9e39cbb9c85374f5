//! Near misses: which known key did the writer mean?

use strsim::osa_distance;

/// No slip makes a key this long, in bytes; it bounds the work on a hostile line.
const LONGEST_MISS: usize = 40;

/// The known key that `name` was probably meant to be; `None` for an unrelated name and for a known key itself.
///
/// Case, `_` and `-` do not count, nor do digits at the end (`NS1`); then a name of three to five characters may have
/// one slip and a longer one two. A slip is a character too many, missing, wrong, or two swapped.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if known.contains(&name) || name.len() > LONGEST_MISS {
        return None;
    }
    let slips = |key: &&'k str| (osa_distance(&plain(name), &plain(key)), *key);
    let near = |(slips, key): &(usize, &'k str)| *slips <= allowed(key) || same_but_digits(name, key);
    known.iter().map(slips).filter(near).min_by_key(|(slips, _)| *slips).map(|(_, key)| key)
}

fn allowed(key: &str) -> usize {
    match key.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

fn same_but_digits(name: &str, key: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let bare = |text: &str| plain(text).trim_end_matches(is_digit).to_owned();
    name.ends_with(is_digit) && bare(name) == bare(key)
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] = ["VIP4", "VIP4net", "NS", "server4", "strategy"];

    #[test]
    fn slips_of_the_finger_are_near() {
        for (name, key) in [
            ("VIP_4", "VIP4"),
            ("vip4", "VIP4"),
            ("VIP", "VIP4"),
            ("VPI4", "VIP4"),
            ("VIP_4_net", "VIP4net"),
            ("sever4", "server4"),
            ("sevrer4", "server4"),
            ("server", "server4"),
            ("servers", "server4"),
            ("server10", "server4"),
            ("Strategy", "strategy"),
            ("strategie", "strategy"),
            ("ns", "NS"),
            ("NS1", "NS"),
        ] {
            assert_eq!(nearest(name, &KEYS), Some(key), "{name}");
        }
    }

    #[test]
    fn unrelated_names_and_the_keys_themselves_are_not() {
        for name in ["VIP4", "NS", "i", "IP", "PATH", "IFS", "serv", "state", "nic", "target", ""] {
            assert_eq!(nearest(name, &KEYS), None, "{name}");
        }
    }
}
