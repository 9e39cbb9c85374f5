//! One word, one meaning: a struct, enum, trait or union of the product has a name of its own. The table has those that several
//! crates share, each for its own side of the same thing, and those that are private to one file each.

use super::{sources, without_tests};
use std::collections::BTreeMap;
use std::ffi::OsStr;

/// Names of more than one type, and of how many. Who wants another changes the table, and a reviewer sees it.
const SHARED: [(&str, usize); 56] = [
    ("AffinityTable", 2),
    ("After", 2),
    ("Answer", 2),
    ("Arguments", 3),
    ("Assembly", 2),
    ("Backend", 4),
    ("Body", 3),
    ("Bound", 2),
    ("Chain", 2),
    ("Changes", 2),
    ("Check", 2),
    ("Connection", 2),
    ("Direction", 2),
    ("Error", 14),
    ("Exporter", 2),
    ("Family", 3),
    ("FlowNow", 2),
    ("FlowQuery", 2),
    ("Format", 2),
    ("Grade", 2),
    ("Health", 2),
    ("Hijacked", 2),
    ("Hook", 2),
    ("Incoming", 2),
    ("Interface", 2),
    ("Item", 2),
    ("Judgement", 2),
    ("Key", 3),
    ("Kind", 4),
    ("LateChecks", 2),
    ("Message", 2),
    ("Miss", 2),
    ("Options", 3),
    ("OutOfStep", 2),
    ("Pace", 2),
    ("Packet", 2),
    ("Page", 2),
    ("Phase", 2),
    ("Ports", 2),
    ("Prober", 2),
    ("Program", 2),
    ("Refusal", 2),
    ("Report", 2),
    ("Reports", 2),
    ("Request", 3),
    ("Role", 2),
    ("Served", 2),
    ("Service", 3),
    ("Setup", 2),
    ("Silence", 2),
    ("Slot", 2),
    ("Standing", 2),
    ("Steering", 2),
    ("Table", 2),
    ("View", 2),
    ("Worker", 2),
];

#[test]
fn a_type_has_a_name_of_its_own() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in sources(&["src", "supervisor", "worker", "prober", "exporter"]) {
        let is_test = |part: &OsStr| ["tests", "tests.rs", "benches", "fixture.rs"].iter().any(|name| part == *name);
        if file.iter().any(is_test) {
            continue;
        }
        for name in without_tests(&text).lines().filter_map(defined) {
            found.entry(name.to_owned()).or_default().push(file.display().to_string());
        }
    }
    assert!(found.len() > 500, "only {} types were found", found.len());
    let allowed: BTreeMap<_, _> = SHARED.into_iter().collect();
    found.retain(|name, files| files.len() != allowed.get(name.as_str()).copied().unwrap_or(1));
    assert!(found.is_empty(), "the table has another number of these: {found:#?}");
}

/// The type that a line defines, if it does. Not one that a macro names.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => line,
    };
    let mut words = line.split_whitespace().skip_while(|word| *word == "unsafe");
    let is_type = ["struct", "enum", "trait", "union"].contains(&words.next()?);
    let name = words.next().filter(|_| is_type)?.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    Some(name).filter(|name| !name.is_empty())
}

#[test]
fn a_definition_is_seen_however_it_is_written() {
    let lines = [
        "struct Place;",
        "    pub enum Place<'a> {",
        "pub(crate) union Place {",
        "pub(in crate::here) struct Place(u8);",
        "pub unsafe trait Place: Send {}",
    ];
    assert_eq!(lines.map(defined), [Some("Place"); 5]);
    assert_eq!(["fn place() {", "pub enum $name {", "// struct Place"].map(defined), [None; 3]);
}
