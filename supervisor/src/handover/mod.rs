//! From one supervisor to the next: what it writes down for its successor, and how a successor takes over from a
//! predecessor that hands over, or from one that was killed.

pub(crate) mod journal;
pub(crate) mod monotonic;
pub(crate) mod orphans;
pub(crate) mod predecessor;
