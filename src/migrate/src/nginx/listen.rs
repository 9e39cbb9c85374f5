//! Where a server listens.

use crate::model::ports;
use crate::tree::Statement;
use loaded_ipc::{PortRange, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One `listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listen {
    pub(super) protocol: Protocol,
    pub(super) ports: PortRange,
    /// `None`: every address of one family, or of both.
    pub(super) address: Option<IpAddr>,
    /// The families it listens on if it names no address: IPv4, IPv6.
    pub(super) families: (bool, bool),
    /// It sets options of its socket.
    pub(super) tuned: bool,
}

/// Parameters that change nothing for clients.
const HARMLESS: [&str; 9] =
    ["reuseport", "default_server", "bind", "deferred", "so_keepalive", "backlog", "rcvbuf", "sndbuf", "fastopen"];

/// Reads it.
///
/// # Errors
/// Why `loaded` cannot serve it.
pub(super) fn read(statement: &Statement) -> Result<Listen, String> {
    let text = statement.word(1);
    if text.starts_with("unix:") {
        return Err("loaded serves no unix sockets".to_owned());
    }
    let (host, port) = match (text.rfind(':'), text.ends_with(']')) {
        (Some(colon), false) => (&text[..colon], &text[colon + 1..]),
        _ => ("", text),
    };
    let ports = ports(port).ok_or_else(|| format!("{port:?} is no port or range of ports"))?;
    let (address, families) = match host {
        "" | "*" | "0.0.0.0" => (None, (true, false)),
        _ => match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(any) if any == Ipv6Addr::UNSPECIFIED => {
                (None, (statement.arguments().any(|word| word == "ipv6only=off"), true))
            }
            Ok(any) if any == Ipv4Addr::UNSPECIFIED => (None, (true, false)),
            Ok(address) => (Some(address), (false, false)),
            Err(_) => return Err(format!("{host:?} is no IP address, and names are not looked up")),
        },
    };
    let mut tuned = false;
    for parameter in statement.arguments().skip(1) {
        let name = parameter.split('=').next().unwrap_or_default();
        match name {
            "ssl" => return Err("loaded ends no TLS; the backends would have to".to_owned()),
            "proxy_protocol" => return Err("loaded reads no PROXY header".to_owned()),
            "udp" | "ipv6only" => {}
            name if HARMLESS.contains(&name) => tuned = true,
            _ => return Err(format!("the parameter {parameter:?} is not known")),
        }
    }
    let protocol = if statement.arguments().any(|word| word == "udp") { Protocol::Udp } else { Protocol::Tcp };
    Ok(Listen { protocol, ports, address, families, tuned })
}
