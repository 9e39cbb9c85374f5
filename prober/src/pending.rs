//! A set of indices of fixed size: the targets whose state is still to be sent.

/// A bit set with a cursor that goes round, so that no index waits forever behind busier ones.
#[derive(Debug)]
pub(crate) struct PendingSet {
    words: Vec<u64>,
    /// Where the next search begins.
    cursor: usize,
}

impl PendingSet {
    /// An empty set of indices below `size`.
    pub(crate) fn new(size: usize) -> Self {
        Self { words: vec![0; size.div_ceil(64)], cursor: 0 }
    }

    /// Adds an index; one that is too large is ignored.
    pub(crate) fn set(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Removes an index and moves the cursor past it.
    pub(crate) fn clear(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
        self.cursor = index + 1;
    }

    /// Whether an index is in the set.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// The next index in the set, searching from the cursor to the end and then from 0. It stays in the set.
    pub(crate) fn next(&self) -> Option<usize> {
        self.from(self.cursor).or_else(|| self.from(0))
    }

    fn from(&self, start: usize) -> Option<usize> {
        let first = start / 64;
        self.words.iter().enumerate().skip(first).find_map(|(at, word)| {
            let word = if at == first { word & (u64::MAX << (start % 64)) } else { *word };
            (word != 0).then(|| at * 64 + usize::try_from(word.trailing_zeros()).unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_turn() {
        let mut pending = PendingSet::new(130);
        assert_eq!(pending.next(), None);
        for index in [0, 63, 64, 129, 500] {
            pending.set(index);
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            let index = pending.next().expect("one is in");
            order.push(index);
            pending.clear(index);
            pending.set(0); // always pending
        }
        assert_eq!(order, [0, 63, 64, 129, 0, 0]);
        assert!(pending.has(0) && !pending.has(63) && !pending.has(500));
    }
}
