//! Counts, approximately, how many protected flows (those that are never evicted for others) each source prefix has.
//!
//! A spoofed source cannot have any, since it hears no answer; but whoever owns a prefix can have as many as they like. So
//! they are counted by prefix, and flows over a share may be evicted: after expired, unanswered and unproven flows, before
//! those of its last second and of mode "dsr". No client is refused for having many, and as long as few flows are protected
//! none is evicted for that.
//!
//! The count is a sketch in fixed memory (count-min, Cormode and Muthukrishnan 2005): two rows of cells, of which a prefix has
//! one in each row, by a keyed hash; the lower of the two counts. It is never too low, since a flow adds to its cells and takes
//! exactly that away when it ends. It is too high by about what other prefixes have in a cell: with [`WIDTH`] cells 0.02 % of
//! all, where a share is 1 % or more. The sketch lives in the worker's own memory, and whoever opens a table counts what is
//! there, so that no error outlives a worker.

use siphasher::sip::SipHasher13;

/// Cells of a row.
const WIDTH: usize = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 12;

/// Counts the protected flows of one flow table by source prefix.
#[derive(Debug, Default)]
pub struct QuotaTracker {
    prefix4: u8,
    prefix6: u8,
    percent: u8,
    /// Protected flows that a prefix may have once the table is `scarce`.
    share: u32,
    /// Number of protected flows from which on shares are enforced.
    scarce: u32,
    key: [u64; 2],
    /// All protected flows.
    total: u32,
    /// Both rows; empty if nothing is counted.
    cells: Box<[u32]>,
}

impl QuotaTracker {
    /// For prefixes of this many leading bits (at most 32 and 128), each with a share of `percent` % of the table's capacity.
    /// Allocates 32 KiB; the default allocates nothing and sets no limit.
    #[must_use]
    pub fn new(prefix4: u8, prefix6: u8, percent: u8) -> Self {
        Self { prefix4, prefix6, percent, cells: vec![0; 2 * WIDTH].into(), ..Self::default() }
    }

    /// Starts with nothing counted, for a table of this capacity and hash key.
    pub(crate) fn begin(&mut self, capacity: usize, key: [u64; 2]) {
        let share = capacity.saturating_mul(self.percent.into()) / 100;
        self.share = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        self.scarce = u32::try_from(capacity / 2).unwrap_or(u32::MAX);
        // A hash other than the one that chooses buckets.
        self.key = [key[0] ^ 0x7175_6f74_6173_2121, key[1]];
        self.forget();
    }

    pub(crate) fn forget(&mut self) {
        self.total = 0;
        self.cells.fill(0);
    }

    /// Whether one more flow of this client may be protected; if so, counts it.
    pub(crate) fn take(&mut self, client: &[u8; 16]) -> bool {
        if self.cells.is_empty() {
            return true;
        }
        let cells = self.cells_of(client);
        let within = self.total < self.scarce || self.least(cells) < self.share;
        if within {
            self.update(cells, |count| count.saturating_add(1));
        }
        within
    }

    /// Counts a flow that is protected already.
    pub(crate) fn count(&mut self, client: &[u8; 16]) {
        if !self.cells.is_empty() {
            self.update(self.cells_of(client), |count| count.saturating_add(1));
        }
    }

    /// Counts one flow less: it is not protected any more.
    pub(crate) fn release(&mut self, client: &[u8; 16]) {
        if !self.cells.is_empty() {
            self.update(self.cells_of(client), |count| count.saturating_sub(1));
        }
    }

    /// How many are counted for this client's prefix.
    pub(crate) fn of(&self, client: &[u8; 16]) -> u32 {
        if self.cells.is_empty() { 0 } else { self.least(self.cells_of(client)) }
    }

    fn least(&self, cells: [usize; 2]) -> u32 {
        cells.iter().filter_map(|cell| self.cells.get(*cell)).copied().min().unwrap_or(0)
    }

    fn update(&mut self, cells: [usize; 2], change: impl Fn(u32) -> u32) {
        self.total = change(self.total);
        for cell in cells {
            if let Some(count) = self.cells.get_mut(cell) {
                *count = change(*count);
            }
        }
    }

