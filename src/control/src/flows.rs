//! Flows that workers know now: what is asked for, and the answer as JSON and as text.

use super::figures::{elapsed, table};
use super::text::cleaned;
use loaded_ipc::Destination;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Most flows in one answer: about 2 MB, which take the supervisor some 10 ms to write.
pub const MAX_FLOWS: usize = 10_000;

/// Which flows are asked for; what is `None` does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowQuery {
    /// An address of the clients' network, and the number of leading bits that count: at most 32, or 128.
    pub client: Option<(IpAddr, u8)>,
    /// The backend's address.
    pub backend: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// The service's name.
    pub service: Option<String>,
    /// The state, as [`FlowLine::state`].
    pub state: Option<String>,
    /// At most this many, 0 to [`MAX_FLOWS`].
    pub limit: usize,
}

/// The flows that were found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowList {
    /// As many as were asked for at most, in no order.
    pub flows: Vec<FlowLine>,
    /// How many there are of the kind that was asked for.
    pub matched: u64,
    /// How many there are of each state among these.
    pub states: BTreeMap<String, u64>,
    /// How many there are at all.
    pub total: u64,
}

/// Flows that were ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndedFlows {
    /// How many.
    pub ended: u64,
    /// Workers that have not said that they are done, by their positions.
    pub unsaid: Vec<u16>,
}

/// A flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowLine {
    /// IP protocol number.
    pub protocol: u8,
    /// The client's address.
    pub client: IpAddr,
    /// The client's port, or the echo identifier; 0 without ports.
    pub client_port: u16,
    /// The virtual IP.
    pub vip: IpAddr,
    /// The port there; 0 without ports.
    pub vip_port: u16,
    /// Its service.
    pub service: String,
    /// Its backend.
    pub backend: IpAddr,
    /// The port that its packets get; `None`: they keep the one they came to.
    pub port: Option<u16>,
    /// `established`, `half_open`, …
    pub state: String,
    /// Seconds since this entry was made, at least: what an upgrade from a binary that knew no age has carried over is as old as its
    /// last packet before.
    /// `None`: an older instance does not say.
    #[serde(default)]
    pub age: Option<u32>,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Whether the kernel sends its client's next packet on, if that is an ordinary one ("kernel"), or a worker gets it ("queue").
    #[serde(default)]
    pub path: String,
    /// Position of the worker that has it.
    pub worker: u16,
}

/// One flow a line, and a line that says how many there are.
#[must_use]
pub fn text(list: &FlowList) -> String {
    let list = &cleaned(list);
    let mut rows = vec![
        ["PROTO", "CLIENT", "VIP", "BACKEND", "SERVICE", "STATE", "PATH", "AGE", "IDLE"].map(str::to_owned).to_vec(),
    ];
    rows.extend(list.flows.iter().map(|flow| row(flow).to_vec()));
    let mut out = if list.flows.is_empty() { String::new() } else { table(&rows, &[]) };
    let states: Vec<_> = list.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let of = if list.matched == list.total { String::new() } else { format!(" of {}", list.total) };
    let shown = match list.flows.len() as u64 {
        all if all == list.matched => String::new(),
        some => format!("; {some} shown, --limit shows more"),
    };
    let kinds = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    out.push_str(&format!("{}{of} flows{kinds}{shown}\n", list.matched));
    out
}

/// How many were ended, in a line.
#[must_use]
pub fn ended(EndedFlows { ended, unsaid }: &EndedFlows) -> String {
    let rest: Vec<_> = unsaid.iter().map(|worker| format!("worker[{worker}]")).collect();
    match rest.as_slice() {
        [] => format!("{ended} flows are ended\n"),
        rest => format!(
            "{ended} flows are ended; {} has not said that it is done: say it again in a moment\n",
            rest.join(", ")
        ),
    }
}

fn row(flow: &FlowLine) -> [String; 9] {
    let FlowLine { protocol, client, client_port, vip, vip_port, .. } = *flow;
    let (client, vip) = match protocol {
        6 | 17 | 132 => (SocketAddr::new(client, client_port).to_string(), SocketAddr::new(vip, vip_port).to_string()),
        1 | 58 => (format!("{client} id {client_port}"), vip.to_string()),
        _ => (client.to_string(), vip.to_string()),
    };
    let protocol = match protocol {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    };
    let backend = Destination { address: flow.backend, port: flow.port }.to_string();
    let [service, state, path] = [&flow.service, &flow.state, &flow.path].map(String::clone);
    [
        protocol,
        client,
        vip,
        backend,
        service,
        state,
        path,
        flow.age.map_or_else(|| "-".to_owned(), |age| elapsed(age.into())),
        elapsed(flow.idle.into()),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn line(protocol: u8, client: &str) -> FlowLine {
        FlowLine {
            protocol,
            client: client.parse().unwrap(),
            client_port: 40000,
            vip: "192.0.2.100".parse().unwrap(),
            vip_port: 443,
            service: "web".to_owned(),
            backend: "198.51.100.11".parse().unwrap(),
            port: Some(8443),
            state: "established".to_owned(),
            age: Some(7500),
            idle: 75,
            path: "queue".to_owned(),
            worker: 0,
        }
    }

    #[test]
    fn a_list_is_a_table_and_a_sum() {
        let states = [("established".to_owned(), 3), ("half_open".to_owned(), 1)].into();
        let list =
            FlowList { flows: vec![line(6, "203.0.113.7"), line(1, "203.0.113.8")], matched: 4, states, total: 9 };
        assert_eq!(
            text(&list),
            "PROTO  CLIENT                VIP              BACKEND             SERVICE  STATE        PATH   AGE   IDLE\n\
             tcp    203.0.113.7:40000     192.0.2.100:443  198.51.100.11:8443  web      established  queue  2h5m  1m15s\n\
             icmp   203.0.113.8 id 40000  192.0.2.100      198.51.100.11:8443  web      established  queue  2h5m  1m15s\n\
             4 of 9 flows: 3 established, 1 half_open; 2 shown, --limit shows more\n"
        );
        assert_eq!(text(&FlowList::default()), "0 flows\n");
        assert_eq!(ended(&EndedFlows { ended: 3, unsaid: vec![] }), "3 flows are ended\n");
        let text_of_some = ended(&EndedFlows { ended: 3, unsaid: vec![1] });
        assert_eq!(
            text_of_some,
            "3 flows are ended; worker[1] has not said that it is done: say it again in a moment\n"
        );
        let forged = FlowLine { service: "a\nb\u{1b}".to_owned(), ..line(47, "203.0.113.7") };
        let text = text(&FlowList { flows: vec![forged], matched: 1, total: 1, ..FlowList::default() });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
