//! The worker's decisions about recorded packets: the same code in the same order as in `crate::forward`, without a queue, a
//! sandbox or any privilege. Nothing is sent. The time is that of the packets.

use crate::decide::{Decider, FlowSummary, Lookup, PacketBuffer, Prepared};
use crate::forward::{POLL_EVERY_MS, SWEEP_BUSY, SWEEP_IDLE};
use crate::setup::{Assembly, OutOfStep, flow_timeouts};
use crate::time::Now;
use crate::verdict::verdict;
use crate::wire::{PacketFacts, SPARE};
use loaded_ipc::{ALL_COUNTERS, Idle, RECEIVED, ToWorker, mark_of};
use loaded_queue::RECEIVE_TIMEOUT_MS;
use loaded_table::{AffinityTable, Counters, FlowTable, Region, TableSpec, shm};
use std::time::Duration;

pub use loaded_ipc::Outcome;
pub use loaded_queue::Verdict;

/// The worker's clock at the first packet, seconds: far enough from 0 that no age is cut short.
const START: u64 = 100_000;
/// The last time of that clock, 68 years on. A capture may name any time, and a worker adds timeouts to its clock.
const END: Duration = Duration::from_secs(u32::MAX as u64 / 2);
/// The hash key of the tables, fixed so that a capture always gives the same answers.
const KEY: [u8; 16] = *b"loaded replay!!!";
/// The longest packet the kernel hands over whole: an attribute's length, with its header of 4, is of 16 bits
/// (struct nlattr, include/uapi/linux/netlink.h).
const MAX_PAYLOAD: usize = 65_531;
/// Maximum number of waits that a pause between two packets counts for. A worker has one every [`RECEIVE_TIMEOUT_MS`],
/// and 65,536 of them sweep the largest table once.
const MAX_IDLE: u64 = 65_536;

/// Why packets cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The messages do not make a configuration.
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    /// The messages end before `Commit`.
    #[error("the configuration ends before its last message")]
    Endless,
    /// No memory for the tables.
    #[error("tables: {0}")]
    Table(#[from] loaded_table::Error),
}

/// A worker with its tables, and no kernel.
#[derive(Debug)]
pub struct Replay {
    decider: Decider,
    space: Box<[u8]>,
    now: Now,
    polled: u64,
    /// Buckets of the larger table in units of [`SWEEP_IDLE`].
    rounds: u64,
}

/// What became of a packet.
#[derive(Debug)]
pub struct Replayed<'r> {
    /// Its end.
    pub outcome: Outcome,
    /// What the kernel would be told to do with it.
    pub verdict: Verdict,
    /// The mark by which the kernel would route it unchanged (mode "dsr").
    pub mark: Option<u32>,
    /// Index of the service it is for, if it is for one.
    pub service: Option<u16>,
    /// The flow it belongs to, or belonged to if the packet has ended it.
    pub flow: Option<FlowSummary>,
    /// Whether that flow existed before the packet.
    pub known: bool,
    /// What the kernel would hand over: the packet without the link's padding.
    pub before: &'r [u8],
    /// Whether the end of the packet is missing there.
    pub cut: bool,
    /// The new bytes, where the verdict sends some.
    pub after: Option<&'r [u8]>,
}

impl Replay {
    /// A single worker with this configuration: the messages of a supervisor from `Begin` to `Commit`. `flows` and `clients`
    /// are the capacities of its tables.
    ///
    /// # Errors
    /// If the messages are no configuration, or memory is short.
    pub fn new(messages: impl IntoIterator<Item = ToWorker>, flows: usize, clients: usize) -> Result<Self, Error> {
        let prepared = Prepared::new(Assembly::whole(messages, 0)?.ok_or(Error::Endless)?);
        let memory = Region::map(shm::create("replay-flows", FlowTable::bytes_for(flows))?)?;
        FlowTable::format(&memory, TableSpec::new(flows, KEY))?;
        let flow_table = FlowTable::open(memory, TableSpec::new(flows, KEY), flow_timeouts(&Idle::STANDARD))?;
        let memory = Region::map(shm::create("replay-clients", AffinityTable::bytes_for(clients))?)?;
        AffinityTable::format(&memory, TableSpec::new(clients, KEY))?;
        let client_table = AffinityTable::open(memory, TableSpec::new(clients, KEY), |_| {})?;
        let counters = Counters::map(shm::create("replay-counters", Counters::bytes_for(ALL_COUNTERS))?)?;
        let now = worker_time(Duration::ZERO);
        let decider = prepared.open(flow_table, client_table, counters, now);
        let rounds = (flows.max(clients) / SWEEP_IDLE) as u64 + 1;
        Ok(Self { decider, space: vec![0; MAX_PAYLOAD + SPARE].into(), now, polled: 0, rounds })
    }

