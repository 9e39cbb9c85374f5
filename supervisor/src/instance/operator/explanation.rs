//! What a worker has said of a packet, checked and put into an operator's words. Pure.

use crate::roster::{BackendEntry, Roster};
use loaded_config::plan::Service;
use loaded_control::explain::FlowNow;
use loaded_control::{Explanation, Tuple};
use loaded_ipc::{
    Admin, Affinity, Assumed, BackendIndex, ChoiceReason, Chosen, Destination, Explained, KnownFlow, Mode, Outcome,
    mark_of,
};
use loaded_table::FlowState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

/// The tuple as packets have it, or why no packet has it.
pub(super) fn checked(tuple: Tuple) -> Result<Tuple, String> {
    let (client, vip) = (tuple.client.to_canonical(), tuple.vip.to_canonical());
    if client.is_ipv4() != vip.is_ipv4() {
        return Err(format!("{client} and {vip} are not of one family"));
    }
    let (has_ports, protocol) = match (tuple.protocol, client) {
        (6 | 17 | 132, _) => (true, tuple.protocol),
        (1 | 58, IpAddr::V4(_)) => (false, 1),
        (1 | 58, IpAddr::V6(_)) => (false, 58),
        // IANA's list of extension headers (RFC 7045 §4); 135 and above are not parsed as such.
        (0 | 43 | 44 | 51 | 60, IpAddr::V6(_)) => {
            return Err(format!("{} is an extension header of IPv6: name the upper layer", tuple.protocol));
        }
        (other, _) => (false, other),
    };
    let port = |port| if has_ports { port } else { 0 };
    let id = if matches!(protocol, 1 | 58) { tuple.client_port } else { port(tuple.client_port) };
    Ok(Tuple { protocol, client, client_port: id, vip, vip_port: port(tuple.vip_port) })
}

/// A worker's answer about a packet.
pub(super) struct WorkerAnswer {
    pub(super) tuple: Tuple,
    /// Position of the worker.
    pub(super) worker: u16,
    pub(super) explained: Explained,
}

impl WorkerAnswer {
    /// The answer with names instead of numbers.
    ///
    /// # Errors
    /// Something in it that no honest worker with this roster would say.
    pub(super) fn in_words(&self, roster: &Roster, now: Instant) -> Result<Explanation, String> {
        let Explained { assumed, outcome, service, flow, chosen } = self.explained;
        let entry = match service {
            Some(index) => Some(roster.service(index).ok_or_else(|| format!("{index} is not there"))?),
            None => None,
        };
        let backend = |index: BackendIndex| {
            let known = roster.backend(index).filter(|b| b.address.is_ipv4() == self.tuple.client.is_ipv4());
            known.ok_or_else(|| format!("{index} is not there for {}", self.tuple.client))
        };
        let flow = flow.map(|known| flow_now(known, backend(known.backend)?, now)).transpose()?;
        let goes = matches!(outcome, Outcome::Forwarded | Outcome::ForwardedNew);
        let avoided = match chosen {
            Some(Chosen { reason: ChoiceReason::Clash { instead_of }, .. }) => Some(backend(instead_of)?.destination()),
            _ => None,
        };
        let (to, service) = match (chosen, entry) {
            (Some(Chosen { backend: index, reason }), Some(entry)) if goes => {
                let to = backend(index)?;
                if Some(to.service) != service {
                    return Err(format!("{index} is none of {}", entry.service.name));
                }
                let mark = (entry.service.mode == Mode::Dsr).then(|| mark_of(index));
                (Some((to.destination(), reason, mark)), Some(&entry.service))
            }
            (None, entry) if !goes => (None, entry.map(|entry| &entry.service)),
            _ => return Err(format!("{} with backend {chosen:?} of {service:?}", outcome.label())),
        };
        Ok(Explanation {
            tuple: self.tuple,
            protocol: protocol(self.tuple.protocol),
            assumed: match assumed {
                Assumed::Any => "any packet",
                Assumed::Syn => "a SYN",
                Assumed::Ack => "an ACK",
            }
            .to_owned(),
            worker: self.worker,
            service: service.map(|service| service.name.clone()),
            flow,
            outcome: outcome.label().to_owned(),
            meaning: outcome.meaning().to_owned(),
            backend: to.map(|(to, ..)| to.address),
            backend_port: to.and_then(|(to, ..)| to.port),
            by: to.map(|(_, reason, _)| by(reason).to_owned()),
            why: to.and_then(|(_, reason, _)| Some(self.sentence(reason, service?, avoided))),
            mark: to.and_then(|(.., mark)| mark),
            path: None,
        })
    }

