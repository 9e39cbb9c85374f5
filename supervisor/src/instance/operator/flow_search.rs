//! A search for flows (`loaded flows`) over the tables of all workers, in pieces. What the tables say is checked: their workers
//! may be hostile.

use crate::roster::Roster;
use loaded_config::network::Network;
use loaded_control::{FlowLine, FlowList, FlowQuery, MAX_FLOWS};
use loaded_ipc::{BackendIndex, FlowsMeant, KnownFlow};
use loaded_table::{Flow, FlowKey, FlowReader, FlowState, Since};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How long one piece takes. Between two the loop does everything else.
const PIECE: Duration = Duration::from_millis(2);
/// Buckets between two looks at the clock: some 0.1 ms.
const STEP: u32 = 256;

/// A search under way.
#[derive(Debug)]
pub(crate) struct FlowSearch {
    /// Number of the request.
    pub(crate) id: u32,
    /// When nobody waits for it any more.
    pub(crate) deadline: Instant,
    /// Index of the worker whose table is read.
    pub(crate) worker: usize,
    filter: FlowFilter,
    reader: Option<FlowReader>,
    found: FlowList,
    /// By the number of a [`FlowState`].
    states: [u64; STATES],
}

/// One more than the greatest number of a state.
const STATES: usize = 15;

/// Which flows are searched for.
#[derive(Debug)]
struct FlowFilter {
    client: Option<Network>,
    backend: Option<IpAddr>,
    port: Option<u16>,
    service: Option<String>,
    state: Option<FlowState>,
    limit: usize,
}

impl FlowSearch {
    /// Begins a search.
    ///
    /// # Errors
    /// What of the query does not exist.
    pub(crate) fn new(id: u32, query: FlowQuery, roster: &Roster, deadline: Instant) -> Result<Self, String> {
        let filter = FlowFilter::new(query, roster)?;
        let (found, states) = (FlowList::default(), [0; STATES]);
        Ok(Self { id, deadline, worker: 0, filter, reader: None, found, states })
    }

    /// Whether a table is to be given to it, that of `worker`.
    pub(crate) fn wants_table(&self) -> bool {
        self.reader.is_none()
    }

    /// Gives it the table of `worker`.
    pub(crate) fn give(&mut self, reader: FlowReader) {
        self.reader = Some(reader);
    }

    /// Reads a piece, at `now` in seconds of the tables' clock. `by_kernel` says of a flow of this protocol whether the kernel path takes
    /// its packets.
    pub(crate) fn go_on(
        &mut self,
        roster: &Roster,
        position: u16,
        now: u32,
        by_kernel: &dyn Fn(u8, KnownFlow) -> bool,
    ) {
        let Some(mut reader) = self.reader.take() else { return };
        let end = Instant::now() + PIECE;
        while reader.read(STEP, now, |key, flow, since| self.meet(roster, position, (key, flow, since), by_kernel)) {
            if Instant::now() >= end {
                self.reader = Some(reader);
                return;
            }
        }
        self.worker += 1;
    }

    fn meet(
        &mut self,
        roster: &Roster,
        worker: u16,
        (key, flow, Since { age, idle }): (&FlowKey, &Flow, Since),
        by_kernel: &dyn Fn(u8, KnownFlow) -> bool,
    ) {
        // What the roster does not have is either gone by now or a lie.
        let Some(backend) = roster.backend(BackendIndex(flow.backend)) else { return };
        let (Some(vip), Some(entry)) = (roster.vip(flow.vip), roster.service(backend.service)) else { return };
        let (service, client) = (entry.service.name.as_str(), Ipv6Addr::from(key.client).to_canonical());
        self.found.total += 1;
        let FlowFilter { client: network, backend: address, port, service: named, state, limit } = &self.filter;
        let is_wanted = network.is_none_or(|network| network.contains(client))
            && address.is_none_or(|address| address == backend.address)
            && port.is_none_or(|port| Some(port) == backend.port)
            && named.as_deref().is_none_or(|name| name == service)
            && state.is_none_or(|state| state == flow.state);
        if !is_wanted {
            return;
        }
        self.found.matched += 1;
        if let Some(count) = self.states.get_mut(flow.state as usize) {
            *count += 1;
        }
        if self.found.flows.len() < *limit {
            let known = KnownFlow { backend: BackendIndex(flow.backend), state: flow.state as u8, idle };
            let path = if by_kernel(key.protocol, known) { "kernel" } else { "queue" };
            self.found.flows.push(FlowLine {
                protocol: key.protocol,
                client,
                client_port: key.client_port,
                vip,
                vip_port: flow.vip_port,
                service: service.to_owned(),
                backend: backend.address,
                port: backend.port,
                state: flow.state.label().to_owned(),
                age: Some(age),
                idle,
                path: path.to_owned(),
                worker,
            });
        }
    }

    /// What was found.
    pub(crate) fn into_list(mut self) -> FlowList {
        let counted = FlowState::ALL.into_iter().filter_map(|state| Some((state, *self.states.get(state as usize)?)));
        let met = counted.filter(|(_, count)| *count > 0);
        self.found.states = met.map(|(state, count)| (state.label().to_owned(), count)).collect();
        self.found
    }
}

/// The flows that a query means, for workers.
///
/// # Errors
/// What of it does not exist; it means all flows.
pub(super) fn meant(query: FlowQuery, roster: &Roster) -> Result<FlowsMeant, String> {
    let client = query.client;
    let FlowFilter { backend, port, service, state, .. } = FlowFilter::new(FlowQuery { limit: 0, ..query }, roster)?;
    let is_it =
        |name: &String| roster.services().find(|(_, entry)| entry.service.name == *name).map(|(index, _)| index);
    let (service, state) = (service.as_ref().and_then(is_it), state.map(|state| state as u8));
    let meant = FlowsMeant { client, backend, port, service, state };
    match meant.is_sane() {
        true => Ok(meant),
        false => Err("that would end every flow; say which: --client, --backend, --service or --state".to_owned()),
    }
}

impl FlowFilter {
    fn new(query: FlowQuery, roster: &Roster) -> Result<Self, String> {
        let FlowQuery { client, backend, port, service, state, limit } = query;
        let client = client.map(|(address, length)| {
            Network::around(address, length).ok_or_else(|| format!("{address}/{length} is no network"))
        });
        if let Some(name) =
            service.as_deref().filter(|name| !roster.services().any(|(_, entry)| entry.service.name == *name))
        {
            return Err(format!("there is no service {name:?}; loaded status shows what there is"));
        }
        if let Some(address) =
            backend.filter(|address| !roster.backends().any(|(_, backend)| backend.address == *address))
        {
            return Err(format!("there is no backend {address}; loaded status shows what there is"));
        }
        let state = state.map(|word| {
            let known = FlowState::ALL.into_iter().find(|state| state.label() == word);
            known.ok_or_else(|| format!("there is no state {word:?}"))
        });
        if limit > MAX_FLOWS {
            return Err(format!("at most {MAX_FLOWS} flows fit into an answer, not {limit}"));
        }
        Ok(Self { client: client.transpose()?, backend, port, service, state: state.transpose()?, limit })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
