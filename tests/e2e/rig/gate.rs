//! The gate that decides how many labs are up at once, in four turns. Tests that do not measure share the machine. After
//! them come those that measure times but hardly use the machine (`machine::timed`), a few at once; then those that load it
//! for a part of their time (`machine::paired`), two at once. At the end each that loads it all the time, or measures what it
//! can do (`machine::measured`), has it to itself.

use super::lab::setting;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Labs at once, unless `E2E_LABS` says otherwise. A thread that waits for its lab costs nothing, so
/// `--test-threads` may be as large as the number of tests.
const LABS: u64 = 4;
/// Labs of tests that measure times, at once.
const TIMED: u64 = 4;
/// Labs of tests that load the machine now and then, at once.
const PAIRED: u64 = 2;

/// How a test uses the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Shared,
    Timed,
    Paired,
    Alone,
}

/// How many labs are up and waited for.
struct Gate {
    sharing: u64,
    waiting_to_share: u64,
    timing: u64,
    waiting_to_time: u64,
    pairing: u64,
    waiting_to_pair: u64,
    alone: bool,
}

impl Gate {
    fn is_open(&self, which: Use, labs: u64) -> bool {
        let shared = self.sharing + self.waiting_to_share;
        let timed = self.timing + self.waiting_to_time;
        let paired = self.pairing + self.waiting_to_pair;
        let has_room = match which {
            Use::Shared => self.timing + self.pairing == 0 && self.sharing < labs,
            Use::Timed => shared + self.pairing == 0 && self.timing < TIMED,
            Use::Paired => shared + timed == 0 && self.pairing < PAIRED,
            Use::Alone => shared + timed + paired == 0,
        };
        has_room && !self.alone
    }
}

static GATE: Mutex<Gate> = Mutex::new(Gate {
    sharing: 0,
    waiting_to_share: 0,
    timing: 0,
    waiting_to_time: 0,
    pairing: 0,
    waiting_to_pair: 0,
    alone: false,
});
static CHANGED: Condvar = Condvar::new();

/// The permission to have a lab, as long as this value lives.
pub(super) struct Pass {
    which: Use,
    since: Instant,
}

impl Pass {
    /// Waits until there is room for one more lab.
    pub(super) fn shared() -> Self {
        Self::wait(Use::Shared)
    }

    /// Waits until no test shares the machine or waits for that, and there is room for one more that measures times.
    pub(super) fn timed() -> Self {
        Self::wait(Use::Timed)
    }

    /// Waits until no test of the kinds above has a lab or waits for one, and there is room for one more of these.
    pub(super) fn paired() -> Self {
        Self::wait(Use::Paired)
    }

    /// Waits until no other lab is up or waited for.
    pub(super) fn alone() -> Self {
        Self::wait(Use::Alone)
    }

    fn wait(which: Use) -> Self {
        let labs = setting("E2E_LABS", LABS);
        // A test that fails does so while it holds its pass, never this lock.
        let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        match which {
            Use::Shared => gate.waiting_to_share += 1,
            Use::Timed => gate.waiting_to_time += 1,
            Use::Paired => gate.waiting_to_pair += 1,
            Use::Alone => {}
        }
        let gate = CHANGED.wait_while(gate, |gate| !gate.is_open(which, labs));
        let mut gate = gate.unwrap_or_else(PoisonError::into_inner);
        match which {
            Use::Shared => (gate.waiting_to_share, gate.sharing) = (gate.waiting_to_share - 1, gate.sharing + 1),
            Use::Timed => (gate.waiting_to_time, gate.timing) = (gate.waiting_to_time - 1, gate.timing + 1),
            Use::Paired => (gate.waiting_to_pair, gate.pairing) = (gate.waiting_to_pair - 1, gate.pairing + 1),
            Use::Alone => gate.alone = true,
        }
        Self { which, since: Instant::now() }
    }

    /// Appends to the file that `E2E_TIMES` names: seconds, how it used the machine, and the test, whose name is its thread's.
    fn note(&self) {
        let Some(path) = std::env::var_os("E2E_TIMES") else { return };
        let how = format!("{:?}", self.which).to_lowercase();
        let thread = std::thread::current();
        let line = format!("{:.1}\t{how}\t{}\n", self.since.elapsed().as_secs_f64(), thread.name().unwrap_or("?"));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("E2E_TIMES: {}: {error}", path.display());
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.note();
        let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        match self.which {
            Use::Shared => gate.sharing -= 1,
            Use::Timed => gate.timing -= 1,
            Use::Paired => gate.pairing -= 1,
            Use::Alone => gate.alone = false,
        }
        CHANGED.notify_all();
    }
}
