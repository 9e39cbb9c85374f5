//! The mark by which a packet is routed to a backend as it is (mode "dsr"). Workers set it, routing rules ask for it.

use crate::{BackendIndex, MAX_BACKEND_INDEX};

/// The bits of a packet's mark that are ours; the others stay as they are. 14 of them: the low 16 are in wide use, and
/// the topmost two as well.
pub const MARK_MASK: u32 = 0x3fff_0000;

const _: () = assert!((MAX_BACKEND_INDEX as u32) << MARK_MASK.trailing_zeros() <= MARK_MASK);

/// What our bits say of a packet for this backend: never 0, which is a packet that is not ours.
#[must_use]
pub fn mark_of(backend: BackendIndex) -> u32 {
    (u32::from(backend.0) + 1) << MARK_MASK.trailing_zeros() & MARK_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_has_a_mark_of_its_own_within_the_mask() {
        let marks = (0..MAX_BACKEND_INDEX).map(|index| mark_of(BackendIndex(index)));
        let marks: std::collections::BTreeSet<_> = marks.collect();
        assert_eq!(marks.len(), usize::from(MAX_BACKEND_INDEX));
        assert!(marks.iter().all(|mark| *mark != 0 && mark & !MARK_MASK == 0));
        assert_eq!(mark_of(BackendIndex(0)), 0x1_0000);
    }
}
