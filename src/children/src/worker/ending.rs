//! The order to end flows that a worker's process has, and what it has said of it. It may be hostile: it can answer an order once, and
//! only its own. It answers an order when it is through with its table, however long that takes and whoever still waits; until then it
//! gets no other, for the second would take the place of the first.

/// The order of one process.
#[derive(Debug, Default)]
pub(super) struct Ending(Option<EndOrder>);

#[derive(Debug, Clone, Copy)]
struct EndOrder {
    id: u32,
    /// How many flows it has ended, once it has said so.
    ended: Option<u32>,
}

impl Ending {
    /// Notes an order. `false`: it is still at the one before, so this must not be given.
    pub(super) fn ordered(&mut self, id: u32) -> bool {
        let is_at_it = self.0.is_some_and(|order| order.ended.is_none());
        if !is_at_it {
            self.0 = Some(EndOrder { id, ended: None });
        }
        !is_at_it
    }

    /// Takes what it says. `false`: nobody has ordered that, or it has said so before.
    pub(super) fn said(&mut self, id: u32, ended: u32) -> bool {
        let order = self.0.as_mut().filter(|order| order.id == id && order.ended.is_none());
        order.map(|order| order.ended = Some(ended)).is_some()
    }

    /// How many flows it has ended by this order, if it has said so, and never more than its table has `places`; `None`: it does not
    /// have this order.
    pub(super) fn of(&self, id: u32, places: u32) -> Option<Option<u32>> {
        self.0.filter(|order| order.id == id).map(|order| order.ended.map(|ended| ended.min(places)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_answered_once_and_none_takes_the_place_of_another() {
        let mut ending = Ending::default();
        assert!(!ending.said(0, 1), "nobody has ordered anything");
        assert!(ending.ordered(1));
        assert!(!ending.ordered(2), "it is still at the first");
        assert_eq!((ending.of(1, 9), ending.of(2, 9)), (Some(None), None));
        assert!(!ending.said(2, 5));
        assert!(ending.said(1, 5), "late, and true");
        assert_eq!((ending.of(1, 9), ending.of(1, 4)), (Some(Some(5)), Some(Some(4))));
        assert!(!ending.said(1, 6), "said before");
        assert!(ending.ordered(3) && ending.said(3, 0));
    }
}
