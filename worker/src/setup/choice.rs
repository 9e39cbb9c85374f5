//! Choosing a backend: a service's pool of one family.

use super::model::{Backend, ServicePool, Setup, slot};
use crate::balance::Balancer;
use crate::wire::Family;
use loaded_ipc::BackendIndex;

impl Setup {
    /// A service's backends of one family.
    pub fn pool(&mut self, index: u16, family: Family) -> Option<&mut ServicePool> {
        let service = self.services.get_mut(usize::from(index))?.as_deref_mut()?;
        Some(match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        })
    }

    /// The balancer of a service's backends of one family, for questions that change nothing.
    #[must_use]
    pub fn balancer(&self, index: u16, family: Family) -> Option<&Balancer> {
        let service = self.service(index)?;
        Some(match family {
            Family::V4 => &service.v4.balancer,
            Family::V6 => &service.v6.balancer,
        })
    }

    /// A service's backends of one family, by their indices.
    pub(crate) fn members(&self, index: u16, family: Family) -> impl Iterator<Item = u16> {
        let service = self.service(index).into_iter();
        service
            .flat_map(move |service| if family == Family::V4 { &*service.v4.backends } else { &*service.v6.backends })
            .copied()
    }

    /// The backend for a new client's packet to this port of a VIP, where no flow of these is that is given by its backend and
    /// its port at a VIP. Changes the balancer's turn.
    pub(crate) fn choose_elsewhere(
        &mut self,
        (index, vip_port): (u16, u16),
        family: Family,
        client: &[u8],
        taken: &[(u16, u16)],
    ) -> Option<BackendIndex> {
        let Self { services, backends, .. } = self;
        let service = services.get_mut(usize::from(index))?.as_deref_mut()?;
        let pool = match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        };
        pool.balancer.choose_where(client, |backend| !shares_place(backends, (backend.0, vip_port), taken))
    }

    /// What [`Setup::choose_elsewhere`] would return. Changes nothing.
    pub(crate) fn would_choose_elsewhere(
        &self,
        (index, vip_port): (u16, u16),
        family: Family,
        client: &[u8],
        taken: &[(u16, u16)],
    ) -> Option<BackendIndex> {
        let balancer = self.balancer(index, family)?;
        balancer.would_choose_where(client, |backend| !self.shares_place((backend.0, vip_port), taken))
    }

    /// Whether a flow comes to the address and port of one of these, which may be of other services. A flow is given by its
    /// backend and its port at a VIP.
    pub(crate) fn shares_place(&self, flow: (u16, u16), others: &[(u16, u16)]) -> bool {
        shares_place(&self.backends, flow, others)
    }

    /// Counts a client of a service at a backend, or one less.
    pub(crate) fn count_client(&mut self, service: u16, backend: u16, more: bool) {
        let Some(family) = self.backend(backend).map(Backend::family) else { return };
        if let Some(pool) = self.pool(service, family) {
            match more {
                true => pool.balancer.client_added(BackendIndex(backend)),
                false => pool.balancer.client_removed(BackendIndex(backend)),
            }
        }
    }
}

fn shares_place(backends: &[Option<Backend>], flow: (u16, u16), others: &[(u16, u16)]) -> bool {
    let place = |(backend, vip_port): (u16, u16)| {
        slot(backends, backend).map(|backend| (&backend.address, backend.port.unwrap_or(vip_port)))
    };
    others.iter().any(|&other| place(other) == place(flow))
}
