//! Whether flows of a backend are kept, a byte that the worker writes and the program reads before each packet; and how long a
//! flow goes on without a visit to its worker.

use crate::error::Error;
use crate::mapping::{Access, Mapping};
use crate::shared::{KEPT, KEPT_AND_HEARD, MAX_BACKENDS};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Most seconds for which a flow goes on unseen. A worker gives up a connection that is silent for a minute
/// (`worker/src/decide/request.rs`, `SILENT`): by then it has seen a living one twice.
const LONGEST: u32 = 30;

/// Most seconds for which a flow with this idle time goes on unseen.
#[must_use]
pub fn unseen(idle: u32) -> u32 {
    LONGEST.min(idle / 4)
}

/// What the program does with flows of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Keep {
    /// Leaves all to the worker.
    No = 0,
    /// Sends them on.
    Yes = 1,
    /// Sends them on and reports each reply: the worker waits for a sign of life.
    Heard = 2,
}

const _: () = assert!(Keep::Yes as usize == KEPT && Keep::Heard as usize == KEPT_AND_HEARD);

/// The bytes of one worker. At first no flow is kept.
#[derive(Debug)]
pub struct Keeping(Mapping);

impl Keeping {
    /// Maps them for writing.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn map(fd: impl AsFd) -> Result<Self, Error> {
        Ok(Self(Mapping::new(fd, "the bytes of backends that keep flows", (0, MAX_BACKENDS), Access::Write)?))
    }

    /// Whether a worker keeps flows of this backend, as the program sees it: for who may not write the bytes.
    ///
    /// # Errors
    /// If the kernel does not map them.
    pub fn are_kept(fd: impl AsFd, backend: u16) -> Result<bool, Error> {
        let bytes = Mapping::new(fd, "the bytes of backends that keep flows", (0, MAX_BACKENDS), Access::Read)?;
        Ok(bytes.bytes().get(usize::from(backend)).is_some_and(|byte| byte.load(Relaxed) != Keep::No as u8))
    }

    /// The same, never unmapped.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self(self.0.for_good())
    }

    /// From the next packet on the program does so. An index that does not exist is ignored.
    pub fn set(&self, backend: u16, keep: Keep) {
        if let Some(byte) = self.0.bytes().get(usize::from(backend)) {
            byte.store(keep as u8, Release);
        }
    }
}
