//! Packages of Debian's that some tests alone need.

use super::lab::{bounded, said, shipped};
use std::path::PathBuf;

/// The documentation of a package, in a folder. `None` where it cannot be had, unless LOADED_CI demands it.
pub(crate) fn documents(package: &str) -> Option<PathBuf> {
    packages(&format!("need_documents {package}")).map(|out| PathBuf::from(out.trim_end()))
}

/// Installs a package, if it is missing. `None` where that cannot be, unless LOADED_CI demands it.
pub(super) fn installed(package: &str) -> Option<()> {
    packages(&format!("need_packages {package}")).map(drop)
}

/// What a function of `scripts/lab.d/packages.sh` prints.
fn packages(call: &str) -> Option<String> {
    let script = format!("set -euo pipefail; . {}; {call}", shipped("scripts/lab.d/packages.sh"));
    let said = said(&bounded(&["bash", "-c", &script]).output().unwrap());
    if said.code != Some(0) {
        assert!(std::env::var_os("LOADED_CI").is_none(), "{}", said.err);
        println!("skipped: {}", said.err);
        return None;
    }
    Some(said.out)
}
