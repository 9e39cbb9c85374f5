//! The messages: one enum per direction of one link. Configuration travels as a transaction: `Begin`, items, `Commit`;
//! the child begins to work by it only at `Go`.

use crate::{
    Admin, Affinity, BackendIndex, Cause, Check, Explained, FlowsMeant, Mode, OnFailure, Policy, PortRange, Protocol,
    Question, Quota, ServiceIndex, Strategy, TableKeys, Unserved,
};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// Version of the messages below. Bump it with any change to them.
pub const VERSION: u16 = 16;

/// Largest frame either side accepts, bytes.
pub const MAX_FRAME: usize = 512;

/// Longest string in a message, bytes: a frame less tag and length, rounded down.
pub const MAX_TEXT: usize = 480;

/// Supervisor to worker. A worker has one configuration in its life; a new one gets a new worker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToWorker {
    /// First message. The worker ends if it does not know `version`.
    Hello {
        /// [`VERSION`] of the sender.
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
    /// [`MAX_TEXT`] bytes.
    Damaged(String),
    /// The tables are open and packets are answered.
    Ready {
        /// The generation of its configuration.
        generation: u64,
    },
    /// The worker ends, and says why. At most [`MAX_TEXT`] bytes.
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

/// Supervisor to prober.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToProber {
    /// First message. The prober ends if it does not know `version`.
    Hello {
        /// [`VERSION`] of the sender.
        version: u16,
        /// Whether descriptor [`crate::PING4_FD`] is a socket that pings; else it is /dev/null.
        ping4: Pinger,
        /// The same of [`crate::PING6_FD`].
        ping6: Pinger,
        /// Seeds the jitter; random.
        seed: u64,
    },
    /// Starts the transaction.
    Begin {
        /// The generation of the workers it will talk to.
        generation: u64,
    },
    /// One kind of check. Indices rise from 0 without gaps.
    Check {
        /// Its index.
        index: u16,
        /// What to do, and how often.
        check: Check,
    },
    /// One backend to be checked.
    Target {
        /// Its index.
        backend: BackendIndex,
        /// Its address.
        address: IpAddr,
        /// Index of a [`ToProber::Check`].
        check: u16,
        /// Where to connect or send, never 0, in place of the check's port; `None` for a check without one.
        port: Option<u16>,
        /// Whether it is believed to be up now.
        up: bool,
        /// Whether any check has said so yet. If not, the first result decides alone, without rise and fall.
        proven: bool,
        /// In mode "dsr" a virtual IP: connections and datagrams go there, by a socket with the backend's mark. The n-th
        /// such target has the n-th of these sockets, with which the prober was started; pings go to `address`.
        vip: Option<IpAddr>,
    },
    /// A network to sweep for nodes that may become backends of a service. Only answers from the prefix are reported.
    Discover {
        /// Which service.
        service: ServiceIndex,
        /// Where to send echo requests: an IPv4 broadcast address, or ff02::1.
        to: IpAddr,
        /// The address of ours to send from, for ff02::1: a node answers from an address of the same scope (RFC 6724 §5,
        /// rule 2). Otherwise unspecified.
        from: IpAddr,
        /// Index of the interface to send from, for ff02::1; otherwise 0.
        interface: u32,
        /// First address of the prefix that answers may come from.
        network: IpAddr,
        /// Length of the prefix.
        prefix: u8,
        /// Milliseconds from one sweep to the next.
        interval: u32,
    },
    /// Ends the transaction.
    Commit,
    /// Begin to check. Sent once, after [`FromProber::Prepared`].
    Go,
}

/// How the prober can ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Pinger {
    /// Not at all.
    None,
    /// By a ping socket (`SOCK_DGRAM`): the kernel makes checksum and id.
    Ping,
    /// By a raw socket: where `net.ipv4.ping_group_range` forbids the other.
    Raw,
}

