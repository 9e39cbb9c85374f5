//! One word, one meaning: a type of the product has a name of its own. The table has those that several crates share, each for
//! its own side of the same thing, and those that a reader meets in one file alone.

use super::{sources, without_tests};
use std::collections::{BTreeMap, BTreeSet};

/// Names of more than one type. Who wants another adds it here, and a reviewer sees it.
const SHARED: [&str; 62] = [
    "Act",
    "AffinityTable",
    "After",
    "Answer",
    "Arguments",
    "Assembly",
    "Backend",
    "Body",
    "Bound",
    "Chain",
    "Changes",
    "Check",
    "Connection",
    "Direction",
    "Ending",
    "Error",
    "Exporter",
    "Family",
    "FlowNow",
    "FlowQuery",
    "Format",
    "Grade",
    "Health",
    "Hijacked",
    "Hook",
    "Incoming",
    "Interface",
    "Item",
    "Judgement",
    "Key",
    "Kind",
    "LateChecks",
    "Message",
    "Miss",
    "Options",
    "Order",
    "Orphans",
    "OutOfStep",
    "Outcome",
    "Owner",
    "Pace",
    "Packet",
    "Page",
    "Phase",
    "Ports",
    "Prober",
    "Program",
    "Refusal",
    "Report",
    "Reports",
    "Request",
    "Role",
    "Served",
    "Service",
    "Setup",
    "Silence",
    "Slot",
    "Standing",
    "Steering",
    "Table",
    "View",
    "Worker",
];

#[test]
fn a_type_has_a_name_of_its_own() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, text) in sources(&["src", "supervisor", "worker", "prober", "exporter"]) {
        let is_test =
            |part: &std::ffi::OsStr| ["tests", "tests.rs", "benches", "fixture.rs"].iter().any(|name| part == *name);
        if file.iter().any(is_test) {
            continue;
        }
        for name in without_tests(&text).lines().filter_map(defined) {
            found.entry(name.to_owned()).or_default().insert(file.display().to_string());
        }
    }
    assert!(found.len() > 500, "only {} types were found", found.len());
    let several = |name: &str| found.get(name).is_some_and(|files| files.len() > 1);
    let new: Vec<_> = found.iter().filter(|(name, _)| several(name) && !SHARED.contains(&name.as_str())).collect();
    assert!(new.is_empty(), "names of more than one type: {new:#?}");
    let gone: Vec<_> = SHARED.iter().filter(|name| !several(name)).collect();
    assert!(gone.is_empty(), "no longer shared: take them out of SHARED: {gone:?}");
}

/// The type that a line defines, if it does.
fn defined(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub") || word.ends_with("super)"));
    let keyword = words.next()?;
    let name = words.next().filter(|_| ["struct", "enum", "trait", "union"].contains(&keyword))?;
    name.split(|c: char| !c.is_alphanumeric()).next()
}
