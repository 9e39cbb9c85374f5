//! The gate that decides how many labs are up at once. Tests that do not measure share the machine; each of those that
//! measure (`machine::measured`) has it to itself, after all that share it.

use super::lab::setting;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Labs at once, unless `E2E_LABS` says otherwise. A thread that waits for its lab costs nothing, so
/// `--test-threads` may be as large as the number of tests.
const LABS: u64 = 4;

/// How many labs are up and waited for.
struct Gate {
    sharing: u64,
    waiting_to_share: u64,
    alone: bool,
}

static GATE: Mutex<Gate> = Mutex::new(Gate { sharing: 0, waiting_to_share: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

/// The permission to have a lab, as long as this value lives.
pub(super) struct Pass {
    alone: bool,
    since: Instant,
}

impl Pass {
    /// Waits until there is room for one more lab.
    pub(super) fn shared() -> Self {
        let labs = setting("E2E_LABS", LABS);
        // A test that fails does so while it holds its pass, never this lock.
        let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        gate.waiting_to_share += 1;
        let mut gate =
            CHANGED.wait_while(gate, |gate| gate.alone || gate.sharing >= labs).unwrap_or_else(PoisonError::into_inner);
        gate.waiting_to_share -= 1;
        gate.sharing += 1;
        Self { alone: false, since: Instant::now() }
    }

    /// Waits until no other lab is up or waited for.
    pub(super) fn alone() -> Self {
        let gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gate = CHANGED
            .wait_while(gate, |gate| gate.alone || gate.sharing + gate.waiting_to_share > 0)
            .unwrap_or_else(PoisonError::into_inner);
        gate.alone = true;
        Self { alone: true, since: Instant::now() }
    }

    /// Appends to the file that `E2E_TIMES` names: seconds, shared or alone, and the test, whose name is its thread's.
    fn note(&self) {
        let Some(path) = std::env::var_os("E2E_TIMES") else { return };
        let (seconds, how) = (self.since.elapsed().as_secs_f64(), if self.alone { "alone" } else { "shared" });
        let thread = std::thread::current();
        let line = format!("{seconds:.1}\t{how}\t{}\n", thread.name().unwrap_or("?"));
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
        if self.alone {
            gate.alone = false;
        } else {
            gate.sharing -= 1;
        }
        CHANGED.notify_all();
    }
}
