//! Messages between supervisor and worker.

use crate::{
    Admin, Affinity, BackendIndex, Explained, FlowsMeant, Mode, OnFailure, Policy, PortRange, Protocol, Question,
    Quota, ServiceIndex, Strategy, TableKeys, Unserved,
};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// Supervisor to worker. A worker has one configuration in its life; a new one gets a new worker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToWorker {
    /// First message. The worker ends if it does not know `version`.
    Hello {
        /// [`crate::VERSION`] of the sender.
        version: u16,
        /// Position of this worker among the workers, from 0.
        worker: u16,
        /// The queue it answers.
        queue: u16,
    },
    /// What the tables are that the worker will find in its memory. Second message, and sent again to a worker that waits for
    /// `Go` if the tables were emptied meanwhile. Nothing of this is ever read from the memory, which earlier workers could
    /// write.
    Tables {
        /// Most flows.
        flows: u32,
        /// Most clients.
        clients: u32,
        /// Their hash keys.
        keys: TableKeys,
    },
    /// Starts the transaction.
    Begin {
        /// Number of the configuration; rises.
        generation: u64,
        /// What becomes of packets to a virtual IP that no service serves there.
        unserved: Unserved,
        /// What becomes of malformed packets. A worker that has a service of [`Mode::Nat`] drops them in any case.
        malformed: OnFailure,
    },
    /// What one source prefix can have protected; without it there is no bound. At most once.
    Quota(Quota),
    /// One virtual IP. Indices, here and below, rise but may have gaps: an index keeps its meaning as long as a flow that
    /// names it can live.
    Vip {
        /// Its index.
        index: u16,
        /// Its address.
        address: IpAddr,
    },
    /// One service; what follows until the next `Service` belongs to it.
    Service {
        /// Its index.
        index: ServiceIndex,
        /// What it balances.
        protocol: Protocol,
        /// How its packets get to their backends.
        mode: Mode,
        /// How a new client gets its backend.
        strategy: Strategy,
        /// Whether and how a client stays with its backend.
        affinity: Option<Affinity>,
        /// What happens when backends fail.
        policy: Policy,
    },
    /// The last service answers on this virtual IP. A service without any takes no new flows: it is leaving.
    Listen {
        /// Index of a [`ToWorker::Vip`].
        vip: u16,
    },
    /// The last service answers on these ports. A service without any answers on all.
    Port(PortRange),
    /// A backend of the last service. No two of one service have the same address and port.
    Backend {
        /// Its index, which is of this service alone: the same address in another service has another.
        index: BackendIndex,
        /// Its address.
        address: IpAddr,
        /// The port that packets to it get, never 0, and `None` in mode "dsr" and for [`Protocol::Any`]; `None`: they keep the
        /// one they came to.
        port: Option<u16>,
        /// Its share, 1..=256.
        weight: u16,
        /// Used only when no other backend can be.
        backup: bool,
        /// What the operator wants of it.
        admin: Admin,
        /// Whether it is up by the checks now; `true` without a check.
        up: bool,
        /// Seconds since it came up, for slow start; `u32::MAX`: it was never seen down.
        age: u32,
        /// The operator has named it, or a check has passed. Until then a discovered node does not count.
        confirmed: bool,
        /// Length of this host's network that it is in: what it answers to others there need not pass here. `None`: it is in
        /// none, or its answers never pass here (mode "dsr").
        link: Option<u8>,
    },
    /// Ends the transaction.
    Commit,
    /// Queue and tables are yours: open them and serve. Sent once, after [`FromWorker::Prepared`].
    Go,
    /// To a worker that serves: the operator has changed the state of a backend.
    Admin {
        /// Which backend.
        backend: BackendIndex,
        /// Its new state.
        admin: Admin,
    },
    /// Answer the packets received so far, leave the rest in the queue for the next worker, and end with code 0.
    Stop,
    /// To a worker that serves: end the flows that are of this kind. Answered by [`FromWorker::Ended`], once the whole table was looked
    /// through.
    End {
        /// Comes back with the answer. An order replaces the one before it, which gets no answer.
        id: u32,
        /// Which flows.
        flows: FlowsMeant,
    },
    /// To a worker that serves: what would become of this packet now? Answered by [`FromWorker::Explained`]; changes nothing.
    Explain {
        /// Comes back with the answer.
        id: u32,
        /// The packet.
        question: Question,
    },
}

/// Worker to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromWorker {
    /// The worker has its configuration and is in its sandbox. It waits for `Go` and has not read the tables.
    Prepared {
        /// The generation of the transaction.
        generation: u64,
    },
    /// A table said of itself what the supervisor has not said ([`ToWorker::Tables`]), and was emptied. Before `Ready`. At most
    /// [`crate::MAX_TEXT`] bytes.
    Damaged(String),
    /// The tables are open and packets are answered.
    Ready {
        /// The generation of its configuration.
        generation: u64,
    },
    /// The worker ends, and says why. At most [`crate::MAX_TEXT`] bytes.
    Failed(String),
    /// The answer to [`ToWorker::End`].
    Ended {
        /// The order's id.
        id: u32,
        /// How many flows were ended, at most as many as the table has places.
        ended: u32,
    },
    /// The answer to [`ToWorker::Explain`]; answers come in the order of the questions.
    Explained {
        /// The question's id.
        id: u32,
        /// The answer.
        explained: Explained,
    },
}
