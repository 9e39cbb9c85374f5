//! Each format, from text to `loaded.toml`. Every output goes through `loaded`'s own reader.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod classic;
mod ipvsadm;
mod keepalived;
mod nginx;
mod properties;

use loaded_config::plan::Plan;
use loaded_config::{Overrides, Source, parse};
use loaded_migrate::{Format, Migrated, Options, migrate};

/// What `loaded` makes of an output. One without services is no configuration, and is not read.
#[track_caller]
fn plan_of(migrated: &Migrated) -> Option<Plan> {
    let read = || parse(&[Source::new("loaded.toml", migrated.toml.clone())], &Overrides::default());
    (migrated.services > 0).then(|| read().unwrap_or_else(|error| panic!("{error}\n{}", migrated.toml)).plan)
}

/// The output for one text called `f`, with the plan that `loaded` makes of it.
#[track_caller]
fn carried(format: Format, text: &str, options: &Options) -> (Migrated, Plan) {
    let migrated = migrate(&[Source::new("f", text)], format, options).unwrap();
    let plan = plan_of(&migrated).unwrap_or_else(|| panic!("no service is left:\n{}", migrated.toml));
    (migrated, plan)
}

/// That the beginnings of what is lost are these, in any order, and that the comments say the same.
#[track_caller]
fn loses(migrated: &Migrated, expected: &[&str]) {
    let flat = migrated.toml.replace("\n#  ", "");
    for line in expected {
        assert!(migrated.lost.iter().any(|lost| lost.starts_with(line)), "{line} is not in {:#?}", migrated.lost);
        assert!(flat.contains(&format!("not carried: {line}")), "no comment says {line}:\n{flat}");
    }
    assert_eq!(migrated.lost.len(), expected.len(), "{:#?}", migrated.lost);
}

/// The error of a text, without the file's name.
#[track_caller]
fn unreadable(format: Format, text: &str) -> String {
    let error = migrate(&[Source::new("f", text)], format, &Options::default()).unwrap_err().to_string();
    error.strip_prefix("f:").unwrap_or(&error).to_owned()
}
