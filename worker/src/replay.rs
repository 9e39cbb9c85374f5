//! The worker's decisions over packets that somebody has recorded: the same code in the same order as in
//! [`crate::run`], without a queue, a fence or a right. Nothing is sent. The time is that of the packets.

use crate::decide::{Decider, Lookup, Now, Place, Prepared, Told};
use crate::outcome::verdict;
use crate::setup::{Assembly, OutOfStep};
use crate::wire::{PacketFacts, SPARE};
use loaded_ipc::{ALL_COUNTERS, RECEIVED, ToWorker, mark_of};
use loaded_queue::RECEIVE_TIMEOUT_MS;
use loaded_table::{AffinityTable, Counters, FlowTable, Region, Timeouts, shm};
use std::time::Duration;

pub use loaded_ipc::Outcome;
pub use loaded_queue::Verdict;

/// The worker's clock when the first packet comes, seconds: far enough from 0 that nothing looks younger than it is.
const START: u64 = 100_000;
/// Its last moment: 68 years on, as long as no machine runs. A record may say anything, and a worker adds to its clock.
const END: Duration = Duration::from_secs(u32::MAX as u64 / 2);
/// The hash key of the tables: a fixed one, so that a capture always gives the same answers.
const KEY: [u8; 16] = *b"loaded replay!!!";
/// The longest packet the kernel hands over whole: an attribute's length, with its header of 4, is of 16 bits
/// (struct nlattr, include/uapi/linux/netlink.h).
const MAX_PAYLOAD: usize = 65_531;
/// As [`crate::run`] does it: buckets swept after a packet and in an idle moment, milliseconds between two looks.
const SWEEP_BUSY: usize = 4;
const SWEEP_IDLE: usize = 1024;
const LOOK_EVERY: u64 = 5;
/// Idle moments that a pause between two packets is worth at most. A worker has one every [`RECEIVE_TIMEOUT_MS`], and
/// 65,536 of them go through the largest table.
const MAX_IDLE: u64 = 65_536;

/// Why there is nothing to replay with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration's messages do not make one.
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    /// They end too early.
    #[error("the configuration has no end")]
    Endless,
    /// No memory for the tables.
    #[error("tables: {0}")]
    Table(#[from] loaded_table::Error),
}

/// A worker with its tables, and no kernel.
#[derive(Debug)]
pub struct Replay {
    decider: Decider,
    room: Box<[u8]>,
    now: Now,
    looked: u64,
    /// Buckets of the larger table in units of [`SWEEP_IDLE`].
    rounds: u64,
}

/// What became of a packet.
#[derive(Debug)]
pub struct Fate<'r> {
    /// Its end.
    pub outcome: Outcome,
    /// What the kernel would be told.
    pub verdict: Verdict,
    /// Instead of sending something else the kernel would mark it so, and route it by that.
    pub mark: Option<u32>,
    /// Index of the service it is for, if it is for one.
    pub service: Option<u16>,
    /// The flow it belongs to; for a packet that ended its flow, the one it belonged to.
    pub flow: Option<Told>,
    /// Whether that flow was there before the packet.
    pub known: bool,
    /// What the kernel handed over: the packet without the link's padding.
    pub before: &'r [u8],
    /// Whether its end was missing there.
    pub cut: bool,
    /// What goes on instead, where the verdict sends something else.
    pub after: Option<&'r [u8]>,
}

impl Replay {
    /// A worker that is the only one, told what the supervisor tells one at a start: from `Begin` to `Commit`. `flows` and
    /// `clients` are the sizes of its tables.
    ///
    /// # Errors
    /// If the messages are no configuration, or the memory cannot be had.
    pub fn new(messages: impl IntoIterator<Item = ToWorker>, flows: usize, clients: usize) -> Result<Self, Error> {
        let mut assembly = Assembly::default();
        let mut setup = None;
        for message in messages {
            setup = assembly.take(message, 0)?.or(setup);
        }
        let prepared = Prepared::new(setup.ok_or(Error::Endless)?);
        let memory = Region::map(shm::create("replay-flows", FlowTable::bytes_for(flows))?)?;
        FlowTable::format(&memory, flows, KEY)?;
        let flow_table = FlowTable::open(memory, Timeouts::default())?;
        let memory = Region::map(shm::create("replay-clients", AffinityTable::bytes_for(clients))?)?;
        AffinityTable::format(&memory, clients, KEY)?;
        let client_table = AffinityTable::open(memory, |_| {})?;
        let counters = Counters::map(shm::create("replay-counters", Counters::bytes_for(ALL_COUNTERS))?)?;
        let now = moment(Duration::ZERO);
        let decider = prepared.open(flow_table, client_table, counters, now);
        let rounds = (flows.max(clients) / SWEEP_IDLE) as u64 + 1;
        Ok(Self { decider, room: vec![0; MAX_PAYLOAD + SPARE].into(), now, looked: 0, rounds })
    }

