//! Fragments that arrive before the first one of their datagram, which alone tells where they go. They wait in the kernel; what
//! is kept here is only their packet ids. Once the first has come they are sent through the rules again, and then their
//! datagram is known (`decide::fragment_table`, which says how long).

use crate::decide::{Datagram, Decider};
use crate::time::Now;
use loaded_ipc::{Outcome, RECEIVED};
use loaded_queue::{Held, Packet, QueueSocket, Release};

/// Maximum number of fragments that wait at one worker, and for how many milliseconds.
const MAX_WAITING: usize = 64;
const MAX_WAIT_MS: u64 = 1000;

/// The fragments that wait. Each counts as received when it waits no more.
#[derive(Debug)]
pub(crate) struct PendingFragments {
    waiting: [Option<PendingFragment>; MAX_WAITING],
    count: usize,
}

#[derive(Debug)]
struct PendingFragment {
    held: Held,
    datagram: Datagram,
    /// Milliseconds of the monotonic clock.
    until: u64,
}

impl PendingFragments {
    pub(crate) fn new() -> Self {
        Self { waiting: [const { None }; MAX_WAITING], count: 0 }
    }

    /// Lets a packet wait; gives it back if too many wait already.
    pub(crate) fn hold<'p>(&mut self, packet: Packet<'p>, datagram: Datagram, now: Now) -> Result<(), Packet<'p>> {
        let Some(free) = self.waiting.iter_mut().find(|slot| slot.is_none()) else { return Err(packet) };
        *free = Some(PendingFragment { held: packet.hold(), datagram, until: now.millis + MAX_WAIT_MS });
        self.count += 1;
        Ok(())
    }

    /// Repeats those whose first fragment has come, and drops those that have waited too long.
    pub(crate) fn release_due(&mut self, socket: &mut QueueSocket, decider: &Decider, now: Now) {
        if self.count == 0 {
            return;
        }
        self.release(socket, decider, |fragment| match decider.knows(&fragment.datagram, now) {
            true => Some(Release::Repeat),
            false if now.millis >= fragment.until => Some(Release::Drop),
            false => None,
        });
    }

    /// Repeats all: the next worker is to have them.
    pub(crate) fn release_all(&mut self, socket: &mut QueueSocket, decider: &Decider) {
        self.release(socket, decider, |_| Some(Release::Repeat));
    }

    fn release(
        &mut self,
        socket: &mut QueueSocket,
        decider: &Decider,
        how: impl Fn(&PendingFragment) -> Option<Release>,
    ) {
        for slot in &mut self.waiting {
            let Some(release) = slot.as_ref().and_then(&how) else { continue };
            let Some(fragment) = slot.take() else { continue };
            self.count -= 1;
            socket.release(fragment.held, release);
            let outcome = match release {
                Release::Repeat => Outcome::RepeatedFragment,
                Release::Drop => Outcome::DroppedFragment,
            };
            decider.counters().add(outcome.index(), 1);
            decider.counters().add(RECEIVED, 1);
        }
    }
}
