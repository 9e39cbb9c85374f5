//! Where clients of a virtual server come to.

use crate::model::{number, one_port, ports};
use crate::position::Position;
use loaded_config::plan::MAX_VIPS;
use loaded_ipc::PortRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clients come to: addresses, with their ports. No ports: every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) at: Position,
    pub(super) vips: Vec<IpAddr>,
    pub(super) port: Option<PortRange>,
}

impl Front {
    /// `192.0.2.1 80`, `192.0.2.1-10 80`, `2001:db8::1-f 80`; without a port, or with port 0, every port.
    pub(super) fn read(words: &[&str], at: &Position) -> Option<Self> {
        let (addresses, port) = match words {
            [addresses] => (addresses, None),
            [addresses, "0"] => (addresses, None),
            [addresses, port] => (addresses, Some(ports(port)?)),
            _ => return None,
        };
        Some(Self { at: at.clone(), vips: range(addresses)?, port })
    }

    /// Its port, if it is one alone.
    pub(super) fn only(&self) -> Option<u16> {
        self.port.filter(|port| *port == one_port(port.low)).map(|port| port.low)
    }
}

/// One address, or those from it to one that differs in its last part.
fn range(text: &str) -> Option<Vec<IpAddr>> {
    let Some((first, last)) = text.split_once('-') else { return Some(vec![text.parse().ok()?]) };
    match first.parse().ok()? {
        IpAddr::V4(first) => {
            let [a, b, c, low] = first.octets();
            let high = number(last, &(low..=u8::MAX))?;
            Some((low..=high).map(|last| Ipv4Addr::new(a, b, c, last).into()).collect())
        }
        IpAddr::V6(first) => {
            let low = first.segments()[7];
            let high = u16::from_str_radix(last, 16).ok().filter(|high| *high >= low)?;
            if usize::from(high - low) >= MAX_VIPS {
                return None;
            }
            let base = first.to_bits() - u128::from(low);
            Some((low..=high).map(|last| Ipv6Addr::from_bits(base + u128::from(last)).into()).collect())
        }
    }
}
