//! Files and functions of the product's Rust stay small. The habit is 120 to 300 lines a file and at most 60 a function
//! (CONTRIBUTING.md); a file that passes the limit here has a seam, and is to be cut there.

use super::{sources, without_tests};
use std::path::Path;

/// Lines of a file, without the tests in it.
const FILE: usize = 340;
const FUNCTION: usize = 60;

#[test]
fn files_and_functions_are_small() {
    let mut large = Vec::new();
    for (file, text) in sources(&["src", "supervisor", "worker", "prober", "exporter"]) {
        if file.iter().any(|part| part == "tests" || part == "benches") || file.ends_with("tests.rs") {
            continue;
        }
        let lines: Vec<_> = without_tests(&text).lines().collect();
        if lines.len() > FILE {
            large.push(format!("{}: {} lines", file.display(), lines.len()));
        }
        large.extend(long_functions(&file, &lines));
    }
    assert!(large.is_empty(), "{large:#?}");
}

/// A function ends at the brace below its first letter, as rustfmt writes it, or at the end of the file. A line of a raw string
/// that looks like that brace ends it too.
fn long_functions(file: &Path, lines: &[&str]) -> Vec<String> {
    let is_head = |line: &str| {
        let first = line.split_whitespace().next().unwrap_or_default();
        line.contains("fn ") && HEADS.iter().any(|head| first.starts_with(head))
    };
    let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line) && !line.ends_with(['}', ';']));
    let long = heads.filter_map(|(at, line)| {
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[at..].iter().position(|line| **line == end).map_or(lines.len() - at, |last| last + 1);
        (length > FUNCTION).then(|| format!("{}:{}: {length} lines: {}", file.display(), at + 1, line.trim()))
    });
    long.collect()
}

/// The first word of a function.
const HEADS: [&str; 7] = ["fn", "pub", "const", "unsafe", "safe", "extern", "async"];
