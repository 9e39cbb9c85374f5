//! How many protected flows (those that are never given up for others) each source prefix has, about.
//!
//! A spoofed source cannot have any, for it hears no answer; who has a prefix can have as many as he likes. So they are
//! counted by prefix, and what is beyond a share may be given up: after everything else, but before a new flow is turned
//! away. Nobody is refused for having many, and as long as little is protected nobody loses anything.
//!
//! The count is a sketch in fixed memory: two rows of cells, and a prefix has one of each row, by a keyed hash; the lower
//! of the two is taken. It is never less than the truth, for what comes adds to its cells and takes exactly that away
//! when it goes, and more by about what all others have in a cell (count-min, Cormode and Muthukrishnan 2005): with
//! [`WIDTH`] cells 0.02 % of all, where a share is 1 % or more. It lives in the worker's own memory; who opens a table
//! counts what is there, so that nothing that ever went wrong outlives a worker.

use siphasher::sip::SipHasher13;

/// Cells of a row.
const WIDTH: usize = 1 << WIDTH_BITS;
const WIDTH_BITS: u32 = 12;

/// The counts of one flow table.
#[derive(Debug, Default)]
pub struct QuotaTracker {
    prefix4: u8,
    prefix6: u8,
    percent: u8,
    /// Protected flows a prefix may have when it matters, and from how many in all on it does.
    share: u32,
    scarce: u32,
    key: [u64; 2],
    /// All protected flows.
    held: u32,
    /// Both rows; none where nothing is counted.
    cells: Box<[u32]>,
}

impl QuotaTracker {
    /// For prefixes of so many leading bits (at most 32 and 128), each of which has a share of `percent` of the flows that
    /// the table promises. Takes its memory, 32 KiB; the default takes none, and sets no bounds.
    #[must_use]
    pub fn new(prefix4: u8, prefix6: u8, percent: u8) -> Self {
        Self { prefix4, prefix6, percent, cells: vec![0; 2 * WIDTH].into(), ..Self::default() }
    }

    /// Begins for a table that promises so many flows and hashes with this key, with nothing in it.
    pub(crate) fn begin(&mut self, capacity: usize, key: [u64; 2]) {
        let share = capacity.saturating_mul(self.percent.into()) / 100;
        self.share = u32::try_from(share).unwrap_or(u32::MAX).max(1);
        self.scarce = u32::try_from(capacity / 2).unwrap_or(u32::MAX);
        // Not the hash that chooses buckets.
        self.key = [key[0] ^ 0x7175_6f74_6173_2121, key[1]];
        self.forget();
    }

    pub(crate) fn forget(&mut self) {
        self.held = 0;
        self.cells.fill(0);
    }

    /// Whether one more flow of this client may be protected; if so, it is counted.
    pub(crate) fn take(&mut self, client: &[u8; 16]) -> bool {
        if self.cells.is_empty() {
            return true;
        }
        let places = self.places(client);
        let within = self.held < self.scarce || self.least(places) < self.share;
        if within {
            self.each(places, |count| count.saturating_add(1));
        }
        within
    }

    /// Counts a flow that is protected already.
    pub(crate) fn count(&mut self, client: &[u8; 16]) {
        if !self.cells.is_empty() {
            self.each(self.places(client), |count| count.saturating_add(1));
        }
    }

    /// One that was counted is protected no more.
    pub(crate) fn give(&mut self, client: &[u8; 16]) {
        if !self.cells.is_empty() {
            self.each(self.places(client), |count| count.saturating_sub(1));
        }
    }

    /// How many are counted of this client's prefix; 0 where nothing is.
    pub(crate) fn of(&self, client: &[u8; 16]) -> u32 {
        if self.cells.is_empty() { 0 } else { self.least(self.places(client)) }
    }

    fn least(&self, places: [usize; 2]) -> u32 {
        places.iter().filter_map(|place| self.cells.get(*place)).copied().min().unwrap_or(0)
    }

