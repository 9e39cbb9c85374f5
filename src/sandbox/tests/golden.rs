//! `--print-sandbox` is part of the interface: a change to a policy is a change to these files, visible in review.
//! `LOADED_BLESS=1 cargo test -p loaded-sandbox --test golden` rewrites them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use loaded_sandbox::Role;
use loaded_sandbox::policy::print;

fn compare(role: Role) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{role}.txt"));
    let text = print(role);
    if std::env::var_os("LOADED_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} differs from --print-sandbox {role}", path.display());
}

#[test]
fn worker() {
    compare(Role::Worker);
}

#[test]
fn supervisor() {
    compare(Role::Supervisor);
}

#[test]
fn prober() {
    compare(Role::Prober);
}

#[test]
fn exporter() {
    compare(Role::Exporter);
}
