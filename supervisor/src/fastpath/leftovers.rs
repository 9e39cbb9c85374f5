//! What an earlier instance has left at the interfaces.

use loaded_fastpath::filter::Filters;
use loaded_host::{Interface, reachable_interfaces};
use std::collections::BTreeSet;

/// Interfaces with a `clsact` that an earlier instance has made. It stays while packets pass: the kernel deactivates an interface
/// to add or remove one, and drops what it has to send meanwhile (`qdisc_graft` in net/sched/sch_api.c).
#[derive(Debug, Default)]
pub(crate) struct Leftovers(pub(super) BTreeSet<u32>);

impl Leftovers {
    /// Those that a predecessor has written down.
    pub(crate) fn of(clsacts: &[u32]) -> Self {
        Self(clsacts.iter().copied().collect())
    }

    pub(crate) fn clsacts(&self) -> Vec<u32> {
        self.0.iter().copied().collect()
    }

    /// Both.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Detaches what an earlier instance of this base has left. Its packets go by the queue then.
    pub(crate) fn detach(base: u16) -> Self {
        let mut this = Self::default();
        let mut filters = match Filters::open(base) {
            Ok(filters) => filters,
            Err(error) => {
                log::warn!("{error}");
                return this;
            }
        };
        let interfaces = reachable_interfaces().unwrap_or_else(|error| {
            log::warn!(
                "kernel path: interfaces are not listed, and what an earlier instance has left there stays: {error}"
            );
            Vec::new()
        });
        for Interface { name, index, .. } in interfaces {
            match filters.is_attached(index) {
                Ok(true) => {
                    log::info!("kernel path: what an earlier instance has attached to {name} is detached");
                    if let Err(error) = filters.detach(index, false) {
                        log::warn!("{name}: {error}");
                    }
                    this.0.insert(index);
                }
                Ok(false) => {}
                Err(error) => log::warn!("{name}: {error}"),
            }
        }
        this
    }

    /// Removes what is left of it, and nobody else uses.
    pub(crate) fn remove(self, base: u16) {
        if self.0.is_empty() {
            return;
        }
        match Filters::open(base) {
            Ok(mut filters) => self.remove_by(&mut filters),
            Err(error) => log::warn!("{error}"),
        }
    }

    pub(super) fn remove_by(self, filters: &mut Filters) {
        for error in self.0.into_iter().filter_map(|index| filters.detach(index, true).err()) {
            log::warn!("{error}");
        }
    }
}
