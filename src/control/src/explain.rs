//! What would happen to a client's next packet: the answer as JSON and as text.

use super::figures::elapsed;
use super::text::cleaned;
use loaded_ipc::Destination;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A packet's addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuple {
    /// IP protocol number. ICMP (1 or 58) means an echo request of the addresses' family.
    pub protocol: u8,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port, or the echo identifier; 0 without ports.
    pub client_port: u16,
    /// The virtual IP.
    pub vip: IpAddr,
    /// The port there; 0 without ports.
    pub vip_port: u16,
}

/// What would happen to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet asked about.
    pub tuple: Tuple,
    /// Its protocol as text: "tcp", "icmp6", "protocol 47".
    pub protocol: String,
    /// What kind of packet it is assumed to be: "a SYN", "an ACK", "a packet".
    pub assumed: String,
    /// Position of the worker that gets it.
    pub worker: u16,
    /// The service it is for, or that of its flow.
    pub service: Option<String>,
    /// The living flow it belongs to.
    pub flow: Option<FlowNow>,
    /// The outcome it would be counted under.
    pub outcome: String,
    /// What that means.
    pub meaning: String,
    /// Where it goes.
    pub backend: Option<IpAddr>,
    /// The port it gets there; `None`: it keeps its own.
    #[serde(default)]
    pub backend_port: Option<u16>,
    /// Why there: "flow", "client", "strategy" or "clash".
    pub by: Option<String>,
    /// The reason in words.
    pub why: Option<String>,
    /// The mark it gets in mode "dsr", where its content is unchanged.
    pub mark: Option<u32>,
    /// Which path it takes, if it is ordinary: no options, no fragment, hops to go, not longer than its way out takes.
    #[serde(default)]
    pub path: Option<Path>,
}

/// The path that a packet takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// "kernel": it meets no worker; "queue": it does.
    pub by: String,
    /// In a word: "silent" or "told" for the kernel path; else why not, by the names of `loaded_kernel_path_missed_packets_total`, or "off",
    /// "foreign", "interface".
    pub reason: String,
    /// In words.
    pub why: String,
}

/// A flow as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowNow {
    /// Its backend.
    pub backend: IpAddr,
    /// The port that its packets get; `None`: they keep the one they came to.
    #[serde(default)]
    pub port: Option<u16>,
    /// "established", "half open", …
    pub state: String,
    /// Seconds since its last packet.
    pub idle: u32,
    /// What speaks against its backend: "down", "draining", "disabled".
    pub out: Option<String>,
}

