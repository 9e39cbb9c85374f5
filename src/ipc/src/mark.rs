//! The mark by which an unchanged packet is routed to its backend (mode "dsr"). Workers set it, routing rules match it.

use crate::{BackendIndex, MAX_BACKEND_INDEX};

/// The bits of a packet's mark that are ours, 14 of them; the others stay as they are. The low 16 and the topmost two are
/// widely used by others.
pub const MARK_MASK: u32 = 0x3fff_0000;

const _: () = assert!((MAX_BACKEND_INDEX as u32) << MARK_MASK.trailing_zeros() <= MARK_MASK);

/// Our bits in the mark of a packet for this backend. Never 0, which means that the packet is not ours.
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
