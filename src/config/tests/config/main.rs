//! The two configuration formats, from text to plan or error.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod classic;
mod diff;
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

/// The error of one text: that it starts with `expected`, which names line and column.
#[track_caller]
fn refused(name: &str, text: &str, expected: &str) {
    match parse(&[Source::new(name, text)], &Overrides::default()) {
        Ok(loaded) => panic!("{text:?} was accepted: {loaded:?}"),
        Err(error) => {
            let error = error.to_string();
            if name.ends_with(".toml") {
                schema::agrees(text, Some(&error));
            }
            let expected = format!("{name}:{expected}");
            assert!(error.starts_with(&expected), "\n{text}\n  gave {error}\nwanted {expected}");
        }
    }
}