    fn each(&mut self, places: [usize; 2], change: impl Fn(u32) -> u32) {
        self.held = change(self.held);
        for place in places {
            if let Some(count) = self.cells.get_mut(place) {
                *count = change(*count);
            }
        }
    }

    /// The cells of a client's prefix.
    fn places(&self, client: &[u8; 16]) -> [usize; 2] {
        // ::ffff:0:0/96 (RFC 4291 §2.5.5.2): IPv4.
        let v4 = client[..10].iter().all(|byte| *byte == 0) && client[10..12] == [0xff; 2];
        let bits = if v4 { 96 + u32::from(self.prefix4.min(32)) } else { u32::from(self.prefix6.min(128)) };
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let prefix = (u128::from_be_bytes(*client) & mask).to_be_bytes();
        let hash = SipHasher13::new_with_keys(self.key[0], self.key[1]).hash(&prefix);
        let place = |bits: u64| usize::try_from(bits % WIDTH as u64).unwrap_or(0);
        [place(hash), WIDTH + place(hash >> WIDTH_BITS)]
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

    /// Of a table of so many flows.
    fn quota(prefix4: u8, prefix6: u8, percent: u8, capacity: usize) -> QuotaTracker {
        let mut quota = QuotaTracker::new(prefix4, prefix6, percent);
        quota.begin(capacity, [1, 2]);
        quota
    }

    #[test]
    fn a_share_binds_when_half_is_taken_and_not_before() {
        let mut quota = quota(24, 48, 10, 1000);
        // One network has all it likes, until there are 500.
        assert_eq!((0..600).filter(|n| quota.take(&v4(0x0a00_0000 + n % 256))).count(), 500);
        assert!((0..100).all(|n| quota.take(&v4(0x0b00_0000 + n))), "another has its share");
        assert!(!quota.take(&v4(0x0b00_00ff)));
        assert!(quota.take(&v6(0x2001_0db8 << 96)), "and one of the other family");
        // Where room comes back it is everybody's.
        (0..102).for_each(|n| quota.give(&v4(0x0a00_0000 + n % 256)));
        assert!(quota.take(&v4(0x0a00_0001)));
    }

    #[test]
    fn neighbours_share_and_strangers_do_not() {
        for (same, other) in [
            ([v4(0xc0a8_0101), v4(0xc0a8_01ff)], v4(0xc0a8_0201)),
            ([v6(0x2001_0db8_0001_0002 << 64), v6(0x2001_0db8_0001_ffff << 64 | 9)], v6(0x2001_0db8_0002 << 80)),
        ] {
            let quota = quota(24, 48, 2, 100);
            assert_eq!(quota.places(&same[0]), quota.places(&same[1]));
            assert_ne!(quota.places(&same[0]), quota.places(&other));
        }
        let all = quota(0, 0, 2, 100);
        assert_eq!(all.places(&v6(1)), all.places(&v6(u128::MAX)));
        let each = quota(32, 128, 2, 100);
        assert_ne!(each.places(&v4(1)), each.places(&v4(2)));
    }

    /// As many prefixes as a table could hold at all lift none of the others near its share.
    #[test]
    fn strangers_in_a_cell_are_few() {
        let capacity = 262_144;
        let mut quota = quota(24, 48, 2, capacity);
        (0..262_144).for_each(|n| quota.count(&v4(n << 8)));
        let most = (0..10_000).map(|n| quota.least(quota.places(&v4(0x8000_0000 | n << 8)))).max();
        assert!(most.is_some_and(|most| most < quota.share / 20), "{most:?} of {}", quota.share);
    }

    #[test]
    fn what_is_given_twice_or_never_taken_wraps_nothing() {
        let mut quota = quota(24, 48, 2, 100);
        quota.give(&v4(1));
        assert!(quota.take(&v4(1)));
        (0..3).for_each(|_| quota.give(&v4(1)));
        assert_eq!((quota.held, quota.cells.iter().sum::<u32>()), (0, 0));
        let mut none = QuotaTracker::default();
        none.begin(1, [1, 2]);
        assert!((0..100).all(|_| none.take(&v4(1))));
    }
}
