//! Which path a client's next packet takes, for `loaded explain`.

use super::entries::of_entry;
use super::{FastPath, Off};
use crate::children::worker::Worker;
use crate::roster::Roster;
use loaded_control::Tuple;
use loaded_control::explain::Path;
use loaded_fastpath::foretell::{FlowNow, Next, Sent, foretell};
use loaded_fastpath::records::ComesBy;
use loaded_fastpath::{Keeping, Miss};
use loaded_ipc::{Assumed, Explained, KnownFlow};
use loaded_table::FlowState;

impl FastPath {
    /// The path that the packet takes if it is ordinary and comes by the interface that the route to its client leads through.
    pub(crate) fn next(&mut self, tuple: Tuple, explained: &Explained, worker: &Worker, roster: &Roster) -> Path {
        let next = match (tuple.protocol, explained.assumed) {
            (6, Assumed::Syn) => Next::Syn,
            (6, _) => Next::Ack,
            (17, _) => Next::Datagram,
            _ => Next::Other,
        };
        let flow = explained.flow.and_then(|known| self.flow_now(known, worker, roster));
        let unseen = flow.map_or(0, |flow| flow.unseen);
        match foretell(next, flow) {
            Err(why) => queue(why.label(), &words(why, unseen)),
            Ok(sent) => self.ways(tuple, explained, roster).unwrap_or_else(|| kernel(sent)),
        }
    }

    /// Whether the next packet of a flow's client is sent on, if it is an ordinary one and has a way: an acknowledgement, or a datagram.
    pub(crate) fn takes(&self, protocol: u8, known: KnownFlow, worker: &Worker, roster: &Roster) -> bool {
        let next = match protocol {
            6 => Next::Ack,
            17 => Next::Datagram,
            _ => return false,
        };
        self.is_open() && foretell(next, self.flow_now(known, worker, roster)).is_ok()
    }

    fn flow_now(&self, known: KnownFlow, worker: &Worker, roster: &Roster) -> Option<FlowNow> {
        let entry = roster.backend(known.backend);
        let backend = entry
            .filter(|entry| !self.left_out.contains(&entry.address) && self.program.knows_backend(known.backend.0))
            .and_then(|entry| of_entry(roster, entry, ComesBy::Any));
        let (fresh, direct) = (backend.map(|backend| backend.fresh), backend.is_some_and(|backend| backend.direct));
        let is_kept =
            worker.memory.maps().is_some_and(|maps| Keeping::are_kept(&maps.keeping, known.backend.0).unwrap_or(false));
        Some(FlowNow { state: FlowState::from_u8(known.state)?, unseen: known.idle, fresh, direct, is_kept })
    }

    /// What is amiss with its way in or out, if anything.
    fn ways(&mut self, tuple: Tuple, explained: &Explained, roster: &Roster) -> Option<Path> {
        if self.left_out.contains(&tuple.vip) {
            return Some(queue("foreign", "the kernel path has no room for this virtual IP"));
        }
        match self.towards.interface(tuple.client) {
            None => return Some(queue("way", "no route leads to the client")),
            Some(index) if !self.attached.contains_key(&index) => {
                let name = self.refused.get(&index).map_or_else(|| format!("interface {index}"), Clone::clone);
                return Some(queue(
                    "interface",
                    &format!("the route to the client leads by {name}, which has no program"),
                ));
            }
            Some(_) => {}
        }
        let backend = roster.backend(explained.flow?.backend)?;
        let leads_there = self.towards.interface(backend.address).is_some();
        (!leads_there).then(|| queue("way", &format!("no route leads to {}", backend.address)))
    }
}

/// Where there is no kernel path, or it is not attached.
pub(crate) fn off(why: &Off) -> Path {
    queue("off", &format!("the kernel path is off: {why}"))
}

fn queue(reason: &str, why: &str) -> Path {
    Path { by: "queue".to_owned(), reason: reason.to_owned(), why: why.to_owned() }
}

fn kernel(sent: Sent) -> Path {
    let (reason, why) = match sent {
        Sent::Silently => ("silent", "its flow is open and its worker has seen it lately"),
        Sent::WithReport => ("told", "its flow is known, and its worker is told of the packet"),
    };
    Path { by: "kernel".to_owned(), reason: reason.to_owned(), why: why.to_owned() }
}

/// Why the program leaves it to the queue.
fn words(why: Miss, unseen: u32) -> String {
    match why {
        Miss::Unread => "the kernel path takes TCP and UDP alone".to_owned(),
        Miss::Opens => "a SYN is for a worker to decide about".to_owned(),
        Miss::NoFlow => "there is no flow, so a worker decides".to_owned(),
        Miss::Unusual => "what it means in this state of its flow is for a worker to judge".to_owned(),
        Miss::Backend => "the kernel path has no room for the backend's address".to_owned(),
        Miss::Stale => format!("its worker has not seen the flow for {unseen} s, and looks again"),
        Miss::NotKept => "its worker does not keep flows of this backend: it is down or out".to_owned(),
        other => other.label().to_owned(),
    }
}
