//! Attempts in a live system: a working worker, in its sandbox, is told to make one.

use nix::errno::Errno;
use nix::sys::mman::MapFlags;

use crate::attempt::{Attempt, Context, Victims, allowed, forbidden};
use crate::error::SandboxError;
use crate::policy::Bindings;
use crate::selftest::new_page;

/// What attempts need and cannot ask for inside the sandbox.
#[derive(Debug)]
pub struct LiveAttempts {
    bindings: Bindings,
    own: u64,
    page: u64,
    attempts: Vec<Attempt>,
}

impl LiveAttempts {
    /// Collects a page, the process's own id and the list of attempts. Call it before `seal`.
    ///
    /// # Errors
    /// Without memory.
    pub fn prepare(bindings: Bindings) -> Result<LiveAttempts, SandboxError> {
        let refused = |source| SandboxError::Refused { act: "map", object: "a page".to_owned(), source };
        let page = new_page(MapFlags::MAP_PRIVATE).ok_or(Errno::ENOMEM).map_err(refused)?;
        // An attempt that needs preparation outside the sandbox can no longer be made.
        let all = [forbidden(), allowed()].concat();
        let attempts = all.into_iter().filter(|attempt| !attempt.needs_preparation()).collect();
        Ok(LiveAttempts { bindings, own: u64::from(std::process::id()), page: page.as_ptr() as u64, attempts })
    }

    /// Makes the attempt with this name. Returns the kernel's answer; `None` if there is no such attempt.
    pub fn run(&self, name: &[u8], victims: Victims) -> Option<i64> {
        let attempt = self.attempts.iter().find(|attempt| attempt.name.as_bytes() == name)?;
        let context = Context { bindings: self.bindings.clone(), victims, own: self.own, page: self.page };
        Some((attempt.run)(&context))
    }
}
