//! How long a client of a service is remembered.

use super::Setup;
use loaded_ipc::Affinity;

/// A client's entry in the affinity table is kept alive by its flows, but by each only once in this part of its
/// timeout: it saves a look-up a packet. The client is remembered longer by as much, never less long.
const GRAINS: u32 = 16;

/// Of one service.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Seconds; 0 for a service without affinity, whose clients are its flows.
    timeout: u32,
    /// Times that are the same but for so many low bits count as one.
    grain: u32,
}

/// Of all services, by index.
#[derive(Debug)]
pub(crate) struct Memories(Box<[Memory]>);

impl Memories {
    pub(crate) fn new(setup: &Setup) -> Self {
        let affinities = setup.services.iter().map(|service| service.as_ref().and_then(|s| s.affinity.as_ref()));
        Self(affinities.map(Memory::new).collect())
    }

    #[inline]
    pub(crate) fn of(&self, service: u16) -> Memory {
        self.0.get(usize::from(service)).copied().unwrap_or_default()
    }

    /// Seconds; 0 for a service without affinity, whose clients are its flows.
    #[inline]
    pub(crate) fn timeout(&self, service: u16) -> u32 {
        self.of(service).timeout
    }
}

impl Memory {
    fn new(affinity: Option<&Affinity>) -> Self {
        let Some(affinity) = affinity else { return Self::default() };
        let grain = (affinity.timeout / GRAINS).checked_ilog2().unwrap_or(0);
        Self { timeout: affinity.timeout.saturating_add((1 << grain) - 1), grain }
    }

    /// Whether a client seen then need not be seen again now.
    #[inline]
    pub(crate) fn is_fresh(self, seen: u32, now: u32) -> bool {
        self.timeout == 0 || seen >> self.grain == now >> self.grain
    }
}
