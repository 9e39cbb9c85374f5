//! Judges what the prober says: it may be wrong, out of step or hostile.

use super::Roster;
use loaded_config::network::Network;
use loaded_ipc::{BackendIndex, Cause, FromProber, ServiceIndex};
use std::net::IpAddr;
use std::time::Instant;

/// The prober has said something that cannot be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the prober says what cannot be true: {0}")]
pub struct Impossible(&'static str);

impl Roster {
    /// Takes what the prober says of a backend. Returns the backend if it has gone up or down by that.
    ///
    /// # Errors
    /// [`Impossible`]: the prober is out of step or hostile.
    pub fn judge(&mut self, said: &FromProber, now: Instant) -> Result<Option<BackendIndex>, Impossible> {
        let (&FromProber::Changed { backend, cause, latency, .. } | &FromProber::Measured { backend, cause, latency }) =
            said
        else {
            return Err(Impossible("not a judgement"));
        };
        let entry = self.backends.get(backend.0).ok_or(Impossible("a backend that does not exist"))?;
        let service = self.services.get(entry.service.0).ok_or(Impossible("a backend of no service"))?;
        let check = service.service.check.as_ref().ok_or(Impossible("a backend that is not checked"))?;
        // It was removed a moment ago; the prober hears of that with the next generation.
        if entry.leaves.is_some() {
            return Ok(None);
        }
        if matches!(cause, Cause::Unchecked) {
            return Err(Impossible("a check that was not made"));
        }
        if u64::from(latency) > u64::from(check.timeout) * 2000 {
            return Err(Impossible("a check that took longer than it may"));
        }
        let known = entry.health;
        let entry = self.backends.get_mut(backend.0).ok_or(Impossible("no backend"))?;
        let (health, confirmed) = (&mut entry.health, &mut entry.confirmed);
        (health.cause, health.latency) = (cause, latency);
        let &FromProber::Changed { up, .. } = said else { return Ok(None) };
        if known.proven && known.up == up {
            return Err(Impossible("a change to what already is"));
        }
        if (cause == Cause::Passed) != up || matches!(cause, Cause::Unchecked | Cause::NotMade) {
            return Err(Impossible("a change without its cause"));
        }
        self.revision += 1;
        health.proven = true;
        *confirmed |= up;
        if known.up == up {
            return Ok(None);
        }
        (health.up, health.since) = (up, now);
        health.rose = up.then_some(now);
        Ok(Some(backend))
    }

    /// Whether an address that has answered a search may become a backend of this service: the service searches in that network,
    /// the address is no VIP and not yet one of its backends, and the limit is not reached.
    #[must_use]
    pub fn may_join(&self, index: ServiceIndex, address: IpAddr) -> bool {
        let Some(entry) = self.services.get(index.0).filter(|entry| entry.leaves.is_none()) else { return false };
        let Some(discover) = &entry.service.discover else { return false };
        let of_service = || self.backends().filter(|(_, backend)| backend.service == index && backend.leaves.is_none());
        let found = of_service().filter(|(_, backend)| backend.discovered).count();
        discover.places.iter().any(|place| place.network.contains(address) && is_host(place.network, address))
            && self.vips().all(|(_, vip)| vip != address)
            && of_service().all(|(_, backend)| backend.address != address)
            && found < usize::from(discover.limit)
    }
}

/// Whether an address is neither the network's own address nor its broadcast address.
fn is_host(network: Network, address: IpAddr) -> bool {
    !network.is_ipv4() || (address != network.first() && address != network.last())
}
