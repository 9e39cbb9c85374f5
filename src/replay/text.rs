//! Packets as text: who speaks to whom, about what.

use loaded_worker::wire::{Kind, parse, to_ip};
use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};

/// Protocols that begin with two ports (RFC 9293, RFC 768, RFC 9260), and the names of more.
const WITH_PORTS: [u8; 3] = [6, 17, 132];
const NAMES: [(u8, &str); 6] = [(1, "icmp"), (6, "tcp"), (17, "udp"), (50, "esp"), (58, "icmp6"), (132, "sctp")];

/// The headers of a packet, for people.
pub(super) struct Headers<'p> {
    /// It begins with its IP header.
    pub(super) bytes: &'p [u8],
    /// Its end is missing.
    pub(super) cut: bool,
}

impl Display for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(packet) = parse(self.bytes, self.cut) else {
            return match addresses(self.bytes) {
                Some((source, destination)) => write!(f, "{source} > {destination} malformed"),
                None => write!(f, "{} bytes, malformed", self.bytes.len()),
            };
        };
        let (source, destination) = (to_ip(&packet.source), to_ip(&packet.destination));
        match packet.kind {
            Kind::Fragment => write!(f, "{source} > {destination} {} fragment", ProtocolName(packet.protocol)),
            Kind::Echo { request, id } => {
                let word = if request { "request" } else { "reply" };
                write!(f, "{source} > {destination} {} echo {word} id {id}", ProtocolName(packet.protocol))
            }
            Kind::Error(q) => {
                let inner = (to_ip(&q.source), to_ip(&q.destination));
                let outer = ProtocolName(packet.protocol);
                write!(f, "{source} > {destination} {outer} error about ")?;
                if WITH_PORTS.contains(&q.protocol) {
                    let (from, to) = q.ports;
                    write!(f, "{} > {}", SocketAddr::new(inner.0, from), SocketAddr::new(inner.1, to))?;
                } else {
                    write!(f, "{} > {}", inner.0, inner.1)?;
                }
                write!(f, " {}", ProtocolName(q.protocol))
            }
            _ => match ports(packet.protocol, self.bytes.get(packet.transport..)) {
                Some((from, to)) => {
                    write!(
                        f,
                        "{} > {} {}",
                        SocketAddr::new(source, from),
                        SocketAddr::new(destination, to),
                        ProtocolName(packet.protocol)
                    )
                }
                None => write!(f, "{source} > {destination} {}", ProtocolName(packet.protocol)),
            },
        }
    }
}

/// A protocol by name, if it has one that is known.
pub(super) struct ProtocolName(pub(super) u8);

impl Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

fn ports(protocol: u8, upper: Option<&[u8]>) -> Option<(u16, u16)> {
    let upper = upper.filter(|_| WITH_PORTS.contains(&protocol))?.first_chunk::<4>()?;
    Some((u16::from_be_bytes([upper[0], upper[1]]), u16::from_be_bytes([upper[2], upper[3]])))
}

/// The addresses in a complete IP header, whatever follows.
fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
    match bytes.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}
