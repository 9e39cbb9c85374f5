//! The interfaces that checks go through.

use std::fs;

/// The interfaces of this host but for the loopback one, by name.
pub(super) fn interfaces() -> Vec<String> {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name != "lo");
    names.sort_unstable();
    names
}
