//! The journal: what a supervisor knows and its workers do not, kept where it outlives the supervisor. If the supervisor is
//! killed, or gives way to a new binary, the next one goes on from there: with the same numbers for backends and VIPs, the
//! same steering, the same health of backends, the same history.
//!
//! It is a memfd. Every worker has it in its custody, open for reading only, and its sandbox allows no system call on that
//! descriptor: a worker can neither read nor change the journal, only keep it alive. (The alternatives: a keeper process is
//! one more process that can be killed; a file is stopped by a full disk and stale after a reboot; not everybody has the
//! descriptor store of a service manager.) A living supervisor holds a lock on it, so that nobody takes over its workers.
//!
//! Two slots are written alternately; the header, written last and in one piece, says which is valid. SIGKILL takes effect
//! between two calls, or within a long write between two pages (generic_perform_write, mm/filemap.c): never within a header.

use super::snapshot::{FORMAT, Snapshot};
use crate::Error;
use loaded_table::shm;
use nix::sys::stat::{Mode, fchmod};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// "loadedJN", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"loadedJN");
/// Bytes for one snapshot: 4096 backends with a full history take about 2 MB. Pages that are never written cost nothing.
const SLOT: usize = 16 << 20;
const HEADER: usize = 4096;

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The journal of this supervisor.
#[derive(Debug)]
pub struct Journal {
    memory: File,
    custody: OwnedFd,
    /// The second slot is the valid one.
    second: bool,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnreadableJournal {
    /// It is some other memory.
    #[error("it is not a journal")]
    Foreign,
    /// Its supervisor has written nothing yet, or was killed before it did.
    #[error("nothing has been written to it yet")]
    Empty,
    /// Of another release.
    #[error("it has format {0}, and this binary knows {FORMAT}")]
    Format(u32),
    /// The kernel's error.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its text is not that of a snapshot.
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

impl Journal {
    /// Makes an empty one and locks it. Needs rights that the supervisor gives up later.
    ///
    /// # Errors
    /// If there is no memory, or it cannot be locked.
    pub fn create() -> Result<Self, Error> {
        let fail = |act| move |source| Error::Start { act, source };
        let memory = File::from(shm::create("loaded-journal", HEADER + 2 * SLOT)?);
        // So that nobody else can open it by its name in /proc.
        fchmod(&memory, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| fail("keep the journal to ourselves")(e.into()))?;
        let custody = reopen(memory.as_fd(), OpenOptions::new().read(true)).map_err(fail("open the journal again"))?;
        memory.try_lock().map_err(|error| fail("lock the journal")(error.into()))?;
        Ok(Self { memory, custody: custody.into(), second: false })
    }

    /// The descriptor for a worker's custody, for reading only.
    pub fn custody(&self) -> BorrowedFd<'_> {
        self.custody.as_fd()
    }

    /// Writes a snapshot. The previous one stays valid until this one is complete.
    ///
    /// # Errors
    /// If it is longer than a slot, or cannot be written.
    pub fn write(&mut self, snapshot: &Snapshot<'_>) -> io::Result<()> {
        let text = serde_json::to_vec(snapshot)?;
        if text.len() > SLOT {
            return Err(io::Error::other(format!("{} bytes are more than its {SLOT}", text.len())));
        }
        let slot = u64::from(!self.second);
        self.memory.write_all_at(&text, start(slot))?;
        let mut header = [0; 24];
        for (place, word) in header.chunks_exact_mut(8).zip([MAGIC, slot, text.len() as u64]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.memory.write_all_at(&header, 0)?;
        self.second = !self.second;
        Ok(())
    }
}

/// The last snapshot of a journal.
pub(crate) fn read(custody: BorrowedFd<'_>) -> Result<Snapshot<'static>, UnreadableJournal> {
    /// The one field that every format has.
    #[derive(Deserialize)]
    struct Outline {
        format: u32,
    }
    let memory = File::from(custody.try_clone_to_owned()?);
    let mut header = [0; 24];
    memory.read_exact_at(&mut header, 0).map_err(|_| UnreadableJournal::Foreign)?;
    let mut words = [0; 3];
    for (word, place) in words.iter_mut().zip(header.chunks_exact(8)) {
        *word = u64::from_le_bytes(place.try_into().unwrap_or_default());
    }
    let [magic, slot, length] = words;
    match magic {
        MAGIC => {}
        0 => return Err(UnreadableJournal::Empty),
        _ => return Err(UnreadableJournal::Foreign),
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= SLOT).ok_or(UnreadableJournal::Foreign)?;
    let mut text = vec![0; length];
    memory.read_exact_at(&mut text, start(slot & 1))?;
    let Outline { format } = serde_json::from_slice(&text)?;
    if format != FORMAT {
        return Err(UnreadableJournal::Format(format));
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Whether this is a journal, whatever its format.
pub(crate) fn is_one(custody: BorrowedFd<'_>) -> bool {
    let mut magic = [0; 8];
    let read = custody.try_clone_to_owned().and_then(|fd| File::from(fd).read_exact_at(&mut magic, 0));
    read.is_ok() && u64::from_le_bytes(magic) == MAGIC
}

/// Takes the lock of a journal, which succeeds only once its supervisor is dead. Held as long as the file is open.
pub(crate) fn lock(custody: BorrowedFd<'_>) -> io::Result<File> {
    let file = reopen(custody, OpenOptions::new().read(true).write(true))?;
    file.try_lock()?;
    Ok(file)
}

/// The same, tried for 50 ms: another process may hold the lock just to look, and a killed one may lose its lock a moment after its
/// links (its descriptors are closed one after the other, in no promised order).
pub(crate) fn lock_soon(custody: BorrowedFd<'_>) -> io::Result<File> {
    let mut tries = 0;
    loop {
        match lock(custody) {
            Err(_) if tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            result => return result,
        }
    }
}

/// Opens the same memory again: an open file with its own access mode and its own locks (flock(2)).
fn reopen(memory: BorrowedFd<'_>, how: &OpenOptions) -> io::Result<File> {
    how.open(format!("/proc/self/fd/{}", memory.as_raw_fd()))
}

fn start(slot: u64) -> u64 {
    HEADER as u64 + slot * SLOT as u64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::fixture::plan;
    use loaded_control::History;
    use loaded_netfilter::{HashKeys, Steering};
    use loaded_roster::Roster;
    use std::borrow::Cow;
    use std::path::Path;

    fn write(journal: &mut Journal, pid: u32) {
        let (plan, roster) = (plan(), Roster::empty());
        let snapshot = Snapshot {
            format: FORMAT,
            tables: 1,
            keys: Cow::Borrowed(&[]),
            counters: "".into(),
            version: "0.1.0".into(),
            pid,
            at: 0,
            adoptable: true,
            sandbox: "".into(),
            control: Path::new("/run/loaded/control-1.sock").into(),
            queues: vec![(0, 7), (3, 10)].into(),
            workers: vec![(7, 99)].into(),
            steering: Steering::new(&plan, HashKeys::new([1, 2, 3, 4, 5, u32::MAX])),
            plan: Cow::Borrowed(&plan),
            roster: Cow::Borrowed(&roster),
            history: Cow::Owned(History::new()),
            kernel_path: None,
            maps: [].as_slice().into(),
            metrics: None,
            clsacts: [].as_slice().into(),
            amendments: [].as_slice().into(),
            settings: [].as_slice().into(),
        };
        journal.write(&snapshot).unwrap();
    }

    #[test]
    fn what_was_written_last_is_read() {
        let mut journal = Journal::create().unwrap();
        assert!(matches!(read(journal.custody()), Err(UnreadableJournal::Empty)));
        for pid in [11, 12, 13] {
            write(&mut journal, pid);
            let snapshot = read(journal.custody()).unwrap();
            assert_eq!((snapshot.pid, snapshot.queues.as_ref()), (pid, [(0, 7), (3, 10)].as_slice()));
            assert_eq!((snapshot.plan.as_ref(), snapshot.roster.generation()), (&plan(), 0));
        }
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_one_before() {
        let mut journal = Journal::create().unwrap();
        write(&mut journal, 11);
        // The next one would have gone into the other slot, and its header is missing.
        journal.memory.write_all_at(b"{\"format\":1,\"ta", start(u64::from(!journal.second))).unwrap();
        assert_eq!(read(journal.custody()).unwrap().pid, 11);
    }

    #[test]
    fn custody_is_for_reading_and_for_the_lock_of_the_living() {
        let mut journal = Journal::create().unwrap();
        write(&mut journal, 11);
        let custody = File::from(journal.custody().try_clone_to_owned().unwrap());
        assert!(custody.write_all_at(b"x", 0).is_err(), "custody does not allow writing");
        assert!(lock(custody.as_fd()).is_err(), "its supervisor is alive");
        drop(journal);
        // Soon: a program that another test is starting has a copy of every descriptor, and so of the lock, until its exec.
        let locked = lock_soon(custody.as_fd()).unwrap();
        assert!(lock(custody.as_fd()).is_err(), "somebody else has locked it");
        drop(locked);
        lock_soon(custody.as_fd()).unwrap();
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let other = shm::create("other", 8192).unwrap();
        File::from(other.try_clone().unwrap()).write_all_at(b"loadedTB", 0).unwrap();
        assert!(matches!(read(other.as_fd()), Err(UnreadableJournal::Foreign)));
        let mut journal = Journal::create().unwrap();
        write(&mut journal, 11);
        journal.memory.write_all_at(b"{\"format\":77}", start(1)).unwrap();
        let length = [MAGIC, 1, 13].map(u64::to_le_bytes).concat();
        journal.memory.write_all_at(&length, 0).unwrap();
        assert!(matches!(read(journal.custody()), Err(UnreadableJournal::Format(77))));
    }
}
