//! For tests only (feature `hostile`): policies with one part removed, and attempts made inside a live worker.
//!
//! No release has this module: `src/main.rs` does not compile with it unless debug assertions are on, and `scripts/test
//! shape` checks the features of the release.

mod live;
mod weaken;

pub use live::LiveAttempts;
pub use weaken::Part;
