//! loaded
fn main() {}
