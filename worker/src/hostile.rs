//! For tests alone (feature `hostile`): a worker that a packet can hijack, to see what that gains.
//!
//! A real exploit arrives as a packet to a virtual IP and then runs with everything the worker has. So does this one: a UDP
//! datagram that holds a magic number and the number of the worker's queue names an attempt, and the worker makes it inside its
//! sandbox, in the middle of its work. If the worker survives, the datagram goes on to its backend with the kernel's answer
//! written into it: a client of an echo server reads there what came of the attempt.
//!
//! ```text
//!  payload:  magic 16 | process 4 | signal 2 | queue 2 | foreign queue 2 | 0 0 | link 16 | answer 8 | name of the attempt
//! ```
//!
//! Numbers are big endian. The answer is two 16-bit words, each followed by its complement, so that whatever they are the
//! datagram's checksum stays right.

mod exploit;
mod link;
mod memory;
mod verdict;

use exploit::{Exploit, write_answer};
use loaded_ipc::SupervisorLink;
use loaded_queue::Packet;
use loaded_sandbox::hostile::LiveAttempts;
use loaded_sandbox::{Bindings, SandboxError};
use memory::SharedMemory;
use std::cell::OnceCell;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

/// The answer when there is no such attempt.
const UNKNOWN: i32 = i32::MIN + 1;

/// What a hijacked worker works with; collected before the sandbox is entered.
#[derive(Debug)]
struct Hijacked {
    queue: u16,
    attempts: LiveAttempts,
    memory: SharedMemory,
}

thread_local! {
    // ManuallyDrop: unmapping is a system call that the sandbox kills for.
    static MEMORY: OnceCell<ManuallyDrop<SharedMemory>> = const { OnceCell::new() };
    static HIJACKED: OnceCell<ManuallyDrop<Hijacked>> = const { OnceCell::new() };
}

/// Maps tables and counters once more, as plain words. Call it while the worker still has all rights.
///
/// # Errors
/// If they cannot be mapped.
pub(crate) fn map_memory(fast: bool) -> Result<(), loaded_table::Error> {
    let memory = SharedMemory::map(fast)?;
    MEMORY.with(|cell| drop(cell.set(ManuallyDrop::new(memory))));
    Ok(())
}

/// The same with the flow table of the kernel path, once its size is known.
///
/// # Errors
/// If it cannot be mapped.
pub(crate) fn map_flows(array: &OwnedFd, bytes: usize) -> Result<(), loaded_table::Error> {
    MEMORY.with(|cell| cell.get().map_or(Ok(()), |memory| memory.map_flows(array, bytes)))
}

/// Collects what attempts need. The last thing before the sandbox is entered.
///
/// # Errors
/// Without memory.
pub(crate) fn prepare(bindings: &Bindings, queue: u16) -> Result<(), SandboxError> {
    let attempts = LiveAttempts::prepare(bindings.clone())?;
    let memory = MEMORY.with(|cell| cell.get().map(|memory| SharedMemory::clone(memory)));
    if let Some(memory) = memory {
        HIJACKED.with(|cell| drop(cell.set(ManuallyDrop::new(Hijacked { queue, attempts, memory }))));
    }
    Ok(())
}

/// Does what the packet orders, if it hijacks a worker that has a supervisor. Returns whether that has answered the
/// packet.
pub(crate) fn hijacks(packet: &mut Packet<'_>, link: Option<&SupervisorLink>) -> bool {
    let Some(link) = link else { return false };
    let Some(exploit) = Exploit::read(packet.bytes()) else { return false };
    HIJACKED.with(|cell| match cell.get() {
        Some(hijacked) if hijacked.queue == exploit.victims.queue => hijacked.obey(&exploit, packet, link),
        // Another worker was hijacked and sent it on to this queue: here it is a packet like any other.
        _ => false,
    })
}

impl Hijacked {
    fn obey(&self, exploit: &Exploit, packet: &mut Packet<'_>, link: &SupervisorLink) -> bool {
        let name = exploit.name();
        if let Some(attempt) = verdict::find(name) {
            return attempt(packet, exploit);
        }
        if name == memory::ENTER {
            let answer = self.memory.enter(packet.bytes(), &exploit.victims);
            write_answer(packet.bytes(), answer);
            return false;
        }
        let answer = match (link::find(name), memory::find(name)) {
            (Some(attempt), _) => Some(attempt(link, u64::from(exploit.victims.process))),
            (None, Some(attempt)) => Some(attempt(&self.memory)),
            (None, None) => self.attempts.run(name, exploit.victims),
        };
        let answer = answer.map_or(UNKNOWN, |answer| i32::try_from(answer).unwrap_or(i32::MIN));
        write_answer(packet.bytes(), answer);
        false
    }
}
