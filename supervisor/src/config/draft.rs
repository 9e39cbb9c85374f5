//! A draft: what one or several files say, each value well-formed and with its place, before anything is
//! compared with anything else. Both formats end here; [`super::check`] makes the plan of it.

use super::location::At;
use loaded_ipc::{Affinity, PortRange, Protocol, Strategy};
use std::net::IpAddr;

/// All that the files say. `None` takes the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) user: Option<String>,
    pub(super) cores: Option<At<(u16, u16)>>,
    pub(super) queue_base: Option<u16>,
    pub(super) queue_len: Option<u32>,
    pub(super) flows: Option<u32>,
    pub(super) clients: Option<u32>,
    pub(super) nameservers: Vec<At<IpAddr>>,
    /// Addresses of this host beside the VIPs (private_GW); no backend or VIP may be one of them.
    pub(super) gateways: Vec<At<IpAddr>>,
    pub(super) services: Vec<DraftService>,
}

/// One service as written.
#[derive(Debug, Clone)]
pub(super) struct DraftService {
    pub(super) name: At<String>,
    pub(super) vips: Vec<At<IpAddr>>,
    pub(super) protocol: Protocol,
    /// Empty is every port.
    pub(super) ports: Vec<At<PortRange>>,
    pub(super) strategy: Strategy,
    pub(super) affinity: Option<Affinity>,
    pub(super) members: Vec<DraftMember>,
}

/// One backend of a service as written.
#[derive(Debug, Clone)]
pub(super) struct DraftMember {
    pub(super) address: At<IpAddr>,
    pub(super) weight: u16,
}