    /// The cells of a client's prefix.
    fn cells_of(&self, client: &[u8; 16]) -> [usize; 2] {
        // ::ffff:0:0/96 (RFC 4291 §2.5.5.2): IPv4.
        let v4 = client[..10].iter().all(|byte| *byte == 0) && client[10..12] == [0xff; 2];
        let bits = if v4 { 96 + u32::from(self.prefix4.min(32)) } else { u32::from(self.prefix6.min(128)) };
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let prefix = (u128::from_be_bytes(*client) & mask).to_be_bytes();
        let hash = SipHasher13::new_with_keys(self.key[0], self.key[1]).hash(&prefix);
        let cell = |bits: u64| usize::try_from(bits % WIDTH as u64).unwrap_or(0);
        [cell(hash), WIDTH + cell(hash >> WIDTH_BITS)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(address: u32) -> [u8; 16] {
        let mut client = [0; 16];
        client[10..12].fill(0xff);
        client[12..].copy_from_slice(&address.to_be_bytes());
        client
    }

    fn v6(address: u128) -> [u8; 16] {
        address.to_be_bytes()
    }

    /// For a table of this capacity.
    fn quota(prefix4: u8, prefix6: u8, percent: u8, capacity: usize) -> QuotaTracker {
        let mut quota = QuotaTracker::new(prefix4, prefix6, percent);
        quota.begin(capacity, [1, 2]);
        quota
    }

    #[test]
    fn a_share_is_enforced_once_half_of_the_table_is_protected() {
        let mut quota = quota(24, 48, 10, 1000);
        // One network may have any number, until there are 500.
        assert_eq!((0..600).filter(|n| quota.take(&v4(0x0a00_0000 + n % 256))).count(), 500);
        assert!((0..100).all(|n| quota.take(&v4(0x0b00_0000 + n))), "another network gets its share");
        assert!(!quota.take(&v4(0x0b00_00ff)));
        assert!(quota.take(&v6(0x2001_0db8 << 96)), "and so does one of the other family");
        // When flows end, anyone may have their place.
        (0..102).for_each(|n| quota.release(&v4(0x0a00_0000 + n % 256)));
        assert!(quota.take(&v4(0x0a00_0001)));
    }

    #[test]
    fn clients_of_one_prefix_share_cells_and_others_do_not() {
        for (same, other) in [
            ([v4(0xc0a8_0101), v4(0xc0a8_01ff)], v4(0xc0a8_0201)),
            ([v6(0x2001_0db8_0001_0002 << 64), v6(0x2001_0db8_0001_ffff << 64 | 9)], v6(0x2001_0db8_0002 << 80)),
        ] {
            let quota = quota(24, 48, 2, 100);
            assert_eq!(quota.cells_of(&same[0]), quota.cells_of(&same[1]));
            assert_ne!(quota.cells_of(&same[0]), quota.cells_of(&other));
        }
        let all = quota(0, 0, 2, 100);
        assert_eq!(all.cells_of(&v6(1)), all.cells_of(&v6(u128::MAX)));
        let each = quota(32, 128, 2, 100);
        assert_ne!(each.cells_of(&v4(1)), each.cells_of(&v4(2)));
    }

    /// Even as many prefixes as the table has flows bring no other prefix near its share.
    #[test]
    fn other_prefixes_hardly_raise_a_count() {
        let capacity = 262_144;
        let mut quota = quota(24, 48, 2, capacity);
        (0..262_144).for_each(|n| quota.count(&v4(n << 8)));
        let most = (0..10_000).map(|n| quota.least(quota.cells_of(&v4(0x8000_0000 | n << 8)))).max();
        assert!(most.is_some_and(|most| most < quota.share / 20), "{most:?} of {}", quota.share);
    }

    #[test]
    fn releasing_too_often_does_not_wrap() {
        let mut quota = quota(24, 48, 2, 100);
        quota.release(&v4(1));
        assert!(quota.take(&v4(1)));
        (0..3).for_each(|_| quota.release(&v4(1)));
        assert_eq!((quota.total, quota.cells.iter().sum::<u32>()), (0, 0));
        let mut none = QuotaTracker::default();
        none.begin(1, [1, 2]);
        assert!((0..100).all(|_| none.take(&v4(1))));
    }
}
