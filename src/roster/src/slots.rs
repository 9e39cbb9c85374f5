//! Numbers for things, each of which keeps its meaning as long as anybody may remember it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Things by number. A number that is freed is given to another thing only when no worker can remember its old meaning.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Slots<T> {
    taken: BTreeMap<u16, T>,
    /// Freed number → the first generation without it.
    freed: BTreeMap<u16, u64>,
    /// All numbers are below this.
    end: u16,
}

impl<T> Slots<T> {
    pub(super) fn new(end: u16) -> Self {
        Self { taken: BTreeMap::new(), freed: BTreeMap::new(), end }
    }

    /// Inserts a thing and returns its number. Every table has been opened in generation `settled` or later, so numbers freed up to
    /// then are forgotten. `None`: no number is left.
    pub(super) fn insert(&mut self, item: T, settled: u64) -> Option<u16> {
        self.freed.retain(|_, generation| *generation > settled);
        let number =
            (0..self.end).find(|number| !self.taken.contains_key(number) && !self.freed.contains_key(number))?;
        self.taken.insert(number, item);
        Some(number)
    }

    /// Frees the numbers of all things that are not kept; `generation` is the first without them.
    pub(super) fn retain(&mut self, generation: u64, mut keep: impl FnMut(u16, &T) -> bool) {
        let freed = &mut self.freed;
        self.taken.retain(|number, item| {
            let keep = keep(*number, item);
            if !keep {
                freed.insert(*number, generation);
            }
            keep
        });
    }

    pub(super) fn get(&self, number: u16) -> Option<&T> {
        self.taken.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut T> {
        self.taken.get_mut(&number)
    }

    pub(super) fn find(&self, is: impl Fn(&T) -> bool) -> Option<u16> {
        self.taken.iter().find(|(_, item)| is(item)).map(|(number, _)| *number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        self.taken.iter().map(|(number, item)| (*number, item))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.taken.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_not_given_out_while_its_meaning_is_remembered() {
        let mut slots = Slots::new(3);
        assert_eq!((slots.insert('a', 1), slots.insert('b', 1)), (Some(0), Some(1)));
        slots.retain(5, |_, item| *item != 'a');
        assert_eq!(slots.insert('c', 4), Some(2));
        assert_eq!(slots.insert('d', 4), None);
        assert_eq!(slots.insert('d', 5), Some(0));
        assert_eq!(slots.iter().map(|(n, c)| (n, *c)).collect::<Vec<_>>(), [(0, 'd'), (1, 'b'), (2, 'c')]);
    }
}
