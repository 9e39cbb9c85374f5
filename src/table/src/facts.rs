//! What another reader of a flow table has to know: the kernel program of `src/fastpath`, which is written in C. Its build turns
//! these facts into a header, so that no number is written down twice.

use crate::flow::{KEY_MASK, OVER_QUOTA};
use crate::layout::{Bucket, Kind, RegionHeader, WAYS};
use crate::map::CHECK;
use crate::state::FlowState;
use std::mem::offset_of;

/// Bytes of a cache line, and the unit in which the program reads a table: all parts of one begin and end at a line.
pub const LINE: usize = 64;
/// Bytes of a flow table for each of its slots. The program reads only the part that lies in buckets.
pub const SLOT: usize = Kind::Flows.bucket_bytes() / WAYS;

const _: () = assert!(size_of::<RegionHeader>().is_multiple_of(LINE) && size_of::<Bucket>().is_multiple_of(LINE));
const _: () = assert!(offset_of!(Bucket, entries) == LINE && WAYS == 8);

/// Names and numbers of a flow table's layout.
#[must_use]
pub fn facts() -> Vec<(String, u64)> {
    let sizes = [
        ("LINE", LINE),
        ("HEADER_LINES", size_of::<RegionHeader>() / LINE),
        ("BUCKET_LINES", size_of::<Bucket>() / LINE),
        ("WAYS", WAYS),
        ("TAGS", offset_of!(Bucket, tags)),
        ("SEEN", offset_of!(Bucket, seen)),
        ("STATE", offset_of!(Bucket, state)),
        ("CHECK", offset_of!(Bucket, check)),
        ("ENTRY_BYTES", size_of::<[u64; 4]>()),
    ];
    let states = FlowState::ALL.iter().map(|state| (format!("STATE_{}", shout(&format!("{state:?}"))), *state as u64));
    let checks = CHECK.iter().enumerate().map(|(n, word)| (format!("CHECK_{n}"), *word));
    (sizes.into_iter().map(|(name, size)| (name.to_owned(), size as u64)))
        .chain([("KEY_MASK".to_owned(), KEY_MASK), ("OVER_QUOTA".to_owned(), OVER_QUOTA.into())])
        .chain(states)
        .chain(checks)
        .collect()
}

/// `HalfOpen` as `HALF_OPEN`.
fn shout(name: &str) -> String {
    let mut shouted = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            shouted.push('_');
        }
        shouted.push(letter.to_ascii_uppercase());
    }
    shouted
}
