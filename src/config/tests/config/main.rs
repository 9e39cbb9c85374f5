//! The two configuration formats, from text to plan or error.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod amend;
mod classic;
mod diff;
mod include;
mod mistakes;
mod ports;
mod probe;
mod properties;
mod schema;
mod shared;
mod shipped;
mod toml;

use loaded_config::plan::Plan;
use loaded_config::{Overrides, Source, parse};

/// One text, under a name that tells its format.
fn plan(name: &str, text: &str) -> Plan {
    if name.ends_with(".toml") {
        schema::agrees(text, None);
    }
    parse(&[Source::new(name, text)], &Overrides::default()).unwrap().plan
}

/// What is wrong with one text.
#[track_caller]
fn mistakes(name: &str, text: &str) -> Vec<String> {
    match parse(&[Source::new(name, text)], &Overrides::default()) {
        Ok(loaded) => panic!("{text:?} was accepted: {loaded:?}"),
        Err(error) => {
            let error = error.to_string();
            if name.ends_with(".toml") {
                schema::agrees(text, Some(&error));
            }
            error.lines().map(str::to_owned).collect()
        }
    }
}

/// One thing alone is wrong with a text: `expected`, which names line and column, begins the message.
#[track_caller]
fn refused(name: &str, text: &str, expected: &str) {
    let (mistakes, expected) = (mistakes(name, text), format!("{name}:{expected}"));
    let is_told = matches!(mistakes.as_slice(), [only] if only.starts_with(&expected));
    assert!(is_told, "\n{text}\n  gave {mistakes:#?}\nwanted {expected}");
}

/// Among the things that are wrong with a text is this.
#[track_caller]
fn refused_too(name: &str, text: &str, expected: &str) {
    let (mistakes, expected) = (mistakes(name, text), format!("{name}:{expected}"));
    assert!(
        mistakes.iter().any(|told| told.starts_with(&expected)),
        "\n{text}\n  gave {mistakes:#?}\nwanted {expected}"
    );
}
