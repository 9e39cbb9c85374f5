//! The hot loop: receives packets, has each decided about and answers it. In between it hears the supervisor, the prober and
//! the kernel path, and sweeps the tables.

use crate::clock::now;
use crate::decide::{Decided, Decider, Lookup, PacketBuffer};
use crate::error::Error;
use crate::hostile;
use crate::inbox::Inbox;
use crate::orders::{Orders, set_turn};
use crate::pending_fragments::PendingFragments;
use crate::time::Now;
use crate::verdict::verdict;
use crate::wire::{ChecksumState, PacketFacts};
use loaded_fastpath::Reports;
use loaded_ipc::{CURRENT_PACKET, Fault, MARK_MASK, Outcome, RECEIVED, Turn, encode_packet_id, mark_of};
use loaded_queue::{BATCH, Faults, Meta, Packet, QueueSocket};
use loaded_table::Counters;

/// Buckets of each table swept after each batch, and after each wait that brought no packet.
pub(crate) const SWEEP_BUSY: usize = 4;
pub(crate) const SWEEP_IDLE: usize = 1024;
/// Buckets in which flows are ended after a full batch, after any other, and after a wait that brought no packet: some 5 µs, 0.1 ms and
/// 1 ms.
const END_BUSY: u32 = 64;
const END_BETWEEN: u32 = 1024;
const END_IDLE: u32 = 16384;
/// Milliseconds after which a busy worker polls its links; the coarse clock ticks every 1 to 10 ms.
pub(crate) const POLL_EVERY_MS: u64 = 5;
/// After this many milliseconds in which every batch was full the worker is behind: packets have waited as long, and some
/// may have been dropped.
const BEHIND_MS: u64 = 50;
/// Most reports of the kernel path heard in one round: more than the ring holds.
const MAX_REPORTS: usize = 8192;
// The queue leaves as much space behind a packet as an answer may need.
const _: () = assert!(loaded_queue::SPARE >= crate::wire::SPARE);

/// What it hears beside packets and the supervisor: from the prober, and from the kernel path.
pub(crate) struct Ears {
    pub(crate) inbox: Inbox,
    pub(crate) reports: Option<Reports>,
}

impl Ears {
    /// Lets flows move by the packets that the kernel path has sent on. Each was reported before any later packet of its flow was
    /// queued, so after a batch was received and before it is decided about.
    #[inline]
    fn hear(&mut self, decider: &mut Decider, now: Now) {
        let Some(reports) = &mut self.reports else { return };
        // The ring may fill as fast as it is read; the rest waits for the next round.
        for report in reports.at(now.millis).take(MAX_REPORTS) {
            decider.hear(&report, now);
        }
    }
}

/// The hot loop: two system calls for each batch, no allocation, no lock.
pub(crate) fn forward(
    orders: &mut Orders<'_>,
    ears: &mut Ears,
    socket: &mut QueueSocket,
    decider: &mut Decider,
) -> Result<(), Error> {
    let mut lookups: [Option<Lookup>; BATCH] = [None; BATCH];
    let mut faults = socket.faults();
    let (mut polled, mut not_behind) = (0, now().millis);
    let mut pending = PendingFragments::new();
    loop {
        let received = socket.receive()?;
        let now = now();
        ears.hear(decider, now);
        look_up(&mut lookups, received, socket, decider);
        let waiting = answer(&lookups, socket, decider, &mut pending, orders, now);
        socket.flush();
        decider.counters().add(RECEIVED, received as u64 - waiting);
        pending.release_due(socket, decider, now);
        count_faults(decider.counters(), &mut faults, socket.faults());
        if received < BATCH {
            not_behind = now.millis;
        }

        if received == 0 || now.millis.saturating_sub(polled) >= POLL_EVERY_MS {
            polled = now.millis;
            // Every packet of the batch has its verdict, and after an order to stop the tables are not touched any more.
            if !orders.obey(decider, now)? {
                break;
            }
            ears.inbox.poll(decider, now);
            if now.millis.saturating_sub(not_behind) >= BEHIND_MS {
                decider.fall_behind();
            }
            decider.tick(now);
        }
        decider.sweep(now.seconds, if received == 0 { SWEEP_IDLE } else { SWEEP_BUSY });
        if decider.is_ending() && !orders.end_flows(decider, end_at_once(received), now)? {
            break;
        }
    }
    pending.release_all(socket, decider);
    ears.hear(decider, now());
    set_turn(decider.counters(), Turn::Over);
    Ok(())
}

