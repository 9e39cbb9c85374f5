//! Addresses as people write them, and what to write instead of those that are none.

use super::invisible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Strictly one address: no name, no port, no prefix, no zone, no leading zeros.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| wrong(text, "IP", "192.0.2.1 or 2001:db8::1"))
}

/// Strictly one IPv4 address.
pub(super) fn address4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| wrong(text, "IPv4", "192.0.2.1"))
}

/// Strictly one IPv6 address.
pub(super) fn address6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| wrong(text, "IPv6", "2001:db8::1"))
}

fn wrong(text: &str, family: &str, example: &str) -> String {
    let why = reason(text).unwrap_or_else(|| format!("; write one such as {example}"));
    format!("{text:?} is not an {family} address{why}")
}

/// What it is instead, and the way out.
fn reason(text: &str) -> Option<String> {
    if let Some(unseen) = text.chars().find(|c| invisible::is_invisible(*c)) {
        return Some(format!(": {} is in it, which no editor shows; type it anew", invisible::name(unseen)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(format!(", but an {} address", if address.is_ipv4() { "IPv4" } else { "IPv6" }));
    }
    if let Ok(address) = text.trim().trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(format!("; write {address}, without blanks and brackets"));
    }
    if let Some(address) = text.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok()) {
        return Some(format!(", but a network; write one address, such as {address}"));
    }
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Some(format!(", but an address and a port; write {} here, and the port as a key of its own", end.ip()));
    }
    if let Some((address, _)) = text.split_once('%').filter(|(address, _)| address.parse::<Ipv6Addr>().is_ok()) {
        return Some(format!(", but one with a zone; {address} holds on one link alone, so name a global address"));
    }
    if let Some(address) = without_zeros(text) {
        return Some(format!(": some programs read leading zeros as octal; write {address}"));
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, port.parse::<u16>().ok()));
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let with_port = if port.is_some() { " and its port as a key of its own" } else { "" };
    (is_name && (port.is_some() || host == text)).then(|| {
        format!(", but a name, and names are not looked up: packets cannot wait for DNS; write the address of {host}{with_port}")
    })
}

/// The IPv4 address that is meant by one with leading zeros.
fn without_zeros(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(parts).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_told_what_to_write() {
        for (text, way) in [
            ("192.0.2.100/32", "a network; write one address, such as 192.0.2.100"),
            ("192.0.2.1:80", "write 192.0.2.1 here, and the port as a key of its own"),
            ("[2001:db8::1]:80", "write 2001:db8::1 here"),
            ("[2001:db8::1]", "write 2001:db8::1, without blanks and brackets"),
            (" 192.0.2.1", "write 192.0.2.1, without blanks"),
            ("fe80::1%eth0", "one with a zone; fe80::1 holds on one link alone"),
            ("192.0.02.1", "write 192.0.2.1"),
            (
                "backend:8080",
                "names are not looked up: packets cannot wait for DNS; write the address of backend and its port",
            ),
            ("www.example.com", "write the address of www.example.com"),
            ("192.0.2.1\u{200b}", "U+200B (zero width space) is in it"),
            ("192.0.2", "write one such as 192.0.2.1 or 2001:db8::1"),
            ("192.0.2.256", "write one such as"),
            ("", "write one such as"),
        ] {
            let error = address(text).unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is not an IP address")) && error.contains(way), "{error}");
        }
        assert!(address4("2001:db8::1").unwrap_err().ends_with("is not an IPv4 address, but an IPv6 address"));
        assert!(address6("192.0.2.1").unwrap_err().ends_with("is not an IPv6 address, but an IPv4 address"));
    }
}
