//! What a hostile worker would try, one act at a time, and what must come of it. [`prober`] has those of a prober.
//!
//! An act is a single raw system call (or a single store) with everything it needs on its stack: an allocation or a
//! second call on the way could die of SIGSYS by itself and make a hole look closed. `tests/fence.rs` shows that none
//! does: with the default action weakened, every act that ought to die lives. Acts that must come to something else than
//! death may be several calls.
//!
//! Acts are aimed at things whose loss can be seen from outside: the rule set, conntrack, queue number [`QUEUE`], the
//! link `lo`. So run them in a network namespace of their own (`selftest::private_room`).

mod allowed;
mod memory;
mod message;
pub mod prober;
mod process;
mod queue;
#[cfg(feature = "taken")]
pub mod taken;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ffi::c_long;
use std::fmt;
use std::ops::Range;

use crate::kernel;
use crate::policy::{Bindings, Fd};

/// The queue number that acts aim at: bind it on the queue descriptor of the room, and see that it is still bound.
pub const QUEUE: u16 = 5;

/// What must come of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Killed by the filter.
    Sigsys,
    /// Killed by the page protection.
    Segv,
    /// Killed by either: which one depends on how the kernel was built.
    Death,
    /// Refused by the kernel with this errno; the process lives.
    Errno(i32),
    /// Lives, whatever the kernel answered.
    Survives,
    /// Lives, and the kernel did as asked.
    Succeeds,
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expect::Sigsys => f.pad("SIGSYS"),
            Expect::Segv => f.pad("SIGSEGV"),
            Expect::Death => f.pad("SIGSYS or SIGSEGV"),
            Expect::Errno(number) => f.pad(&format!("errno {number}")),
            Expect::Survives => f.pad("lives"),
            Expect::Succeeds => f.pad("succeeds"),
        }
    }
}

/// What the runner knows and an act may use; asking the kernel for it would be a second system call.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The numbers behind the policy's symbols.
    pub(crate) bindings: Bindings,
    /// What the acts are aimed at.
    pub(crate) target: Target,
    /// The process that acts.
    pub(crate) own: u64,
    /// A private page, readable and writable, mapped before the fence.
    pub(crate) page: u64,
}

/// Things that are not the worker's own, whose loss can be seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// A process: where the suite runs in a room of its own, the one that runs it, in the supervisor's part.
    pub process: u32,
    /// The signal for it. 0 only asks whether it may be signalled.
    pub signal: i32,
    /// The number of the worker's own queue.
    pub queue: u16,
    /// A queue that is not the worker's: somebody else's, or nobody's yet.
    pub foreign: u16,
    /// The name of a link that is up, with zeros behind it, as struct ifreq has it.
    pub link: [u8; 16],
}

impl Target {
    /// What there is in a room of the suite's own, whose supervisor's part is played by this process.
    pub(crate) fn in_room(process: u32) -> Target {
        let mut link = [0; 16];
        link[..2].copy_from_slice(b"lo");
        Target { process, signal: 0, queue: QUEUE, foreign: QUEUE + 72, link }
    }
}

impl Scene {
    /// The process aimed at, for a register.
    fn process(&self) -> u64 {
        u64::from(self.target.process)
    }

    /// The signal for it.
    fn signal(&self) -> u64 {
        u64::from(self.target.signal.unsigned_abs())
    }

    /// A descriptor for a register, the first where the name stands for several. One that the role has not is -1.
    fn fd(&self, fd: Fd) -> u64 {
        self.bindings.numbers(fd).map_or(u64::from(u32::MAX), |numbers| u64::from(numbers.start.unsigned_abs()))
    }

    /// The table of templates; nothing, at 0, for who has none.
    fn templates(&self) -> Range<u64> {
        self.bindings.templates().unwrap_or_default()
    }
}

/// One thing to try. Performed by [`run_act`](crate::selftest::run_act), nowhere else.
#[derive(Clone, Copy)]
pub struct Act {
    /// What is tried.
    pub name: &'static str,
    /// What must come of it.
    pub expect: Expect,
    /// Runs before the fence, for acts that need a signal to be on its way.
    pub(crate) prepare: Option<fn()>,
    /// The act; the answer of the kernel.
    pub(crate) run: fn(&Scene) -> i64,
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.name, self.expect)
    }
}

impl Act {
    /// Whether something must be done before the fence closes for it to be tried.
    pub fn needs_preparation(&self) -> bool {
        self.prepare.is_some()
    }

    const fn deadly(name: &'static str, run: fn(&Scene) -> i64) -> Act {
        Act { name, expect: Expect::Sigsys, prepare: None, run }
    }

    const fn succeeds(name: &'static str, run: fn(&Scene) -> i64) -> Act {
        Act { name, expect: Expect::Succeeds, prepare: None, run }
    }

    const fn refused(name: &'static str, errno: i32, run: fn(&Scene) -> i64) -> Act {
        Act { name, expect: Expect::Errno(errno), prepare: None, run }
    }

    const fn lives(name: &'static str, run: fn(&Scene) -> i64) -> Act {
        Act { name, expect: Expect::Survives, prepare: None, run }
    }
}

/// Everything a worker must not be able to do.
pub fn forbidden() -> Vec<Act> {
    [
        process::ACTS,
        memory::ACTS,
        memory::TEMPLATES,
        memory::SHARED,
        queue::ACTS,
        #[cfg(target_arch = "x86_64")]
        x86::ACTS,
    ]
    .concat()
}

/// Each rule of the worker's policy once; all must live.
pub fn allowed() -> Vec<Act> {
    [allowed::ACTS, allowed::EVERYONE].concat()
}

/// Receives into the read-only templates: EFAULT, and the worker lives. Not in the lists, because a message must be
/// waiting on the queue descriptor for the kernel to get as far as writing.
pub fn receive_into_templates() -> Act {
    allowed::RECEIVE_INTO_TEMPLATES
}

/// The three attempts for every start: quick, and each at another layer of the policy.
pub fn short() -> Vec<Act> {
    [process::OPENAT, queue::NFT_BY_SENDTO, queue::OWN_MSGHDR].to_vec()
}

/// A raw system call, made by an act.
fn door(number: c_long, args: &[u64]) -> i64 {
    // SAFETY: acts run in a sacrificed child only (`run` is private to this crate, and only `run_act` uses it), or in a
    // worker of a build for tests that was taken over. Whatever the call does to this address space ends with it;
    // pointers are to live stack or static memory, or wrong on purpose.
    unsafe { kernel::syscall(number, args) }
}

/// The address of something for a register.
fn at<T: ?Sized>(thing: &T) -> u64 {
    std::ptr::from_ref(thing).cast::<u8>() as u64
}
