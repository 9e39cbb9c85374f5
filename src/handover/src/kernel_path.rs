//! What a supervisor writes down of its kernel path.

use serde::{Deserialize, Serialize};

/// What the next supervisor has to know of a program beside its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathHandover {
    /// Which program it is: `loaded_fastpath::load::identity`.
    pub program: u64,
    /// By which it places addresses.
    pub seed: [u64; 2],
}
