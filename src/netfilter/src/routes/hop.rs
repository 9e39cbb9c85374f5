//! Where packets with a mark go.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The next hop for packets with a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The backend.
    pub address: IpAddr,
    /// The interface of its network.
    pub interface: String,
}

/// Next hops by backend number.
pub type Hops = BTreeMap<u16, Hop>;
