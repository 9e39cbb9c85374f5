//! Addresses of both families in one form.

use std::net::{IpAddr, Ipv6Addr};

/// An address of either family; IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2). Network byte order.
pub type Address = [u8; 16];

/// The Internet Protocol's two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether an address is an IPv4 one.
#[must_use]
pub fn is_mapped(address: &Address) -> bool {
    address[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]
}

/// An IPv4 address as `::ffff:a.b.c.d`.
#[must_use]
#[inline]
pub fn mapped(v4: [u8; 4]) -> Address {
    (0xffff << 32 | u128::from(u32::from_be_bytes(v4))).to_be_bytes()
}

/// An IP address in the form the worker uses.
#[must_use]
pub fn from_ip(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The IP address as people write it.
#[must_use]
pub fn to_ip(address: &Address) -> IpAddr {
    Ipv6Addr::from(*address).to_canonical()
}
