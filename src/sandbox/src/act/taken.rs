//! The acts at a live system: a worker of a build for tests, behind its fence and at work, is told to try one.
//!
//! Only with the feature `taken`, which no binary of ours turns on.

use nix::errno::Errno;
use nix::sys::mman::MapFlags;

use super::{Act, Scene, Target, allowed, forbidden};
use crate::error::SandboxError;
use crate::policy::Bindings;
use crate::selftest::new_page;

/// What an act needs and cannot ask for behind the fence.
#[derive(Debug)]
pub struct Hands {
    bindings: Bindings,
    own: u64,
    page: u64,
    acts: Vec<Act>,
}

impl Hands {
    /// Before the fence: a page, the own process id, and the list.
    ///
    /// # Errors
    /// Without memory.
    pub fn free(bindings: Bindings) -> Result<Hands, SandboxError> {
        let refused = |source| SandboxError::Refused { act: "map", object: "a page".to_owned(), source };
        let page = new_page(MapFlags::MAP_PRIVATE).ok_or(Errno::ENOMEM).map_err(refused)?;
        // What must be prepared before the fence cannot be tried any more.
        let acts = [forbidden(), allowed()].concat().into_iter().filter(|act| !act.needs_preparation()).collect();
        Ok(Hands { bindings, own: u64::from(std::process::id()), page: page.as_ptr() as u64, acts })
    }

    /// Tries the act of this name. The kernel's answer, where there is one; `None` if there is no such act.
    pub fn attempt(&self, name: &[u8], target: Target) -> Option<i64> {
        let act = self.acts.iter().find(|act| act.name.as_bytes() == name)?;
        let scene = Scene { bindings: self.bindings.clone(), target, own: self.own, page: self.page };
        Some((act.run)(&scene))
    }
}