    /// "since its client 192.0.2.0/24 has it, last noted 37 s ago"
    fn sentence(&self, reason: ChoiceReason, service: &Service, avoided: Option<Destination>) -> String {
        match reason {
            ChoiceReason::Flow => "because its flow exists".to_owned(),
            ChoiceReason::Client { idle } => {
                let prefix = service.affinity.map(|affinity| prefix_of(self.tuple.client, affinity));
                let client = prefix.unwrap_or_else(|| self.tuple.client.to_string());
                format!("because its client {client} has it, last seen {idle} s ago")
            }
            ChoiceReason::Clash { instead_of } => {
                let avoided = avoided.map_or_else(|| instead_of.to_string(), |backend| backend.to_string());
                format!("because its client has the same flow to another virtual IP or port on {avoided}")
            }
            ChoiceReason::Strategy { candidates } => format!("chosen by {} among {candidates}", service.strategy),
        }
    }
}

fn flow_now(known: KnownFlow, entry: &BackendEntry, now: Instant) -> Result<FlowNow, String> {
    let state = FlowState::from_u8(known.state).ok_or_else(|| format!("a flow of state {}", known.state))?;
    let out = match entry.admin(now) {
        Admin::Draining => Some("draining"),
        Admin::Disabled => Some("disabled"),
        Admin::Enabled if !entry.health.up => Some("down"),
        Admin::Enabled => None,
    };
    let (backend, port, state) = (entry.address, entry.port, word(state).to_owned());
    Ok(FlowNow { backend, port, state, idle: known.idle, out: out.map(str::to_owned) })
}

fn word(state: FlowState) -> &'static str {
    match state {
        FlowState::HalfOpen => "half open",
        FlowState::Established => "established",
        FlowState::Closing => "closing",
        FlowState::Datagram => "answered",
        FlowState::Replied => "answered, nothing heard since",
        FlowState::OneSided => "open, by the client's word",
        FlowState::Echo => "echo",
        FlowState::ClientDone => "closed by the client",
        FlowState::BackendDone => "closed by the backend",
        FlowState::LastAck => "closed by both, not acknowledged",
        FlowState::Answered => "answered, not acknowledged",
        FlowState::Unanswered => "not answered",
        FlowState::Reset => "reset",
        FlowState::Ended => "ended by the operator",
    }
}

fn by(reason: ChoiceReason) -> &'static str {
    match reason {
        ChoiceReason::Flow => "flow",
        ChoiceReason::Client { .. } => "client",
        ChoiceReason::Strategy { .. } => "strategy",
        ChoiceReason::Clash { .. } => "clash",
    }
}

fn protocol(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        50 => "esp",
        58 => "icmp6",
        132 => "sctp",
        other => return format!("protocol {other}"),
    };
    name.to_owned()
}

