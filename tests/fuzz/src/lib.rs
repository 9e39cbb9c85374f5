//! What the targets share: packets judged without the code under test.
#![forbid(unsafe_code)]

pub mod judge;
