//! stub
use loaded_jail::Floor;
/// stub
pub fn run(_floor: Floor) -> i32 { 1 }