/// The explanation as a few lines of text.
#[must_use]
pub fn text(explanation: &Explanation) -> String {
    let said = &cleaned(explanation);
    let Tuple { client, client_port, vip, vip_port, protocol } = said.tuple;
    let ends = match protocol {
        6 | 17 | 132 => format!("{} -> {}", SocketAddr::new(client, client_port), SocketAddr::new(vip, vip_port)),
        1 | 58 => format!("{client} -> {vip} echo id {client_port}"),
        _ => format!("{client} -> {vip}"),
    };
    let whose = match &said.path {
        Some(Path { by, .. }) if by == "kernel" => "of a flow of",
        _ => "handled by",
    };
    let mut out = format!("{} {ends}: {}, {whose} worker {}\n", said.protocol, said.assumed, said.worker);
    match &said.service {
        Some(service) => drop(write!(out, "service {service}, ")),
        None => out.push_str("no service, "),
    }
    match &said.flow {
        None if said.backend.is_some() => out.push_str("no flow yet\n"),
        None => out.push_str("no flow\n"),
        Some(FlowNow { backend, port, state, idle, out: against }) => {
            let backend = Destination { address: *backend, port: *port };
            let _ = write!(out, "flow to {backend}, {state}, last packet {} ago", elapsed(u64::from(*idle)));
            let _ = against.as_ref().map(|word| write!(out, "; {backend} is {word}"));
            out.push('\n');
        }
    }
    let _ = write!(out, "{}: {}", said.outcome, said.meaning);
    if let Some(address) = said.backend {
        let backend = Destination { address, port: said.backend_port };
        let _ = write!(out, " {backend}");
    }
    if let Some(mark) = said.mark {
        let _ = write!(out, " by mark {mark:#x}");
    }
    if let Some(why) = &said.why {
        let _ = write!(out, ", {why}");
    }
    out.push('\n');
    match &said.path {
        Some(Path { by, why, .. }) if by == "kernel" => drop(writeln!(out, "sent on by the kernel path: {why}")),
        Some(Path { why, .. }) => drop(writeln!(out, "by the queue: {why}")),
        None => {}
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn explanation() -> Explanation {
        Explanation {
            tuple: Tuple {
                protocol: 6,
                client: "2001:db8::7".parse().unwrap(),
                client_port: 40000,
                vip: "2001:db8:1::1".parse().unwrap(),
                vip_port: 443,
            },
            protocol: "tcp".to_owned(),
            assumed: "a SYN".to_owned(),
            worker: 1,
            service: Some("web".to_owned()),
            flow: None,
            outcome: "forwarded_new".to_owned(),
            meaning: "begins a flow to".to_owned(),
            backend: Some("2001:db8:2::11".parse().unwrap()),
            backend_port: None,
            by: Some("strategy".to_owned()),
            why: Some("chosen by rr among 3".to_owned()),
            mark: None,
            path: Some(Path {
                by: "queue".to_owned(),
                reason: "opens".to_owned(),
                why: "a SYN is for a worker to decide about".to_owned(),
            }),
        }
    }

    #[test]
    fn a_few_lines_say_what_and_why() {
        assert_eq!(
            text(&explanation()),
            "tcp [2001:db8::7]:40000 -> [2001:db8:1::1]:443: a SYN, handled by worker 1\n\
             service web, no flow yet\n\
             forwarded_new: begins a flow to 2001:db8:2::11, chosen by rr among 3\n\
             by the queue: a SYN is for a worker to decide about\n"
        );
        let path = Path { by: "kernel".to_owned(), reason: "silent".to_owned(), why: "its flow is open".to_owned() };
        let sent = text(&Explanation { path: Some(path), ..explanation() });
        assert!(sent.contains(": a SYN, of a flow of worker 1\n"), "{sent}");
        assert!(sent.ends_with("\nsent on by the kernel path: its flow is open\n"), "{sent}");
        let backend = "198.51.100.11".parse().unwrap();
        let state = "half open".to_owned();
        let flow = Some(FlowNow { backend, port: None, state, idle: 75, out: Some("draining".to_owned()) });
        let tuple = Tuple { protocol: 1, client_port: 7, vip_port: 0, ..explanation().tuple };
        let end = |outcome: &str| Explanation {
            outcome: outcome.to_owned(),
            meaning: "dropped, because it is".to_owned(),
            backend: None,
            why: None,
            path: None,
            ..explanation()
        };
        assert_eq!(
            text(&Explanation { tuple, protocol: "icmp6".to_owned(), flow, service: None, ..end("dropped_clash") }),
            "icmp6 2001:db8::7 -> 2001:db8:1::1 echo id 7: a SYN, handled by worker 1\n\
             no service, flow to 198.51.100.11, half open, last packet 1m15s ago; 198.51.100.11 is draining\n\
             dropped_clash: dropped, because it is\n"
        );
        assert_eq!(text(&Explanation { service: None, ..end("x") }).lines().nth(1), Some("no service, no flow"));
        let port = text(&Explanation { backend_port: Some(8443), ..explanation() });
        assert!(port.contains("begins a flow to [2001:db8:2::11]:8443, chosen"), "{port}");
        let direct = text(&Explanation { mark: Some(0x1_0000), ..explanation() });
        assert!(direct.contains("to 2001:db8:2::11 by mark 0x10000, chosen"), "{direct}");
        let forged = text(&Explanation { service: Some("a\nb\u{1b}".to_owned()), ..explanation() });
        assert_eq!(forged.lines().count(), 4, "{forged}");
        assert!(!forged.contains('\u{1b}'));
    }
}