/// Prober to supervisor. It can speak only of backends that it was told to check.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromProber {
    /// The prober has its targets and is in its sandbox. It waits for `Go`.
    Prepared {
        /// The generation of the transaction.
        generation: u64,
    },
    /// A backend has come up or gone down; or the first result of all has confirmed what was believed.
    Changed {
        /// Its number.
        backend: BackendIndex,
        /// What it is now.
        up: bool,
        /// What the last check said.
        cause: Cause,
        /// Microseconds the last check took; at most its timeout.
        latency: u32,
    },
    /// What the last check said, without a change. At most once in five seconds for each backend.
    Measured {
        /// Its number.
        backend: BackendIndex,
        /// What it said.
        cause: Cause,
        /// Microseconds it took; at most its timeout.
        latency: u32,
    },
    /// A node has answered a sweep. At most once an interval for each address, and 256 in all.
    Seen {
        /// The service it may serve.
        service: ServiceIndex,
        /// Its address.
        address: IpAddr,
    },
    /// The sign of life, once a second.
    Alive {
        /// Checks that began late since the last one: more than 250 ms after they were due.
        late: u32,
        /// How long after it was due the latest of them began, milliseconds.
        delay: u32,
    },
    /// The prober ends, and says why. At most [`MAX_TEXT`] bytes.
    Failed(String),
}

/// Prober to worker: the state of one backend. Sent to every worker for every backend at `Go`, at each change, and again in
/// turn, 64 a second; the same state twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// The generation that `backend` belongs to. A worker ignores messages of an older one than its own.
    pub generation: u64,
    /// Its number.
    pub backend: BackendIndex,
    /// Whether it is up.
    pub up: bool,
}

/// Largest frame of the link between supervisor and exporter, bytes.
pub const MAX_LARGE_FRAME: usize = 16 * 1024;

/// Most bytes of a document that one message carries: a frame less tag and length.
pub const MAX_PART: usize = MAX_LARGE_FRAME - 12;

/// Longest document, bytes. The metrics of 4096 backends take about 6 MB.
pub const MAX_DOCUMENT: usize = 12 << 20;

/// Supervisor to exporter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToExporter {
    /// First message. The exporter ends if it does not know `version`.
    Hello {
        /// [`VERSION`] of the sender.
        version: u16,
    },
    /// Begin to accept connections. Sent once, after [`FromExporter::Prepared`].
    Go,
    /// A document that was asked for begins; its parts follow, and nothing else until it is whole.
    Document {
        /// Which one.
        document: Document,
        /// Its length, at most [`MAX_DOCUMENT`].
        bytes: u32,
        /// Whether the instance serves: the status of [`Document::Health`].
        serves: bool,
    },
    /// The next bytes of the document, 1 to [`MAX_PART`] of them.
    Part(Vec<u8>),
    /// Accept no more connections, and end once those there are have their answers.
    Stop,
}

/// Exporter to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromExporter {
    /// It is in its sandbox and waits for `Go`.
    Prepared,
    /// Somebody has asked for this document. The supervisor sends it when it likes.
    Wanted(Document),
    /// The sign of life, every five seconds.
    Alive,
    /// The exporter ends, and says why. At most [`MAX_TEXT`] bytes.
    Failed(String),
}

/// What an exporter serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Document {
    /// `/metrics`
    Metrics,
    /// `/`
    Status,
    /// `/health`
    Health,
}

impl Document {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Status, Self::Health];
}

/// Supervisor to its successor at an upgrade. Here two different binaries talk to each other: neither these messages nor
/// their order may ever change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToSuccessor {
    /// The predecessor's workers have ended: queues and tables are the successor's.
    Yours,
}

/// Successor to its predecessor at an upgrade. May never change either.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromSuccessor {
    /// The successor cannot take over, and says why; nothing has changed. At most [`MAX_TEXT`] bytes.
    Refused(String),
    /// Its workers wait for the queues; its rules stand.
    Prepared {
        /// Whether its tables have another layout, so that their contents must be exported.
        export: bool,
    },
    /// Its workers serve.
    Serving,
}

/// What a worker may send to the prober: nothing. No bytes decode to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {}

impl Encode for Silence {
    fn encode<E: bincode::enc::Encoder>(&self, _: &mut E) -> Result<(), bincode::error::EncodeError> {
        match *self {}
    }
}

impl<Context> Decode<Context> for Silence {
    fn decode<D: bincode::de::Decoder<Context = Context>>(_: &mut D) -> Result<Self, bincode::error::DecodeError> {
        Err(bincode::error::DecodeError::Other("nothing may be sent in this direction"))
    }
}
