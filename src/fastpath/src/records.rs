//! What the supervisor tells the program: backends by index, virtual IPs by index, and what an address is. Records are words,
//! which it may change while packets pass.

use crate::error::Error;
use crate::keeping::unseen;
use crate::mapping::{Access, Mapping};
use crate::shared::{
    ADDRESS_ADDRESS, ADDRESS_BYTES, ADDRESS_INDEX, ADDRESS_IS_BACKEND, ADDRESS_IS_VIP, ADDRESS_KIND, ADDRESS_PORTS,
    BACKEND_ADDRESS, BACKEND_BYTES, BACKEND_FRESH_CLOSING, BACKEND_FRESH_HALF_OPEN, BACKEND_FRESH_TCP,
    BACKEND_FRESH_UDP, BACKEND_INTERFACE, BACKEND_IS_DIRECT, BACKEND_IS_REWRITTEN, BACKEND_KIND, BACKEND_PORT,
    PORTS_CHANGE, PORTS_STAY, WORKER_BUCKETS, WORKER_BYTES, WORKER_HASH_KEY, WORKER_USED,
};
use loaded_table::{FlowState, TableSpec};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A backend as the program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The port that its packets get; `None`: they keep theirs.
    pub port: Option<u16>,
    /// Its packets stay as they are, and its replies take another way (mode "dsr"). It is in a network of this host, and has no
    /// port of its own.
    pub direct: bool,
    /// How its replies must come.
    pub comes_by: ComesBy,
    /// How long its flows go on without a visit to their worker.
    pub fresh: Fresh,
}

/// The interfaces by which replies of a backend are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComesBy {
    /// Any.
    Any,
    /// The one with this index, which the route to the backend leads through.
    This(u32),
    /// None that is known: the queue's rules judge.
    None,
}

/// Seconds for which flows go on without a visit to their worker: less than their idle times, so that a worker sees each flow
/// long before it would forget it. The program takes a flow of any other state to the worker at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// TCP, open.
    pub tcp: u8,
    /// UDP, answered.
    pub udp: u8,
    /// Not open yet: TCP that the client has not acknowledged, UDP that the backend has not answered.
    pub half_open: u8,
    /// TCP, closed by both sides.
    pub closing: u8,
}

/// Which ports flows to or from an address have: it says where to look for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ports {
    /// Some keep the port at the virtual IP.
    pub stay: bool,
    /// Some have a backend with a port of its own.
    pub change: bool,
}

impl Ports {
    /// Those of other flows too.
    pub fn add(&mut self, others: Self) {
        self.stay |= others.stay;
        self.change |= others.change;
    }
}

/// An address of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// What it is.
    pub kind: Kind,
    /// Of its flows.
    pub ports: Ports,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtual IP, by its index.
    Vip(u16),
    /// One or several backends whose replies come this way.
    Backend,
}

/// Each kind of record has four words.
pub(crate) type Words = [u64; 4];

const _: () = assert!(BACKEND_BYTES == size_of::<Words>() && ADDRESS_BYTES == size_of::<Words>());
const _: () = assert!(WORKER_BYTES == size_of::<Words>());

/// Records of one map, for writing.
#[derive(Debug)]
pub(crate) struct Records(Mapping);

impl Records {
    pub(crate) fn map(fd: impl AsFd, what: &'static str, records: usize) -> Result<Self, Error> {
        Ok(Self(Mapping::new(fd, what, (0, records * size_of::<Words>()), Access::Write)?))
    }

    /// Writes a record, if it is another one. Its last word says that it is there, so it is cleared first and written last.
    pub(crate) fn set(&self, index: usize, words: Words) {
        let Some([a, b, c, there]) = self.place(index) else { return };
        if self.get(index) == Some(words) {
            return;
        }
        there.store(0, Release);
        a.store(words[0], Release);
        b.store(words[1], Release);
        c.store(words[2], Release);
        there.store(words[3], Release);
    }

    /// A record as it is.
    pub(crate) fn get(&self, index: usize) -> Option<Words> {
        Some(self.place(index)?.each_ref().map(|word| word.load(Relaxed)))
    }

