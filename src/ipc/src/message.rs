//! The messages: one enum per direction of one link. Configuration travels as a transaction: `Begin`, items, `Commit`;
//! the child begins to work by it only at `Go`.

use crate::{
    Admin, Affinity, BackendIndex, Cause, Check, Explained, Mode, OnFailure, Policy, PortRange, Protocol, Question,
    Quota, ServiceIndex, Strategy, Unserved,
};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// Version of the messages below. Bump it with any change to them.
pub const VERSION: u16 = 7;

/// Largest frame either side accepts, bytes.
pub const MAX_FRAME: usize = 512;

/// Longest text in a message, bytes: what is left of a frame beside its tag and length, rounded down.
pub const MAX_TEXT: usize = 480;

/// Supervisor to worker. A worker has one configuration in its life: another one is another worker's.
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
    /// Starts the transaction.
    Begin {
        /// Number of the configuration, rising.
        generation: u64,
        /// What becomes of packets to a virtual IP that no service serves there.
        unserved: Unserved,
        /// What becomes of packets that do not hold together, where nothing is translated: a worker that has a service of
        /// [`Mode::Nat`] drops them whatever is said here.
        malformed: OnFailure,
    },
    /// What one source prefix can have; without it there is no bound. At most once.
    Quota(Quota),
    /// One virtual IP. Indices rise, here and below, but may have gaps: an index never changes its meaning while a
    /// flow that names it can live.
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
    /// A backend of the last service. No two of one service have the same address.
    Backend {
        /// Its index, which is of this service alone: the same address in another service has another.
        index: BackendIndex,
        /// Its address.
        address: IpAddr,
        /// Its share, 1..=256.
        weight: u16,
        /// Only used when no other backend can be.
        backup: bool,
        /// What the operator wants of it.
        admin: Admin,
        /// What the checks say of it now; `true` where there is none.
        up: bool,
        /// Seconds since it came up, for slow start; `u32::MAX`: it was never seen down.
        age: u32,
    },
    /// Ends the transaction: the items are complete.
    Commit,
    /// The queue and the tables are its own now: open them and serve. Once, after [`FromWorker::Prepared`].
    Go,
    /// While it serves: what the operator wants of a backend has changed.
    Admin {
        /// Which.
        backend: BackendIndex,
        /// To what.
        admin: Admin,
    },
    /// Answer what was received, leave the rest in the queue, and end with code 0. Another worker comes after it.
    Stop,
    /// While it serves: what would become of a packet now? Answered by [`FromWorker::Explained`]; nothing changes by it.
    Explain {
        /// Comes back with the answer.
        id: u32,
        /// Which packet.
        question: Question,
    },
}

/// Worker to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromWorker {
    /// The configuration stands and the process is sandboxed. It waits for `Go`, and has not looked into the tables.
    Prepared {
        /// Of the transaction it answers.
        generation: u64,
    },
    /// The tables are open; packets are answered.
    Ready {
        /// Of its configuration.
        generation: u64,
    },
    /// The worker ends, and says why. At most [`MAX_TEXT`] bytes.
    Failed(String),
    /// To [`ToWorker::Explain`], in the order they were asked.
    Explained {
        /// That of the question.
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
        /// What is believed of it now.
        up: bool,
        /// Whether any check has said so yet. If not, the first result decides alone, without rise and fall.
        proven: bool,
        /// In mode "dsr" a virtual IP: connections and datagrams go there, by a socket with the backend's mark. The n-th
        /// such target has the n-th of these sockets, with which the prober was started; pings go to `address`.
        vip: Option<IpAddr>,
    },
    /// Where to look for nodes that may become backends of a service. `Seen` is only for answers from within.
    Discover {
        /// Which service.
        service: ServiceIndex,
        /// Where to send echo requests: an IPv4 broadcast address, or ff02::1.
        to: IpAddr,
        /// The address of ours to send from, for ff02::1: who answers uses an address of the scope it was asked from
        /// (RFC 6724 §5, rule 2). Else unspecified.
        from: IpAddr,
        /// Index of the interface, for ff02::1; else 0.
        interface: u32,
        /// First address of the prefix that answers may come from.
        network: IpAddr,
        /// Length of the prefix.
        prefix: u8,
        /// Milliseconds between two looks.
        interval: u32,
    },
    /// Ends the transaction.
    Commit,
    /// Begin. Once, after [`FromProber::Prepared`].
    Go,
}

/// How a ping can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Pinger {
    /// Not at all.
    None,
    /// By a ping socket (`SOCK_DGRAM`): the kernel makes checksum and id.
    Ping,
    /// By a raw socket: where `net.ipv4.ping_group_range` forbids the other.
    Raw,
}

/// Prober to supervisor. It can only speak about backends it was told of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromProber {
    /// The targets stand and the process is sandboxed. It waits for `Go`.
    Prepared {
        /// Of the transaction it answers.
        generation: u64,
    },
    /// A backend is up now and was not, or the other way round; or the first result says what was believed.
    Changed {
        /// Which.
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
        /// Which.
        backend: BackendIndex,
        /// What it said.
        cause: Cause,
        /// Microseconds it took; at most its timeout.
        latency: u32,
    },
    /// A node has answered a look for new ones. At most once an interval for each address, and 256 in all.
    Seen {
        /// For which service.
        service: ServiceIndex,
        /// Its address.
        address: IpAddr,
    },
    /// Once a second: it lives.
    Alive,
    /// The prober ends, and says why. At most [`MAX_TEXT`] bytes.
    Failed(String),
}

/// Prober to worker: what it believes of one backend. Said to every worker at `Go` for every backend, and at each change;
/// saying the same twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Membership {
    /// The generation in which `backend` has its meaning. Of an older one than its own a worker takes no notice.
    pub generation: u64,
    /// Which.
    pub backend: BackendIndex,
    /// Whether it may be given work.
    pub up: bool,
}

/// Supervisor to the one that is to follow it at an upgrade. Two binaries talk here that may know different messages of all
/// other kinds: neither these nor their order ever change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToSuccessor {
    /// Our workers have ended: queues and tables are yours.
    Yours,
}

/// The other way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromSuccessor {
    /// It does not follow, and says why; nothing has changed. At most [`MAX_TEXT`] bytes.
    Refused(String),
    /// Its workers wait for the queues; its rules stand.
    Prepared {
        /// Its tables are laid out otherwise: what is in them is to be exported.
        export: bool,
    },
    /// Its workers serve.
    Serving,
}

/// What a worker sends to the prober: nothing. No bytes decode to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {}

impl Encode for Silence {
    fn encode<E: bincode::enc::Encoder>(&self, _: &mut E) -> Result<(), bincode::error::EncodeError> {
        match *self {}
    }
}

impl<Context> Decode<Context> for Silence {
    fn decode<D: bincode::de::Decoder<Context = Context>>(_: &mut D) -> Result<Self, bincode::error::DecodeError> {
        Err(bincode::error::DecodeError::Other("nothing may be said in this direction"))
    }
}
