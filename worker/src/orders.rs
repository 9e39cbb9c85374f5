//! The supervisor's orders: when a worker's turn comes, what it is told while it serves, and how it goes on when its
//! supervisor dies.

use crate::clock::now;
use crate::decide::Decider;
use crate::error::Error;
use crate::time::Now;
use loaded_ipc::{FromWorker, LinkError, SupervisorLink, TURN, TableKey, TableKeys, ToWorker, Turn};
use loaded_sandbox::Survival;
use loaded_table::{Counters, TableSpec};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::sync::atomic::{Ordering, fence};

/// Maximum number of messages of the supervisor read in one poll.
const ORDERS: usize = 32;
/// Milliseconds a successor waits, after the supervisor's death, for its predecessor to give up its turn. The predecessor
/// polls its link at least every 50 ms.
const TURN_WITHIN_MS: u64 = 1000;

/// Who gives orders to a worker that serves.
pub(crate) struct Orders<'l> {
    /// `None`: the supervisor is dead and nobody gives orders any more.
    pub(crate) link: Option<&'l SupervisorLink>,
    pub(crate) survival: Survival,
    pub(crate) tables: TableSpecs,
}

/// What the two tables are, by the supervisor's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableSpecs {
    pub(crate) flows: TableSpec,
    pub(crate) clients: TableSpec,
}

impl TableSpecs {
    pub(crate) fn new(flows: u32, clients: u32, keys: TableKeys) -> Self {
        let spec = |capacity: u32, TableKey(key)| TableSpec::new(capacity as usize, key);
        Self { flows: spec(flows, keys.flows), clients: spec(clients, keys.clients) }
    }
}

impl Orders<'_> {
    /// Carries out the supervisor's orders. `false`: this worker is to end.
    pub(crate) fn obey(&mut self, decider: &mut Decider, now: Now) -> Result<bool, Error> {
        let Some(link) = self.link else { return Ok(true) };
        for _ in 0..ORDERS {
            match link.receive() {
                Err(LinkError::Empty) => break,
                // A supervisor that wants its worker to end says so. One whose link closes was killed: its last orders hold.
                Err(LinkError::Closed) => return Ok(self.outlives_supervisor(decider.counters())),
                Ok(ToWorker::Stop) => return Ok(false),
                Err(error) => return Err(error.into()),
                Ok(ToWorker::Admin { backend, admin }) if decider.set_admin(backend, admin, now).is_ok() => {}
                Ok(ToWorker::Explain { id, question }) => {
                    let explained = decider.explain(&question, now);
                    match link.send(&FromWorker::Explained { id, explained }) {
                        // If the supervisor does not read, it gets no answer: packets come first.
                        Ok(()) | Err(LinkError::Full) => {}
                        Err(LinkError::Closed) => return Ok(self.outlives_supervisor(decider.counters())),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(ToWorker::End { id, flows }) if flows.is_sane() => decider.begin_to_end(id, flows),
                Ok(message) => return Err(out_of_step(&message, "while serving")),
            }
        }
        Ok(true)
    }

    /// Ends flows in the next `buckets` buckets, if that was ordered, and says how many once it is done. `false`: this worker is to end.
    #[cold]
    pub(crate) fn end_flows(&mut self, decider: &mut Decider, buckets: u32, now: Now) -> Result<bool, Error> {
        let Some((id, ended)) = decider.end_some(buckets, now) else { return Ok(true) };
        let said = self.link.map_or(Ok(()), |link| link.send(&FromWorker::Ended { id, ended }));
        // A supervisor that does not read now is told in the next round: it gives no other order before.
        if !matches!(said, Err(LinkError::Full)) {
            decider.end_is_said();
        }
        match said {
            Ok(()) | Err(LinkError::Full) => Ok(true),
            Err(LinkError::Closed) => Ok(self.outlives_supervisor(decider.counters())),
            Err(error) => Err(error.into()),
        }
    }

    /// The supervisor is gone. Returns whether to go on without it.
    pub(crate) fn outlives_supervisor(&mut self, counters: &Counters) -> bool {
        self.link = None;
        let goes_on = self.survival == Survival::Outlives;
        if goes_on {
            set_turn(counters, Turn::Kept);
        }
        goes_on
    }
}

/// Waits, on the link that still blocks, until the queue and the tables are this worker's; `None` if they never will be.
/// From then on the link is non-blocking. The sandbox allows this one flag to be set, so that no worker has to poll before
/// its turn.
pub(crate) fn wait_for_turn<'l>(
    link: &'l SupervisorLink,
    survival: Survival,
    mut tables: TableSpecs,
    counters: &Counters,
) -> Result<Option<Orders<'l>>, Error> {
    loop {
        let link = match link.receive() {
            Ok(ToWorker::Go) => {
                fcntl(link, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(Error::Unblock)?;
                set_turn(counters, Turn::Begun);
                Some(link)
            }
            Ok(ToWorker::Tables { flows, clients, keys }) => {
                tables = TableSpecs::new(flows, clients, keys);
                continue;
            }
            Err(LinkError::Closed) if survival == Survival::Outlives && is_our_turn(counters) => None,
            Ok(ToWorker::Stop) | Err(LinkError::Closed) => return Ok(None),
            Ok(other) => return Err(out_of_step(&other, "instead of Go")),
            Err(error) => return Err(error.into()),
        };
        return Ok(Some(Orders { link, survival, tables }));
    }
}

/// The supervisor was killed before it said "go". Returns whether it had already told the predecessor to end: then the
/// predecessor says so in the counters. The sandbox has no call to wait with, so this spins, for no longer than
/// [`TURN_WITHIN_MS`].
fn is_our_turn(counters: &Counters) -> bool {
    let since = now().millis;
    while now().millis.saturating_sub(since) < TURN_WITHIN_MS {
        match counters.get(TURN).map(Turn::from_word) {
            // If several wait, one of them gets it.
            Some(Turn::Over) => return counters.exchange(TURN, Turn::Over as u64, Turn::Kept as u64),
            Some(Turn::Begun) => std::hint::spin_loop(),
            Some(Turn::Kept) | None => break,
        }
    }
    false
}

pub(crate) fn set_turn(counters: &Counters, turn: Turn) {
    // Whoever sees this word also sees all that was written into the tables before.
    fence(Ordering::Release);
    counters.set(TURN, turn as u64);
}

pub(crate) fn out_of_step(message: &ToWorker, when: &str) -> Error {
    Error::Link(LinkError::Malformed(format!("{message:?} {when}")))
}

#[cfg(test)]
mod tests;
