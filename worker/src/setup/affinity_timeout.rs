//! How long a client is remembered by the affinity of each service.

use super::model::Setup;
use loaded_ipc::Affinity;

/// A flow refreshes its client's entry in the affinity table only once in this part of the timeout, which saves a look-up
/// for each packet. The client is remembered longer by as much, never shorter.
const GRAINS: u32 = 16;

/// Of one service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AffinityTimeout {
    /// Seconds; 0 for a service without affinity, whose flows count as clients.
    seconds: u32,
    /// Times that differ only in this many low bits count as the same.
    grain: u32,
}

/// Of all services, by index.
#[derive(Debug)]
pub(crate) struct AffinityTimeouts(Box<[AffinityTimeout]>);

impl AffinityTimeouts {
    pub(crate) fn new(setup: &Setup) -> Self {
        Self(setup.services().map(|service| AffinityTimeout::new(service.and_then(|s| s.affinity.as_ref()))).collect())
    }

    #[inline]
    pub(crate) fn of(&self, service: u16) -> AffinityTimeout {
        self.0.get(usize::from(service)).copied().unwrap_or_default()
    }

    /// Seconds; 0 for a service without affinity, whose flows count as clients.
    #[inline]
    pub(crate) fn seconds(&self, service: u16) -> u32 {
        self.of(service).seconds
    }
}

impl AffinityTimeout {
    fn new(affinity: Option<&Affinity>) -> Self {
        let Some(affinity) = affinity else { return Self::default() };
        let grain = (affinity.timeout / GRAINS).checked_ilog2().unwrap_or(0);
        Self { seconds: affinity.timeout.saturating_add((1 << grain) - 1), grain }
    }

    /// Whether a client that was seen at `seen` need not be refreshed at `now`, both in seconds.
    #[inline]
    pub(crate) fn is_fresh(self, seen: u32, now: u32) -> bool {
        self.seconds == 0 || seen >> self.grain == now >> self.grain
    }
}
