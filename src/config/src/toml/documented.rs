//! The manual page and the JSON schema have every key, each in its table, and no other.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use super::keys::{AFFINITY, BACKEND, INCLUDED, INCLUDED_BACKEND, ON_FAILURE, QUOTA, SERVICE, TOP};
use super::probe::{CHECK, DISCOVER, PASSIVE_KEYS};
use super::table::KnownKeys;
use crate::policy::IDLE;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each table, and its name among the schema's definitions.
const TABLES: [(&KnownKeys, &str); 12] = [
    (&TOP, ""),
    (&QUOTA, "quota"),
    (&ON_FAILURE, "on_failure"),
    (&SERVICE, "service"),
    (&AFFINITY, "affinity"),
    (&IDLE, "idle"),
    (&CHECK, "check"),
    (&PASSIVE_KEYS, "passive"),
    (&DISCOVER, "discover"),
    (&BACKEND, "backend"),
    (&INCLUDED, "included"),
    (&INCLUDED_BACKEND, "included_backend"),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

fn keys(table: &KnownKeys) -> BTreeSet<String> {
    table.known.concat().into_iter().map(str::to_owned).collect()
}

#[test]
fn the_manual_page_has_every_key_in_its_table() {
    let page = read("docs/man/loaded.toml.5");
    for (table, _) in TABLES {
        let is_heading =
            |line: &&str| line.strip_prefix(".Ss ").is_some_and(|title| title.eq_ignore_ascii_case(table.table));
        let section = page
            .lines()
            .skip_while(|line| !is_heading(line))
            .skip(1)
            .take_while(|line| !line.starts_with(".Ss ") && !line.starts_with(".Sh "));
        let named: BTreeSet<_> = section.filter_map(|line| line.strip_prefix(".It Ic ")).map(str::to_owned).collect();
        assert_eq!(named, keys(table), "{}", table.table);
    }
    let headings = page.lines().filter(|line| line.starts_with(".Ss ")).count();
    assert_eq!(headings, TABLES.len());
}

#[test]
fn the_schema_has_every_key_in_its_table() {
    let schema: Value = serde_json::from_str(&read("scripts/loaded.schema.json")).unwrap();
    for (table, name) in TABLES {
        let place = if name.is_empty() { &schema } else { &schema["definitions"][name] };
        let named: BTreeSet<_> = place["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(named, keys(table), "{}", table.table);
        assert_eq!(place["additionalProperties"], false, "{}", table.table);
    }
}