    /// Decides about the next packet. `bytes` begin with its IP header, and `missing` more were not recorded; `at` is its time
    /// since the first packet. A time before that of the last packet counts as that.
    pub fn decide<'r>(&'r mut self, bytes: &'r [u8], missing: usize, at: Duration) -> Replayed<'r> {
        let pause = self.advance(at);
        self.idle(pause);
        let (before, cut) = handed_over(bytes, missing);
        let length = before.len();
        self.space[..length].copy_from_slice(before);
        let now = self.now;

        let facts = PacketFacts { cut, ..PacketFacts::WHOLE };
        let lookup = self.decider.lookup(before, facts);
        self.decider.prefetch(&lookup);
        let earlier = self.decider.flow_of(&lookup, now);
        let space = (length + SPARE).min(MAX_PAYLOAD);
        let decided =
            self.decider.decide(&lookup, PacketBuffer { space: &mut self.space[..space], length, facts }, now);
        self.decider.counters().add(decided.outcome.index(), 1);
        self.decider.counters().add(RECEIVED, 1);
        let flow = self.flow(&lookup, decided.outcome, earlier);
        if now.millis.saturating_sub(self.polled) >= POLL_EVERY_MS {
            self.polled = now.millis;
            self.decider.tick(now);
        }
        self.decider.sweep(now.seconds, SWEEP_BUSY);

        let (outcome, verdict) = (decided.outcome, verdict(decided.outcome));
        let sent = decided.direct.is_none() && matches!(verdict, Verdict::Rewrite | Verdict::Repeat);
        Replayed {
            outcome,
            verdict,
            mark: decided.direct.map(mark_of),
            service: flow.map(|flow| flow.service).or_else(|| self.decider.service_of(&lookup)),
            flow,
            known: flow.is_some() && outcome != Outcome::ForwardedNew,
            before,
            cut,
            after: if sent { self.space.get(..decided.length) } else { None },
        }
    }

    /// How many packets had each outcome; every packet has one.
    pub fn counts(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.iter().map(|&outcome| (outcome, self.decider.counters().get(outcome.index()).unwrap_or(0)))
    }

    /// The flow as it is after the packet or, if the packet has ended it, as it was. A packet that passed belongs to none,
    /// whatever its ports are.
    fn flow(&self, lookup: &Lookup, outcome: Outcome, earlier: Option<FlowSummary>) -> Option<FlowSummary> {
        match verdict(outcome) {
            Verdict::Accept => None,
            _ => self.decider.flow_of(lookup, self.now).or(earlier),
        }
    }

    /// Sets the clock. Returns how many milliseconds have passed.
    fn advance(&mut self, at: Duration) -> u64 {
        let then = worker_time(at);
        let pause = then.millis.saturating_sub(self.now.millis);
        if pause > 0 {
            self.now = then;
        }
        pause
    }

    /// What a worker does while no packet comes: each wait sweeps a part of the tables. Sweeping all of them once is enough.
    fn idle(&mut self, pause: u64) {
        let waits = pause / RECEIVE_TIMEOUT_MS.unsigned_abs();
        if waits > 0 {
            self.polled = self.now.millis;
            self.decider.tick(self.now);
        }
        for _ in 0..waits.min(self.rounds).min(MAX_IDLE) {
            self.decider.sweep(self.now.seconds, SWEEP_IDLE);
        }
    }
}

/// A time of the capture as one of the worker's clock, which stops at [`END`].
fn worker_time(at: Duration) -> Now {
    let time = at.saturating_add(Duration::from_secs(START)).min(END);
    Now {
        seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
        millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The packet as the kernel queues it: without the link's padding (`pskb_trim_rcsum` in net/ipv4/ip_input.c and
/// net/ipv6/ip6_input.c), and no longer than a message can carry. Also whether its end is missing.
fn handed_over(bytes: &[u8], missing: usize) -> (&[u8], bool) {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let says = match bytes.first().map(|first| first >> 4) {
        Some(4) => word(2),
        // 0 stands for a jumbogram or a packet without payload.
        Some(6) => word(4).filter(|length| *length > 0).map(|length| length + 40),
        _ => None,
    };
    let whole = bytes.len().saturating_add(missing);
    let trimmed = says.filter(|says| *says >= 20 && *says < whole).unwrap_or(whole);
    let length = trimmed.min(bytes.len()).min(MAX_PAYLOAD);
    (&bytes[..length], length < trimmed)
}