    /// Decides about the next packet. `bytes` begin with its IP header and are followed by `missing` bytes that were not
    /// recorded; `at` is its time since the first one. A time before that of the last packet is taken for that.
    pub fn decide<'r>(&'r mut self, bytes: &'r [u8], missing: usize, at: Duration) -> Fate<'r> {
        let pause = self.advance(at);
        self.idle(pause);
        let (before, cut) = handed_over(bytes, missing);
        let length = before.len();
        self.room[..length].copy_from_slice(before);
        let now = self.now;

        let facts = PacketFacts { cut, ..PacketFacts::WHOLE };
        let look = self.decider.look(before, facts);
        self.decider.prefetch(&look);
        let earlier = self.decider.flow_of(&look, now);
        let room = (length + SPARE).min(MAX_PAYLOAD);
        let decided = self.decider.decide(&look, Place { room: &mut self.room[..room], length, facts }, now);
        self.decider.counters().add(decided.outcome.index(), 1);
        self.decider.counters().add(RECEIVED, 1);
        let flow = self.flow(&look, decided.outcome, earlier);
        if now.millis.saturating_sub(self.looked) >= LOOK_EVERY {
            self.looked = now.millis;
            self.decider.tick(now);
        }
        self.decider.sweep(now.seconds, SWEEP_BUSY);

        let (outcome, verdict) = (decided.outcome, verdict(decided.outcome));
        let sent = decided.direct.is_none() && matches!(verdict, Verdict::Rewrite | Verdict::Repeat);
        Fate {
            outcome,
            verdict,
            mark: decided.direct.map(mark_of),
            service: flow.map(|flow| flow.service).or_else(|| self.decider.service_of(&look)),
            flow,
            known: flow.is_some() && outcome != Outcome::ForwardedNew,
            before,
            cut,
            after: if sent { self.room.get(..decided.length) } else { None },
        }
    }

    /// How many packets met each end; every packet met one.
    pub fn counts(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.iter().map(|&outcome| (outcome, self.decider.counters().get(outcome.index()).unwrap_or(0)))
    }

    /// The flow as it is after the packet, or if the packet has ended it, as it was. A packet that was let pass belongs to
    /// none, whatever its ports are.
    fn flow(&self, look: &Lookup, outcome: Outcome, earlier: Option<Told>) -> Option<Told> {
        match verdict(outcome) {
            Verdict::Accept => None,
            _ => self.decider.flow_of(look, self.now).or(earlier),
        }
    }

    /// Sets the clock. Returns the milliseconds that have passed.
    fn advance(&mut self, at: Duration) -> u64 {
        let then = moment(at);
        let pause = then.millis.saturating_sub(self.now.millis);
        if pause > 0 {
            self.now = then;
        }
        pause
    }

    /// What a worker does while nothing comes: each wait that brings nothing sweeps more. More than once through the
    /// tables finds nothing.
    fn idle(&mut self, pause: u64) {
        let waits = pause / RECEIVE_TIMEOUT_MS.unsigned_abs();
        if waits > 0 {
            self.looked = self.now.millis;
            self.decider.tick(self.now);
        }
        for _ in 0..waits.min(self.rounds).min(MAX_IDLE) {
            self.decider.sweep(self.now.seconds, SWEEP_IDLE);
        }
    }
}

/// A time of the record as one of the worker's clock, which stops at [`END`].
fn moment(at: Duration) -> Now {
    let time = at.saturating_add(Duration::from_secs(START)).min(END);
    Now {
        seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
        millis: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The packet as the kernel queues it: without padding of the link (`pskb_trim_rcsum` in net/ipv4/ip_input.c and
/// net/ipv6/ip6_input.c), and no longer than a message can carry. Whether its end is missing.
fn handed_over(bytes: &[u8], missing: usize) -> (&[u8], bool) {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let says = match bytes.first().map(|first| first >> 4) {
        Some(4) => word(2),
        // 0 is that of a jumbogram, or of a packet without payload.
        Some(6) => word(4).filter(|length| *length > 0).map(|length| length + 40),
        _ => None,
    };
    let whole = bytes.len().saturating_add(missing);
    let trimmed = says.filter(|says| *says >= 20 && *says < whole).unwrap_or(whole);
    let length = trimmed.min(bytes.len()).min(MAX_PAYLOAD);
    (&bytes[..length], length < trimmed)
}
