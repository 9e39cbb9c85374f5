//! Pieces of datagrams that have come before the first piece, which alone tells where they go. They wait in the kernel:
//! here is only what they are called. When the first has come they go through the rules again and find it known.

use crate::decide::{Datagram, Decider, Now};
use loaded_ipc::{Outcome, RECEIVED};
use loaded_queue::{Held, Packet, Port, Release};

/// Most pieces that wait for one worker, and for how many milliseconds.
const MOST: usize = 64;
const PATIENCE: u64 = 1000;

/// What waits. A piece counts as received when it waits no more.
#[derive(Debug)]
pub(crate) struct Early {
    waiting: [Option<Piece>; MOST],
    count: usize,
}

#[derive(Debug)]
struct Piece {
    held: Held,
    datagram: Datagram,
    /// Milliseconds.
    until: u64,
}

impl Early {
    pub(crate) fn new() -> Self {
        Self { waiting: [const { None }; MOST], count: 0 }
    }

    /// Lets a packet wait; gives it back if there is no room.
    pub(crate) fn hold<'p>(&mut self, packet: Packet<'p>, datagram: Datagram, now: Now) -> Result<(), Packet<'p>> {
        let Some(place) = self.waiting.iter_mut().find(|place| place.is_none()) else { return Err(packet) };
        *place = Some(Piece { held: packet.hold(), datagram, until: now.millis + PATIENCE });
        self.count += 1;
        Ok(())
    }

    /// Ends the waiting of those whose first piece has come, and of those whose time is over.
    pub(crate) fn look(&mut self, port: &mut Port, decider: &Decider, now: Now) {
        if self.count == 0 {
            return;
        }
        self.release(port, decider, |piece| match decider.knows(&piece.datagram, now) {
            true => Some(Release::Repeat),
            false if now.millis >= piece.until => Some(Release::Drop),
            false => None,
        });
    }

    /// Ends all waiting: another worker is to have them.
    pub(crate) fn leave(&mut self, port: &mut Port, decider: &Decider) {
        self.release(port, decider, |_| Some(Release::Repeat));
    }

    fn release(&mut self, port: &mut Port, decider: &Decider, how: impl Fn(&Piece) -> Option<Release>) {
        for place in &mut self.waiting {
            let Some(release) = place.as_ref().and_then(&how) else { continue };
            let Some(piece) = place.take() else { continue };
            self.count -= 1;
            port.release(piece.held, release);
            let outcome = match release {
                Release::Repeat => Outcome::RepeatedFragment,
                Release::Drop => Outcome::DroppedFragment,
            };
            decider.counters().add(outcome.index(), 1);
            decider.counters().add(RECEIVED, 1);
        }
    }
}
