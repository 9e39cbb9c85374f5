//! Values that both formats know. Each reader gives the value or what to write instead.

use crate::plan::{MAX_QUEUE_LEN, MAX_TIMEOUT};
use loaded_ipc::PortRange;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// An IP network: an address with all host bits zero, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    length: u8,
}

/// Strictly one address: no name, no port, no prefix, no zone, no leading zeros.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

/// Strictly one IPv4 address.
pub(super) fn address4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv4 address"))
}

/// Strictly one IPv6 address.
pub(super) fn address6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IPv6 address"))
}

/// A number in decimal digits, within the range.
pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    // `parse` would take "+5".
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = if digits { text.parse().ok() } else { None };
    value
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("{text:?} is not a number from {} to {}", range.start(), range.end()))
}

/// `-Q`, nfq_len and queue_len.
pub(super) const QUEUE_LEN: RangeInclusive<u32> = 1..=MAX_QUEUE_LEN;

/// `80` or `8000-8010`.
pub(super) fn ports(text: &str) -> Result<PortRange, String> {
    let (low, high) = range(text, 1)?;
    Ok(PortRange { low, high })
}

/// `2` or `1-3`.
pub(super) fn cores(text: &str) -> Result<(u16, u16), String> {
    range(text, 0)
}

fn range(text: &str, least: u16) -> Result<(u16, u16), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (number(low, least..=u16::MAX)?, number(high, least..=u16::MAX)?);
    if low > high {
        return Err(format!("the range {text} runs backwards; write {high}-{low}"));
    }
    Ok((low, high))
}

/// Seconds in a text such as `90s`, `15m`, `1h` or `7d`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let wrong =
        || format!("{text:?} is not a duration from 1s to 365d; write one number and s, m, h or d, such as 90s");
    if text.ends_with("ms") {
        return Err(format!("{text:?} is finer than a second; write whole seconds, such as 1s"));
    }
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit: u32 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let count = number(digits, 1..=MAX_TIMEOUT).map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|seconds| *seconds <= MAX_TIMEOUT).ok_or_else(wrong)
}

/// The account of the workers, by name or number. Root is refused here by name and number; an alias of uid 0
/// shows when the supervisor looks the name up.
pub(super) fn user(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if text.is_empty() || text.len() > 32 || text.starts_with('-') || !text.bytes().all(plain) {
        return Err(format!("{text:?} is not an account name"));
    }
    if text == "root" || text.bytes().all(|b| b == b'0') {
        return Err("workers read hostile packets and never run as root; name an account such as nobody".to_owned());
    }
    Ok(text.to_owned())
}

/// Can this address be a VIP, a backend or a gateway: one host, reachable from another?
pub(super) fn one_host(address: &IpAddr) -> Result<(), String> {
    let fault = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if !v4.is_unspecified() && v4.octets()[0] == 0 => Some("in 0.0.0.0/8, which names no host"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local, which no router forwards"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6 form, which is on no wire"),
        _ => no_server(address),
    };
    fault.map_or(Ok(()), |fault| Err(format!("{address} is {fault}; write the address of one host")))
}

/// Can this address be a name server's? The loopback may.
pub(super) fn name_server(address: &IpAddr) -> Result<(), String> {
    let fault = if address.is_loopback() { None } else { no_server(address) };
    fault.map_or(Ok(()), |fault| Err(format!("{address} is {fault}; write the address of one host")))
}

fn no_server(address: &IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if address.is_loopback() => Some("a loopback address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        _ => None,
    }
}

impl Network {
    /// `10.0.0.0/8`. Host bits must be zero, as `ip route` demands too.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (network, length) = Self::split(text)?;
        let base = masked(network, length);
        if base != network {
            return Err(format!("{text} has host bits set; write {base}/{length}"));
        }
        Ok(Self { address: network, length })
    }

    /// An address with a prefix length, `10.0.0.254/8`; host bits are what it is about.
    pub(super) fn split(text: &str) -> Result<(IpAddr, u8), String> {
        let (host, length) =
            text.split_once('/').ok_or_else(|| format!("{text:?} has no prefix length; write it as address/length"))?;
        let host = address(host)?;
        let length = number(length, 0..=bits(host)).map_err(|message| format!("prefix length: {message}"))?;
        Ok((host, length))
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.length) == self.address
    }

    pub(super) fn is_ipv4(self) -> bool {
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

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn durations_are_one_number_and_one_unit() {
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("365d"), Ok(MAX_TIMEOUT));
        for wrong in ["", "s", "0s", "1", "1 h", "1h30m", "-1s", "+1s", "366d", "4294967296d", "500ms", "1S", "1ü"] {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }

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
    fn ranges_are_not_reversed_and_ports_not_zero() {
        assert_eq!(ports("8000-8010"), Ok(PortRange { low: 8000, high: 8010 }));
        assert_eq!(cores("0"), Ok((0, 0)));
        assert_eq!(ports("2-1"), Err("the range 2-1 runs backwards; write 1-2".to_owned()));
        for wrong in ["0", "0-5", "1-", "-1", "1-2-3", "65536", "1 - 2", "http"] {
            assert!(ports(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_single_hosts_are_hosts() {
        let is_host = |text: &str| one_host(&text.parse().unwrap()).is_ok();
        assert!(is_host("192.0.2.1") && is_host("2001:db8::1") && is_host("fd00::1"));
        for wrong in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(!is_host(wrong), "{wrong}");
        }
    }
}
