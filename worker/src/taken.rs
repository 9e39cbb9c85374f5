//! A worker that a packet takes over, for tests of what that is worth: never a part of a release (feature `taken`).
//!
//! A real exploit arrives as a packet to a virtual IP and then runs with everything the worker has. So does this one: a UDP
//! datagram with [`MAGIC`] and the worker's queue in it names an act, and the worker performs it behind its fence, in the
//! middle of its work. Where it lives on, the datagram goes on to its backend, with the kernel's answer written into it:
//! who sent it to an echo reads there what came of the act.
//!
//! ```text
//!  payload:  magic 16 | process 4 | signal 2 | queue 2 | foreign queue 2 | 0 0 | link 16 | answer 8 | name of the act
//! ```
//!
//! Numbers are big endian. The answer is two words, each followed by its complement: however they change, the checksum
//! stays what it was.

mod link;
mod memory;
mod verdict;

use loaded_ipc::SupervisorLink;
use loaded_queue::Packet;
use loaded_sandbox::act::Target;
use loaded_sandbox::act::taken::Hands;
use loaded_sandbox::{Bindings, SandboxError};
use loaded_table::Counters;
use memory::Memories;
use std::cell::OnceCell;
use std::mem::ManuallyDrop;

/// How the payload begins.
const MAGIC: [u8; 16] = *b"taken-by-packet\n";
/// Where in the payload the answer is, and the name behind it.
const ANSWER: usize = 44;
const NAME: usize = ANSWER + 8;
/// Longest name of an act.
const LONGEST: usize = 80;
/// What is answered where there is no such act.
const UNKNOWN: i32 = i32::MIN + 1;
const UDP: u8 = 17;

/// What it acts with, had before the fence.
#[derive(Debug)]
struct Arms {
    queue: u16,
    hands: Hands,
    memories: Memories,
}

thread_local! {
    static MEMORIES: OnceCell<ManuallyDrop<Memories>> = const { OnceCell::new() };
    // Dropped, it would unmap.
    static ARMS: OnceCell<ManuallyDrop<Arms>> = const { OnceCell::new() };
}

/// What a packet orders.
#[derive(Debug, Clone, Copy)]
struct Order {
    target: Target,
    name: [u8; LONGEST],
    length: usize,
}

/// Before anything is given up: maps tables and counters once more, as plain words.
///
/// # Errors
/// If they cannot be had.
pub(crate) fn reach() -> Result<(), loaded_table::Error> {
    let memories = Memories::map()?;
    MEMORIES.with(|cell| drop(cell.set(ManuallyDrop::new(memories))));
    Ok(())
}

/// The last thing before the fence.
///
/// # Errors
/// Without memory.
pub(crate) fn arm(bindings: Bindings, queue: u16) -> Result<(), SandboxError> {
    let hands = Hands::free(bindings)?;
    let memories = MEMORIES.with(|cell| cell.get().map(|memories| Memories::clone(memories)));
    if let Some(memories) = memories {
        ARMS.with(|cell| drop(cell.set(ManuallyDrop::new(Arms { queue, hands, memories }))));
    }
    Ok(())
}

/// Looks whether a packet takes this worker over, and does what it orders. Whether the packet is dealt with by that.
pub(crate) fn over(packet: &mut Packet<'_>, link: &SupervisorLink) -> bool {
    let Some(order) = Order::read(packet.bytes()) else { return false };
    ARMS.with(|cell| match cell.get() {
        Some(arms) if arms.queue == order.target.queue => arms.obey(&order, packet, link),
        // Sent on by a worker that was: for this one it is a packet.
        _ => false,
    })
}

impl Arms {
    fn obey(&self, order: &Order, packet: &mut Packet<'_>, link: &SupervisorLink) -> bool {
        let name = order.name();
        if let Some(act) = verdict::find(name) {
            return act(packet, order);
        }
        let answer = match (link::find(name), memory::find(name)) {
            (Some(act), _) => Some(act(link, u64::from(order.target.process))),
            (None, Some(act)) => Some(act(&self.memories)),
            (None, None) => self.hands.attempt(name, order.target),
        };
        let answer = answer.map_or(UNKNOWN, |answer| i32::try_from(answer).unwrap_or(i32::MIN));
        write_answer(packet.bytes(), answer);
        false
    }
}

impl Order {
    fn read(bytes: &[u8]) -> Option<Self> {
        let payload = bytes.get(payload_at(bytes)?..)?;
        let word = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk()?));
        if !payload.starts_with(&MAGIC) {
            return None;
        }
        let process = u32::from_be_bytes(*payload.get(16..)?.first_chunk()?);
        let link = *payload.get(28..)?.first_chunk()?;
        let target = Target { process, signal: i32::from(word(20)?), queue: word(22)?, foreign: word(24)?, link };
        let text = payload.get(NAME..).filter(|text| text.len() <= LONGEST)?;
        let mut name = [0; LONGEST];
        name[..text.len()].copy_from_slice(text);
        Some(Self { target, name, length: text.len() })
    }

    fn name(&self) -> &[u8] {
        &self.name[..self.length]
    }
}

/// Behind the headers of UDP in IP without options.
fn payload_at(bytes: &[u8]) -> Option<usize> {
    match (bytes.first()? >> 4, bytes.get(9)?, bytes.get(6)?) {
        (4, &UDP, _) => Some(28),
        (6, _, &UDP) => Some(48),
        _ => None,
    }
}

fn write_answer(bytes: &mut [u8], answer: i32) {
    let [a, b, c, d] = answer.to_be_bytes();
    let at = payload_at(bytes).map_or(usize::MAX, |at| at + ANSWER);
    if let Some(room) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..8)) {
        room.copy_from_slice(&[a, b, !a, !b, c, d, !c, !d]);
    }
}

/// The words of one memory.
type Words = Counters;
