//! What rules bring to the workers: what the plan serves, and what is leaving. A removed service, VIP, port or backend
//! keeps its flows until its drain deadline, so its packets go to the workers until then.

use loaded_config::plan::{Plan, Service};
use loaded_ipc::{Mode, OnFailure, PortRange, Protocol, Unserved};
use std::net::IpAddr;

/// What rules bring to the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The instance's queue base, after which its chains are named.
    pub base: u16,
    /// Port 53 from and to them is never balanced.
    pub nameservers: Vec<IpAddr>,
    /// Whether the kernel is to put packets together before rules see them; else their pieces are brought to the workers.
    pub defragment: bool,
    /// Whether whatever is sent to a VIP goes to the workers, also what nobody serves there.
    pub whole_vips: bool,
    /// Whether packets go on as they are when nobody has bound a queue. Not while replies are translated: see
    /// [`Reach::bypasses`].
    pub bypass: bool,
    /// In any order and overlapping as they like: rules are made of the union.
    pub served: Vec<Served>,
}

/// A service as netfilter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Packets to these are requests.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Empty means every port; not looked at for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// Packets from these are replies. None in mode "dsr": there replies go another way.
    pub backends: Vec<IpAddr>,
}

impl Reach {
    /// What the plan serves. Backends that are found later come by [`Reach::extend`].
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            base: plan.queue_base,
            nameservers: plan.nameservers.clone(),
            defragment: plan.defragment,
            whole_vips: plan.unserved == Unserved::Drop,
            bypass: plan.on_failure.no_worker == OnFailure::Pass,
            served: plan.services.iter().map(Served::of).collect(),
        }
    }

    /// Adds what is leaving or was found; what is covered already makes no rule twice. An address has one role: a plan
    /// has no VIP that is a backend or a name server, but one of its addresses may have been a VIP or a backend before.
    /// What is here already wins, and the newcomer loses the address, with the flows it had there: rules ask first
    /// whether a packet comes from a VIP, and would let the replies of such a backend pass the workers.
    pub fn extend(&mut self, mut more: Served) {
        let backend = |address: &IpAddr| self.served.iter().any(|served| served.backends.contains(address));
        more.vips.retain(|vip| !backend(vip) && !self.nameservers.contains(vip));
        let vip = |address: &IpAddr| self.served.iter().any(|served| served.vips.contains(address));
        more.backends.retain(|backend| !vip(backend));
        if !more.vips.is_empty() {
            self.served.push(more);
        }
    }

    /// A service of mode "nat" may be leaving while all others are of the other mode: until it has left, nothing passes.
    pub(crate) fn bypasses(&self) -> bool {
        self.bypass && self.backends().next().is_none()
    }

    pub(crate) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.served.iter().flat_map(|served| served.vips.iter().copied())
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = IpAddr> {
        self.served.iter().flat_map(|served| served.backends.iter().copied())
    }
}

impl Served {
    /// A service of a plan.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self {
            vips: service.vips.clone(),
            protocol: service.protocol,
            ports: service.ports.clone(),
            backends: match service.mode {
                Mode::Nat => service.backends.iter().map(|backend| backend.address).collect(),
                Mode::Dsr => Vec::new(),
            },
        }
    }
}
