//! What would become of a client's next packet: the worker that would get it is asked, and its answer checked. A worker
//! may be hostile: what it names must be there. Nothing here waits for it.

use super::Instance;
use crate::roster::{BackendEntry, Roster};
use loaded_config::plan::Service;
use loaded_control::explain::FlowNow;
use loaded_control::{Answer, Explanation, Reply, Tuple};
use loaded_ipc::{
    Admin, Affinity, Assumed, BackendIndex, Chosen, Explained, KnownFlow, Mode, Outcome, Question, Why, mark_of,
};
use loaded_table::FlowState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How long a worker may take. It looks at its link every 5 ms when busy, and every 50 ms when idle.
const DEADLINE: Duration = Duration::from_secs(1);
/// Questions of all workers that may wait; the control socket has connections left for other requests then.
const MAX_WAITING: usize = 8;

/// Those that wait for an answer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u32,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: u32,
    tuple: Tuple,
    worker: u16,
    deadline: Instant,
}

impl Questions {
    /// When the first of them has waited for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.deadline).min()
    }
}

impl Instance {
    /// Asks the worker that gets this client's packets.
    pub(super) fn explain(&mut self, tuple: Tuple) -> Answer {
        match self.put(tuple) {
            Ok(id) => Answer::Later(id),
            Err(text) => Reply::error(text).into(),
        }
    }

    fn put(&mut self, tuple: Tuple) -> Result<u32, String> {
        let tuple = checked(tuple)?;
        let vips = || self.roster.vips().map(|(_, vip)| vip);
        if !vips().any(|vip| vip == tuple.vip) {
            return Err(format!("{} is no virtual IP of this instance; loaded status shows which are", tuple.vip));
        }
        if vips().any(|vip| vip == tuple.client) {
            return Err(format!("{} is a virtual IP: what comes from one passes the workers by", tuple.client));
        }
        if self.plan.nameservers.contains(&tuple.client) && tuple.client_port == 53 && matches!(tuple.protocol, 6 | 17)
        {
            return Err(format!("{} is a name server: its answers pass the workers by", tuple.client));
        }
        if self.questions.waiting.len() >= MAX_WAITING {
            return Err(format!("{MAX_WAITING} questions wait for an answer; ask again in a moment"));
        }
        let workers = u16::try_from(self.workers.len()).unwrap_or(u16::MAX);
        let position = self.steering.worker_of(tuple.client, workers);
        let worker = self.workers.iter_mut().find(|worker| worker.position == position);
        let worker = worker.ok_or_else(|| format!("there is no worker {position}"))?;
        self.questions.last = self.questions.last.wrapping_add(1);
        let id = self.questions.last;
        let Tuple { protocol, client, client_port, vip, vip_port } = tuple;
        worker.ask(id, Question { protocol, client, client_port, vip, vip_port })?;
        let deadline = Instant::now() + DEADLINE;
        self.questions.waiting.push(Waiting { id, tuple, worker: position, deadline });
        Ok(id)
    }

    /// Passes on what the workers have answered, and says of whom there is no answer.
    pub(super) fn answer_questions(&mut self) {
        let now = Instant::now();
        let mut replies = Vec::new();
        for worker in &mut self.workers {
            for (id, generation, explained) in worker.answers() {
                // One that has waited for too long has its answer already.
                let place = self.questions.waiting.iter().position(|waiting| waiting.id == id);
                let Some(waiting) = place.map(|place| self.questions.waiting.swap_remove(place)) else { continue };
                let said = Said { tuple: waiting.tuple, worker: waiting.worker, explained };
                let reply = match said.told(&self.roster, now) {
                    _ if generation != self.roster.generation() => {
                        Reply::error("the configuration has just changed; ask again")
                    }
                    Ok(explanation) => Reply::Explained(Box::new(explanation)),
                    Err(problem) => {
                        worker.condemn(&format!("explained what cannot be: {problem}"));
                        Reply::error(format!("{} has given an answer that cannot be, and is ended", worker.name()))
                    }
                };
                replies.push((id, reply));
            }
        }
        self.questions.waiting.retain(|waiting| {
            let overdue = waiting.deadline <= now;
            if overdue {
                let name = format!("worker[{}]", waiting.worker);
                let text = format!("{name} has not answered within {DEADLINE:?}; loaded status shows how it is");
                replies.push((waiting.id, Reply::error(text)));
            }
            !overdue
        });
        if let Some(control) = &mut self.control {
            replies.iter().for_each(|(id, reply)| control.settle(now, *id, reply));
        }
    }
}