    fn place(&self, index: usize) -> Option<&[AtomicU64; 4]> {
        self.0.words().as_chunks().0.get(index)
    }
}

impl Fresh {
    /// A quarter of each idle time (seconds), at most half a minute; and at most a sixteenth of the time for which a client keeps
    /// its backend without a packet, if there is one.
    #[must_use]
    pub fn of(tcp: u32, udp: u32, half_open: u32, closing: u32, affinity: Option<u32>) -> Self {
        let most = affinity.map_or(u32::MAX, |timeout| timeout / 16);
        let part = |idle: u32| u8::try_from(most.min(unseen(idle))).unwrap_or(0);
        Self { tcp: part(tcp), udp: part(udp), half_open: part(half_open), closing: part(closing) }
    }

    /// Seconds for which a flow in this state goes on unseen: `fresh` in `bpf/fast.bpf.c`.
    pub(crate) fn of_state(self, state: FlowState) -> u32 {
        use FlowState as S;
        let seconds = match state {
            S::HalfOpen | S::Answered | S::Unanswered => self.half_open,
            S::Closing => self.closing,
            S::Datagram | S::Replied => self.udp,
            _ => self.tcp,
        };
        seconds.into()
    }
}

impl Backend {
    pub(crate) fn words(&self) -> Words {
        let mut raw = [0; BACKEND_BYTES];
        put(&mut raw, BACKEND_ADDRESS, &self.address);
        let interface = match self.comes_by {
            ComesBy::Any => 0,
            ComesBy::This(index) => index,
            // No interface has this index: it is an `int`, above 0.
            ComesBy::None => u32::MAX,
        };
        put(&mut raw, BACKEND_INTERFACE, &interface.to_le_bytes());
        put(&mut raw, BACKEND_PORT, &self.port.unwrap_or(0).to_le_bytes());
        let Fresh { tcp, udp, half_open, closing } = self.fresh;
        put(&mut raw, BACKEND_FRESH_TCP, &[tcp]);
        put(&mut raw, BACKEND_FRESH_UDP, &[udp]);
        put(&mut raw, BACKEND_FRESH_HALF_OPEN, &[half_open]);
        put(&mut raw, BACKEND_FRESH_CLOSING, &[closing]);
        let kind = if self.direct { BACKEND_IS_DIRECT } else { BACKEND_IS_REWRITTEN };
        put(&mut raw, BACKEND_KIND, &kind.to_le_bytes()[..1]);
        words(&raw)
    }
}

impl Address {
    pub(crate) fn words(&self) -> Words {
        let (kind, index) = match self.kind {
            Kind::Vip(index) => (ADDRESS_IS_VIP, index),
            Kind::Backend => (ADDRESS_IS_BACKEND, 0),
        };
        let bit = |is: bool, bit: usize| if is { bit } else { 0 };
        let ports = bit(self.ports.stay, PORTS_STAY) | bit(self.ports.change, PORTS_CHANGE);
        let mut raw = [0; ADDRESS_BYTES];
        put(&mut raw, ADDRESS_ADDRESS, &self.address);
        put(&mut raw, ADDRESS_INDEX, &index.to_le_bytes());
        put(&mut raw, ADDRESS_KIND, &kind.to_le_bytes()[..1]);
        put(&mut raw, ADDRESS_PORTS, &ports.to_le_bytes()[..1]);
        words(&raw)
    }
}

/// The record of a worker's table.
pub(crate) fn table(spec: TableSpec) -> Words {
    let mut raw = [0; WORKER_BYTES];
    put(&mut raw, WORKER_HASH_KEY, &spec.hash_key);
    put(
        &mut raw,
        WORKER_BUCKETS,
        &spec.buckets().map_or(0, |buckets| u32::try_from(buckets).unwrap_or(0)).to_le_bytes(),
    );
    put(&mut raw, WORKER_USED, &[1]);
    words(&raw)
}

fn put(raw: &mut [u8], at: usize, bytes: &[u8]) {
    raw[at..at + bytes.len()].copy_from_slice(bytes);
}

fn words(raw: &[u8; 32]) -> Words {
    let (chunks, _) = raw.as_chunks();
    [0, 1, 2, 3].map(|n| u64::from_le_bytes(chunks[n]))
}