/// The prefix that affinity takes for one client, as the first address in it.
fn prefix_of(client: IpAddr, affinity: Affinity) -> String {
    let cut = |bits: u128, prefix: u8, length: u32| {
        let rest = length.saturating_sub(u32::from(prefix));
        bits.checked_shr(rest).and_then(|bits| bits.checked_shl(rest)).unwrap_or(0)
    };
    match client {
        IpAddr::V4(v4) => {
            let bits = cut(v4.to_bits().into(), affinity.prefix4, 32);
            let address = Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(0));
            format!("{address}/{}", affinity.prefix4)
        }
        IpAddr::V6(v6) => {
            let bits = cut(v6.to_bits(), affinity.prefix6, 128);
            format!("{}/{}", Ipv6Addr::from_bits(bits), affinity.prefix6)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_config::{Overrides, Source, parse};
    use loaded_ipc::ServiceIndex;

    const TUPLE: Tuple = Tuple {
        protocol: 6,
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
        client_port: 4000,
        vip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 100)),
        vip_port: 80,
    };

    /// Two services; backend 0 and 1 are of the first, over both families, 2 of the second.
    fn roster() -> Roster {
        let text = "[[service]]\nname = \"web\"\nvip = [\"192.0.2.100\", \"2001:db8::1\"]\nprotocol = \"tcp\"\nports = [80]\n\
             affinity = { by = \"client\", prefix4 = 24 }\n\
             [[service.backend]]\naddress = \"198.51.100.11\"\n[[service.backend]]\naddress = \"2001:db8:2::11\"\n\
             [[service]]\nname = \"mail\"\nvip = [\"192.0.2.100\"]\nprotocol = \"tcp\"\nports = [25]\n\
             [[service.backend]]\naddress = \"198.51.100.12\"\n";
        let plan = parse(&[Source::new("a.toml", text.to_owned())], &Overrides::default()).unwrap().plan;
        let roster = Roster::empty().next(&plan, &[], 0, Instant::now()).unwrap();
        let addresses: Vec<_> = roster.backends().map(|(index, b)| (index.0, b.address.to_string())).collect();
        assert_eq!(
            addresses.iter().map(|(n, a)| (*n, a.as_str())).collect::<Vec<_>>(),
            [(0, "198.51.100.11"), (1, "2001:db8:2::11"), (2, "198.51.100.12")]
        );
        roster
    }

    fn told(explained: Explained) -> Result<Explanation, String> {
        WorkerAnswer { tuple: TUPLE, worker: 1, explained }.in_words(&roster(), Instant::now())
    }

    const NEW: Explained = Explained {
        assumed: Assumed::Syn,
        outcome: Outcome::ForwardedNew,
        service: Some(ServiceIndex(0)),
        flow: None,
        chosen: Some(Chosen { backend: BackendIndex(0), reason: ChoiceReason::Client { idle: 37 } }),
    };

    #[test]
    fn numbers_become_names() {
        let explanation = told(NEW).unwrap();
        assert_eq!(explanation.service.as_deref(), Some("web"));
        assert_eq!(explanation.backend.unwrap().to_string(), "198.51.100.11");
        assert_eq!(explanation.why.unwrap(), "because its client 203.0.113.0/24 has it, last seen 37 s ago");
        let reason = ChoiceReason::Clash { instead_of: BackendIndex(2) };
        let explanation = told(Explained { chosen: Some(Chosen { backend: BackendIndex(0), reason }), ..NEW }).unwrap();
        assert_eq!(explanation.by.as_deref(), Some("clash"));
        let expected = "because its client has the same flow to another virtual IP or port on 198.51.100.12";
        assert_eq!(explanation.why.unwrap(), expected);
        let known = KnownFlow { backend: BackendIndex(0), state: FlowState::Established as u8, idle: 3 };
        let explanation = told(Explained { flow: Some(known), ..NEW }).unwrap();
        assert_eq!(explanation.flow.unwrap().state, "established");
        let end = Explained { outcome: Outcome::DroppedTableFull, chosen: None, ..NEW };
        assert_eq!(told(end).unwrap().outcome, "dropped_table_full");
        let v6 = Tuple { client: "2001:db8:9:9::7".parse().unwrap(), ..TUPLE };
        let affinity = Affinity { prefix4: 24, prefix6: 56, timeout: 1 };
        assert_eq!(prefix_of(v6.client, affinity), "2001:db8:9::/56");
        assert_eq!(prefix_of(v6.client, Affinity { prefix6: 128, ..affinity }), "2001:db8:9:9::7/128");
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let chosen = |n| Some(Chosen { backend: BackendIndex(n), reason: ChoiceReason::Flow });
        let reason = |n| ChoiceReason::Clash { instead_of: BackendIndex(n) };
        let avoiding = |n| Some(Chosen { backend: BackendIndex(0), reason: reason(n) });
        let flow = |backend, state| Some(KnownFlow { backend: BackendIndex(backend), state, idle: 0 });
        for lie in [
            // Nothing has these numbers.
            Explained { service: Some(ServiceIndex(2)), ..NEW },
            Explained { chosen: chosen(3), ..NEW },
            Explained { chosen: chosen(u16::MAX), ..NEW },
            Explained { chosen: avoiding(3), ..NEW },
            Explained { chosen: avoiding(1), ..NEW },
            Explained { flow: flow(9, 2), ..NEW },
            Explained { flow: flow(0, 0), ..NEW },
            Explained { flow: flow(0, 15), ..NEW },
            // Of another family, of another service.
            Explained { chosen: chosen(1), ..NEW },
            Explained { flow: flow(1, 2), ..NEW },
            Explained { chosen: chosen(2), ..NEW },
            // What does not belong together.
            Explained { service: None, ..NEW },
            Explained { chosen: None, ..NEW },
            Explained { outcome: Outcome::DroppedClash, ..NEW },
        ] {
            assert!(told(lie).is_err(), "{lie:?}");
        }
    }

    #[test]
    fn a_question_is_about_a_packet_that_can_be() {
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(checked(TUPLE), Ok(TUPLE));
        assert!(checked(Tuple { client: v6, ..TUPLE }).is_err());
        let mapped = Tuple { client: "::ffff:203.0.113.7".parse().unwrap(), ..TUPLE };
        assert_eq!(checked(mapped), Ok(TUPLE));
        let echo = Tuple { protocol: 58, ..TUPLE };
        assert_eq!(checked(echo), Ok(Tuple { protocol: 1, vip_port: 0, ..TUPLE }));
        let echo = Tuple { protocol: 1, client: v6, vip: v6, ..TUPLE };
        assert_eq!(checked(echo), Ok(Tuple { protocol: 58, vip_port: 0, ..echo }));
        let esp = Tuple { protocol: 50, ..TUPLE };
        assert_eq!(checked(esp), Ok(Tuple { client_port: 0, vip_port: 0, ..esp }));
        for header in [0, 43, 44, 51, 60] {
            assert!(checked(Tuple { protocol: header, client: v6, vip: v6, ..TUPLE }).is_err());
            assert!(checked(Tuple { protocol: header, ..TUPLE }).is_ok(), "in IPv4 it is like any other");
        }
    }
}
