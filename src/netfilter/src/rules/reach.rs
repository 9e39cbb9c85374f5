//! Which traffic the rules hand to the workers: what the plan serves, and what is leaving. A removed service, VIP, port or
//! backend keeps its flows until its drain deadline, so its packets go to the workers until then.

use loaded_config::plan::{Backend, Plan, Service};
use loaded_ipc::{Destination, Mode, OnFailure, PortRange, Protocol, Unserved};
use std::net::IpAddr;

/// The traffic that the rules hand to the workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The instance's queue base; its chains are named after it.
    pub base: u16,
    /// Name servers: traffic from and to their port 53 is never balanced.
    pub nameservers: Vec<IpAddr>,
    /// Whether the kernel reassembles packets before the rules see them; otherwise fragments go to the workers.
    pub defragment: bool,
    /// Whether all packets to a VIP go to the workers, even those no service serves.
    pub whole_vips: bool,
    /// Whether packets pass unchanged while no process has bound the queue. Not while replies are translated: see
    /// [`Reach::bypasses`].
    pub bypass: bool,
    /// The local ports of connections that this host opens itself (net.ipv4.ip_local_port_range, of both families).
    pub own_ports: PortRange,
    /// In any order; may overlap: the rules are made from the union.
    pub served: Vec<Served>,
}

/// A service as netfilter sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Packets to these are requests.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Empty means every port; ignored for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// Packets from these are replies: from their port or, if they have none, from the service's ports. Empty in mode "dsr",
    /// where replies bypass this host.
    pub backends: Vec<Destination>,
    /// Whether these backends may answer by any interface, in whatever service.
    pub asymmetric: bool,
    /// Whether packets to these backends' own addresses, past the virtual IPs, go to the workers too: they note whose connections
    /// these are.
    pub adopts: bool,
}

/// The kernel's default (inet_init_net, net/ipv4/af_inet.c).
const OWN_PORTS: PortRange = PortRange { low: 32768, high: 60999 };

impl Reach {
    /// What the plan serves. [`Reach::extend`] adds backends discovered later.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            base: plan.queue_base,
            nameservers: plan.nameservers.clone(),
            defragment: plan.defragment,
            whole_vips: plan.unserved == Unserved::Drop,
            bypass: plan.on_failure.no_worker == OnFailure::Pass,
            own_ports: OWN_PORTS,
            served: plan.services.iter().map(Served::of).collect(),
        }
    }

    /// Adds what is leaving or was discovered; duplicates make no extra rules. An address has one role: in a plan no VIP is a
    /// backend or a name server, but an address may have had another role before. The role it has here already wins, and the
    /// newcomer loses the address with its flows: the rules first check whether a packet comes from a VIP, and would let
    /// such a backend's replies bypass the workers.
    pub fn extend(&mut self, mut more: Served) {
        let backend = |address: &IpAddr| self.backends().any(|backend| backend == *address);
        more.vips.retain(|vip| !backend(vip) && !self.nameservers.contains(vip));
        let vip = |address: &IpAddr| self.served.iter().any(|served| served.vips.contains(address));
        more.backends.retain(|backend| !vip(&backend.address));
        if !more.vips.is_empty() {
            self.served.push(more);
        }
    }

    /// Whether packets may bypass an unbound queue: never while any service, even a leaving one, is of mode "nat".
    pub(crate) fn bypasses(&self) -> bool {
        self.bypass && self.backends().next().is_none()
    }

    pub(crate) fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.served.iter().flat_map(|served| served.vips.iter().copied())
    }

    /// Whether packets in this backend's name are replies only if they come by an interface that the route to it leads
    /// through.
    pub(crate) fn is_checked(&self, backend: IpAddr) -> bool {
        !self
            .served
            .iter()
            .any(|served| served.asymmetric && served.backends.iter().any(|known| known.address == backend))
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = IpAddr> {
        self.served.iter().flat_map(|served| served.backends.iter().map(|backend| backend.address))
    }

    /// What requests to a VIP are of.
    pub(crate) fn to_vip(&self, vip: IpAddr) -> impl Iterator<Item = (Protocol, &[PortRange])> {
        let served = self.served.iter().filter(move |served| served.vips.contains(&vip));
        served.map(|served| (served.protocol, served.ports.as_slice()))
    }
}

impl Served {
    /// What replies of a backend are of: one entry for each port that it has, or the service's ports.
    pub(crate) fn replies_of(&self, address: IpAddr) -> impl Iterator<Item = (Protocol, Vec<PortRange>)> {
        self.backends.iter().filter(move |backend| backend.address == address).map(|backend| match backend.port {
            Some(port) => (self.protocol, vec![PortRange { low: port, high: port }]),
            None => (self.protocol, self.ports.clone()),
        })
    }

    /// A service of a plan.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self {
            vips: service.vips.clone(),
            protocol: service.protocol,
            ports: service.ports.clone(),
            backends: match service.mode {
                Mode::Nat => service.backends.iter().map(Backend::destination).collect(),
                Mode::Dsr => Vec::new(),
            },
            asymmetric: service.policy.asymmetric,
            adopts: service.policy.adopt,
        }
    }
}
