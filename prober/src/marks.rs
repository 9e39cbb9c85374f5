//! A set of places in a list, made once and never larger: what is still to be said of whom.

/// The set, with a cursor that goes round so that no place waits for ever behind busier ones.
#[derive(Debug)]
pub(crate) struct Marks {
    words: Vec<u64>,
    /// Where the next search begins.
    cursor: usize,
}

impl Marks {
    /// An empty set of places below `places`.
    pub(crate) fn new(places: usize) -> Self {
        Self { words: vec![0; places.div_ceil(64)], cursor: 0 }
    }

    /// Puts a place in. One that the set was not made for is not.
    pub(crate) fn set(&mut self, place: usize) {
        if let Some(word) = self.words.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// Takes a place out, and goes on behind it.
    pub(crate) fn clear(&mut self, place: usize) {
        if let Some(word) = self.words.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
        self.cursor = place + 1;
    }

    /// Whether a place is in.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.words.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// The next place that is in, from the cursor on and around. It stays in.
    pub(crate) fn next(&self) -> Option<usize> {
        self.from(self.cursor).or_else(|| self.from(0))
    }

    fn from(&self, start: usize) -> Option<usize> {
        let first = start / 64;
        self.words.iter().enumerate().skip(first).find_map(|(index, word)| {
            let word = if index == first { word & (u64::MAX << (start % 64)) } else { *word };
            (word != 0).then(|| index * 64 + usize::try_from(word.trailing_zeros()).unwrap_or(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_turn() {
        let mut marks = Marks::new(130);
        assert_eq!(marks.next(), None);
        for place in [0, 63, 64, 129, 500] {
            marks.set(place);
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            let place = marks.next().expect("one is in");
            order.push(place);
            marks.clear(place);
            marks.set(0); // always wants to speak
        }
        assert_eq!(order, [0, 63, 64, 129, 0, 0]);
        assert!(marks.has(0) && !marks.has(63) && !marks.has(500));
    }
}