/// A tuple that a packet can have, as it is asked for.
fn checked(tuple: Tuple) -> Result<Tuple, String> {
    let (client, vip) = (tuple.client.to_canonical(), tuple.vip.to_canonical());
    if client.is_ipv4() != vip.is_ipv4() {
        return Err(format!("{client} and {vip} are of two families"));
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

/// What a worker has said of a packet.
struct Said {
    tuple: Tuple,
    worker: u16,
    explained: Explained,
}

impl Said {
    /// With names in the place of numbers.
    ///
    /// # Errors
    /// What no honest worker with this roster would say.
    fn told(&self, roster: &Roster, now: Instant) -> Result<Explanation, String> {
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
        let (to, service) = match (chosen, entry) {
            (Some(Chosen { backend: index, why }), Some(entry)) if goes => {
                let to = backend(index)?;
                if Some(to.service) != service {
                    return Err(format!("{index} is none of {}", entry.service.name));
                }
                let mark = (entry.service.mode == Mode::Dsr).then(|| mark_of(index));
                (Some((to.address, why, mark)), Some(&entry.service))
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
            backend: to.map(|(address, ..)| address),
            by: to.map(|(_, why, _)| by(why).to_owned()),
            why: to.and_then(|(_, why, _)| Some(self.reason(why, service?))),
            mark: to.and_then(|(.., mark)| mark),
        })
    }

    /// "since its client 192.0.2.0/24 has it, last noted 37 s ago"
    fn reason(&self, why: Why, service: &Service) -> String {
        match why {
            Why::Flow => "since its flow is there".to_owned(),
            Why::Client { idle } => {
                let prefix = service.affinity.map(|affinity| prefix_of(self.tuple.client, affinity));
                let client = prefix.unwrap_or_else(|| self.tuple.client.to_string());
                format!("since its client {client} has it, last noted {idle} s ago")
            }
            Why::Strategy { candidates } => format!("chosen by {} among {candidates}", service.strategy),
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
    let (backend, state) = (entry.address, word(state).to_owned());
    Ok(FlowNow { backend, state, idle: known.idle, out: out.map(str::to_owned) })
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
        FlowState::Answered => "answered, not acknowledged",
        FlowState::Unanswered => "not answered",
        FlowState::Reset => "reset",
    }
}

fn by(why: Why) -> &'static str {
    match why {
        Why::Flow => "flow",
        Why::Client { .. } => "client",
        Why::Strategy { .. } => "strategy",
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

/// The prefix that makes the client, as an address of which the rest is zero.
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
        Said { tuple: TUPLE, worker: 1, explained }.told(&roster(), Instant::now())
    }

    const NEW: Explained = Explained {
        assumed: Assumed::Syn,
        outcome: Outcome::ForwardedNew,
        service: Some(ServiceIndex(0)),
        flow: None,
        chosen: Some(Chosen { backend: BackendIndex(0), why: Why::Client { idle: 37 } }),
    };

    #[test]
    fn numbers_become_names() {
        let explanation = told(NEW).unwrap();
        assert_eq!(explanation.service.as_deref(), Some("web"));
        assert_eq!(explanation.backend.unwrap().to_string(), "198.51.100.11");
        assert_eq!(explanation.why.unwrap(), "since its client 203.0.113.0/24 has it, last noted 37 s ago");
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
        let chosen = |n| Some(Chosen { backend: BackendIndex(n), why: Why::Flow });
        let flow = |backend, state| Some(KnownFlow { backend: BackendIndex(backend), state, idle: 0 });
        for lie in [
            // Nothing has these numbers.
            Explained { service: Some(ServiceIndex(2)), ..NEW },
            Explained { chosen: chosen(3), ..NEW },
            Explained { chosen: chosen(u16::MAX), ..NEW },
            Explained { flow: flow(9, 2), ..NEW },
            Explained { flow: flow(0, 0), ..NEW },
            Explained { flow: flow(0, 13), ..NEW },
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
