//! Signals as flags, and a descriptor that becomes readable when a flag is set. What they ask for: HUP a reload, USR1 a report,
//! USR2 an upgrade, TERM, INT and QUIT the end; CHLD says that a child has died.

use crate::Error;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What signals have asked for since the last look.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    end: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    upgrade: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over TERM, INT and QUIT (end), HUP (reload), USR1 (report), USR2 (upgrade) and CHLD (wakes only).
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn new() -> Result<Self, Error> {
        let fail = |source| Error::Start { act: "take over signals", source };
        let (wake, sleeper) = UnixStream::pair().map_err(fail)?;
        wake.set_nonblocking(true).map_err(fail)?;
        let this =
            Self { wake, end: Arc::default(), reload: Arc::default(), upgrade: Arc::default(), report: Arc::default() };
        // Flags are registered first, so that they are set before the descriptor wakes the loop.
        for (signal, flag) in [
            (SIGTERM, &this.end),
            (SIGINT, &this.end),
            (SIGQUIT, &this.end),
            (SIGHUP, &this.reload),
            (SIGUSR1, &this.report),
            (SIGUSR2, &this.upgrade),
        ] {
            flag::register(signal, Arc::clone(flag)).map_err(fail)?;
        }
        for signal in [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD] {
            low_level::pipe::register(signal, sleeper.try_clone().map_err(fail)?).map_err(fail)?;
        }
        Ok(this)
    }

    /// Empties the descriptor.
    pub fn clear_wakeup(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(n) if n > 0) {}
    }

    /// Whether TERM, INT or QUIT has arrived since the last call.
    pub fn take_end(&self) -> bool {
        self.end.swap(false, Ordering::Relaxed)
    }

    /// Whether HUP has arrived since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// Whether USR2 has arrived since the last call.
    pub fn take_upgrade(&self) -> bool {
        self.upgrade.swap(false, Ordering::Relaxed)
    }

    /// Whether USR1 has arrived since the last call.
    pub fn take_report(&self) -> bool {
        self.report.swap(false, Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
