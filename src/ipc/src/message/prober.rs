//! Messages between supervisor and prober, and from the prober to workers.

use crate::{BackendIndex, Cause, Check, ServiceIndex};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// Supervisor to prober.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToProber {
    /// First message. The prober ends if it does not know `version`.
    Hello {
        /// [`crate::VERSION`] of the sender.
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
    /// The prober ends, and says why. At most [`crate::MAX_TEXT`] bytes.
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
