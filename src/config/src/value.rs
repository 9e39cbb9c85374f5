//! Values of both formats. Each function returns the value, or a message that says what to write instead.

use super::near::nearest;
use crate::plan::MAX_WEIGHT;
use loaded_ipc::{PortRange, Strategy};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Longest name of a network interface: IFNAMSIZ less the final NUL, linux/if.h.
const MAX_NIC: usize = 15;

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

/// `80` or `8000-8010`.
pub(super) fn ports(text: &str) -> Result<PortRange, String> {
    let (low, high) = range(text, 1..=u16::MAX)?;
    Ok(PortRange { low, high })
}

/// `2` or `1-3`.
pub(super) fn cores(text: &str) -> Result<(u16, u16), String> {
    range(text, 0..=u16::MAX)
}

/// `204` or `200-399`, within these bounds.
pub(super) fn range(text: &str, bounds: RangeInclusive<u16>) -> Result<(u16, u16), String> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (number(low, bounds.clone())?, number(high, bounds)?);
    if low > high {
        return Err(format!("the range {text} runs backwards; write {high}-{low}"));
    }
    Ok((low, high))
}

/// What others call these strategies.
const STRATEGIES: [(&str, &[&str]); 3] = [
    ("rr", &["roundrobin", "wrr", "staticrr"]),
    ("weighted", &["leastconn", "leastconnections", "lc", "wlc", "sed"]),
    ("maglev", &["source", "iphash", "hash", "consistent", "sh", "mh", "uri"]),
];

/// A strategy by its name; `seed` is maglev's.
pub(super) fn strategy(text: &str, seed: u64) -> Result<Strategy, String> {
    match text {
        "rr" => return Ok(Strategy::RoundRobin),
        "weighted" => return Ok(Strategy::Weighted),
        "maglev" => return Ok(Strategy::Maglev { seed }),
        _ => {}
    }
    let plain: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase();
    let alike = STRATEGIES.iter().find(|(_, others)| others.contains(&plain.as_str())).map(|(name, _)| *name);
    Err(match (nearest(text, &STRATEGIES.map(|(name, _)| name)), alike) {
        (Some(near), _) => format!("there is no strategy {text:?}; did you mean {near}?"),
        (None, Some(alike)) => format!("there is no strategy {text:?}; {alike} comes nearest to it"),
        (None, None) => format!("there is no strategy {text:?}; write rr, weighted or maglev"),
    })
}

/// A name that the kernel's dev_valid_name would take, without what the shell would not pass on.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@');
    match !text.is_empty() && !text.starts_with(['-', '.']) && text.len() <= MAX_NIC && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not the name of an interface")),
    }
}

/// The share of a backend.
pub(super) fn weight(weight: u16) -> Result<u16, String> {
    match weight {
        0 => Err(format!(
            "weight is 0; write a number from 1 to {MAX_WEIGHT}. To give a backend no new flows, drain it (loaded backend drain \
             ADDRESS); to keep it for when the others are down, write backup = true"
        )),
        1..=MAX_WEIGHT => Ok(weight),
        _ => Err(format!("weight is {weight}; write a number from 1 to {MAX_WEIGHT}")),
    }
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

/// The name of a group.
pub(super) fn group(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match !text.is_empty() && text.len() <= 32 && !text.starts_with('-') && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is not the name of a group")),
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

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