/// Looks up the flows of a batch, and has what decisions read of them fetched from memory.
#[inline]
fn look_up(lookups: &mut [Option<Lookup>; BATCH], received: usize, socket: &QueueSocket, decider: &Decider) {
    for (lookup, (id, bytes, meta)) in lookups.iter_mut().zip(socket.waiting()) {
        decider.counters().set(CURRENT_PACKET, encode_packet_id(id));
        *lookup = Some(decider.lookup(bytes, facts(meta)));
    }
    for lookup in lookups[..received.min(BATCH)].iter().flatten() {
        decider.prefetch(lookup);
    }
}

/// Decides about each packet of the batch and gives its verdict; returns how many wait for another one instead.
#[inline]
fn answer(
    lookups: &[Option<Lookup>; BATCH],
    socket: &mut QueueSocket,
    decider: &mut Decider,
    pending: &mut PendingFragments,
    orders: &Orders<'_>,
    now: Now,
) -> u64 {
    let mut next = lookups.iter();
    let mut waiting = 0;
    while let Some(mut packet) = socket.next() {
        // Without a lookup there is no verdict: the token then drops the packet, and `Faults` counts it.
        let Some(Some(lookup)) = next.next() else { continue };
        decider.counters().set(CURRENT_PACKET, encode_packet_id(packet.id()));
        if hostile::hijacks(&mut packet, orders.link) {
            continue;
        }
        let (facts, length) = (facts(packet.meta()), packet.bytes().len());
        let decided = decider.decide(lookup, PacketBuffer { space: packet.room(), length, facts }, now);
        match decided.outcome {
            Outcome::RepeatedFragment => waiting += u64::from(hold(pending, packet, lookup, decider, now)),
            _ => settle(packet, length, decided, decider.counters()),
        }
    }
    decider.counters().set(CURRENT_PACKET, 0);
    waiting
}

/// Buckets in which flows are ended in a round that has brought so many packets.
fn end_at_once(received: usize) -> u32 {
    match received {
        0 => END_IDLE,
        BATCH.. => END_BUSY,
        _ => END_BETWEEN,
    }
}

/// Counts the outcome of a packet that had `length` bytes, and gives its verdict.
#[inline]
fn settle(packet: Packet<'_>, length: usize, decided: Decided, counters: &Counters) {
    counters.add(decided.outcome.index(), 1);
    match decided.direct {
        Some(backend) => packet.settle_marked(mark_of(backend), MARK_MASK),
        None if decided.length == length => packet.settle(verdict(decided.outcome)),
        None => packet.settle_resized(verdict(decided.outcome), decided.length),
    }
}

/// What the queue says about a packet, as decisions take it.
#[inline]
fn facts(meta: Meta) -> PacketFacts {
    PacketFacts { cut: meta.cut, checksum: ChecksumState::new(meta.partial, meta.gso) }
}

/// Lets a fragment wait for the first one of its datagram; if too many wait it is dropped. Returns whether it waits.
#[cold]
fn hold(pending: &mut PendingFragments, mut packet: Packet<'_>, lookup: &Lookup, decider: &Decider, now: Now) -> bool {
    let waits = match Decider::datagram(lookup, packet.bytes()) {
        Some(datagram) => pending.hold(packet, datagram, now),
        None => Err(packet),
    };
    let Err(packet) = waits else { return true };
    decider.counters().add(Outcome::DroppedFragment.index(), 1);
    packet.settle(verdict(Outcome::DroppedFragment));
    false
}

fn count_faults(counters: &Counters, before: &mut Faults, after: Faults) {
    if *before == after {
        return;
    }
    for (index, old, new) in [
        (Fault::UnknownId.index(), before.unknown_id, after.unknown_id),
        (Fault::Refused.index(), before.refused, after.refused),
        (Fault::Unsent.index(), before.unsent, after.unsent),
        (Fault::Strange.index(), before.strange, after.strange),
        (Fault::Unfit.index(), before.unfit, after.unfit),
        (Outcome::DroppedUndecided.index(), before.defaulted, after.defaulted),
    ] {
        counters.add(index, new - old);
    }
    *before = after;
}
