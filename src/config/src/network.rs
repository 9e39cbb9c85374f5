//! An IP network.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP network: an address with all host bits zero, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// `10.0.0.0/8`. Host bits must be zero, as `ip route` demands too.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (network, length) = Self::split(text)?;
        let base = masked(network, length);
        if base != network {
            return Err(format!("{text} has host bits set; write {base}/{length}"));
        }
        Ok(Self { address: network, length })
    }

    /// An address with a prefix length, `10.0.0.254/8`; host bits may be set.
    ///
    /// # Errors
    /// What to write instead.
    pub fn split(text: &str) -> Result<(IpAddr, u8), String> {
        let (host, length) =
            text.split_once('/').ok_or_else(|| format!("{text:?} has no prefix length; write it as address/length"))?;
        let host: IpAddr = host.parse().map_err(|_| format!("{host:?} is not an IP address"))?;
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        let most = bits(host);
        let length = if digits { length.parse().ok().filter(|length| *length <= most) } else { None };
        Ok((host, length.ok_or_else(|| format!("prefix length: {text:?} is not a number from 0 to {most}"))?))
    }

    /// The network of this length that an address lies in; `None` if there is no such length.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(address)).then(|| Self { address: masked(address, length), length })
    }

    /// Its first address.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.address
    }

    /// Its last address; an IPv4 network's broadcast address.
    #[must_use]
    pub fn last(self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() | u32::MAX.checked_shr(self.length.into()).unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() | u128::MAX.checked_shr(self.length.into()).unwrap_or(0)).into()
            }
        }
    }

    /// Leading bits that all of its addresses share.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// Whether it is an IPv4 network.
    #[must_use]
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let shift = u32::from(bits(address) - length);
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(shift).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(shift).unwrap_or(0)).into(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_members() {
        let network = Network::parse("198.51.100.128/25").unwrap();
        assert!(network.contains("198.51.100.129".parse().unwrap()));
        assert!(!network.contains("198.51.100.127".parse().unwrap()));
        assert!(!network.contains("::1".parse().unwrap()));
        assert!(Network::parse("::/0").unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert_eq!(Network::parse("10.1.2.3/8"), Err("10.1.2.3/8 has host bits set; write 10.0.0.0/8".to_owned()));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0/8", "2001:db8::/129", "10.0.0.0/+8"] {
            assert!(Network::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_network_ends_where_the_next_begins() {
        assert_eq!(Network::parse("198.51.100.0/24").unwrap().last(), "198.51.100.255".parse::<IpAddr>().unwrap());
        assert_eq!(Network::parse("192.0.2.7/32").unwrap().last(), "192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(Network::parse("2001:db8::/127").unwrap().last(), "2001:db8::1".parse::<IpAddr>().unwrap());
        let around = Network::around("198.51.100.254".parse().unwrap(), 24).unwrap();
        assert_eq!(around.to_string(), "198.51.100.0/24");
    }
}
