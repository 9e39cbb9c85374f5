//! Which service a backend's packet may be a reply of, by where it comes from.

use super::Setup;
use super::model::Vip;
use crate::wire::{Address, is_mapped, protocol};
use loaded_ipc::PortRange;

/// What a port of a backend is for. Ports are in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// One port of one virtual IP is reached there.
    Place {
        /// The virtual IP.
        vip: u16,
        /// The port there.
        vip_port: u16,
        /// The service.
        service: u16,
        /// The backend.
        backend: u16,
    },
    /// Several are: which of them a client used, its packet tells alone.
    Several {
        /// One of the backends with this address.
        backend: u16,
    },
    /// Nothing that is known by its port: no service is there, or one for all protocols, whose backends' own traffic looks the same.
    Anything,
}

impl Setup {
    /// What this port of a backend is for. `number` is the protocol's in IANA's list. Takes as long as the virtual IPs have ports
    /// with services, times the backends at this address.
    pub(crate) fn origin(&self, address: &Address, number: u8, port: u16) -> Origin {
        let first = self.backend_order.partition_point(|(a, _)| a < address);
        let here = self.backend_order.iter().skip(first).take_while(|(a, _)| a == address);
        let mut found = Origin::Anything;
        for (backend, b) in here.filter_map(|&(_, index)| Some((index, self.backend(index)?))) {
            for (vip, v) in (0_u16..).zip(&self.vips).filter_map(|(index, vip)| Some((index, vip.as_ref()?))) {
                if is_mapped(&v.address) != is_mapped(address) {
                    continue;
                }
                if v.any == Some(b.service) {
                    return Origin::Anything;
                }
                for (range, service) in v.ports_of(number).iter().filter(|(_, service)| *service == b.service) {
                    let Some(vip_port) = port_at_vip(*range, b.port, port) else { continue };
                    found = match (found, vip_port) {
                        (Origin::Anything, Some(vip_port)) => {
                            Origin::Place { vip, vip_port, service: *service, backend }
                        }
                        _ => Origin::Several { backend },
                    };
                }
            }
        }
        found
    }
}

/// Whether a packet to a port of this range is met at `port` of the backend. Inside, the port at the virtual IP, if it is only one.
fn port_at_vip(range: PortRange, of_backend: Option<u16>, port: u16) -> Option<Option<u16>> {
    match of_backend {
        None => (range.low..=range.high).contains(&port).then_some(Some(port)),
        Some(own) => (own == port).then_some((range.low == range.high).then_some(range.low)),
    }
}

impl Vip {
    /// Sorted port ranges of a protocol, each with the index of its service.
    fn ports_of(&self, number: u8) -> &[(PortRange, u16)] {
        match number {
            protocol::TCP => &self.tcp,
            protocol::UDP => &self.udp,
            protocol::SCTP => &self.sctp,
            _ => &[],
        }
    }
}
