//! What an attempt is: what it does, what it may use, and what must come of it.

use std::ffi::c_long;
use std::fmt;
use std::ops::Range;

use crate::kernel;
use crate::policy::{Bindings, Fd};

/// The queue number that attempts target. The testbed binds it and checks afterwards that it is still bound.
pub const QUEUE: u16 = 5;

/// The exit code of a child that is alive after its attempt.
pub(crate) const ALIVE: i32 = 42;

/// The required outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Killed by the filter.
    Sigsys,
    /// Killed by page protection.
    Segv,
    /// Killed by either, depending on how the kernel was built.
    Death,
    /// The process lives and the kernel refuses with this errno.
    Errno(i32),
    /// The process lives, whatever the kernel answers.
    Survives,
    /// The process lives and the kernel does as asked.
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

/// What an attempt may use. The runner collects it beforehand; asking the kernel would be a second system call.
#[derive(Debug, Clone)]
pub struct Context {
    /// The numbers behind the policy's symbols.
    pub(crate) bindings: Bindings,
    /// The targets of the attempts.
    pub(crate) victims: Victims,
    /// The process id of the child that makes the attempt.
    pub(crate) own: u64,
    /// The address of a private page, readable and writable, mapped before the sandbox is entered.
    pub(crate) page: u64,
}

/// Things that do not belong to the worker and whose loss is visible from outside.
#[derive(Debug, Clone, Copy)]
pub struct Victims {
    /// A process. On the suite's own testbed the one that runs it, standing in for the supervisor.
    pub process: u32,
    /// The signal for that process; 0 only asks whether it may be signalled.
    pub signal: i32,
    /// The number of the worker's own queue.
    pub queue: u16,
    /// The number of a queue that is not the worker's: another's, or unbound.
    pub foreign: u16,
    /// The name of a link that is up, zero-padded as in struct ifreq.
    pub link: [u8; 16],
}

impl Victims {
    /// Those of the suite's own testbed, where `process` stands in for the supervisor.
    pub(crate) fn on_testbed(process: u32) -> Victims {
        let mut link = [0; 16];
        link[..2].copy_from_slice(b"lo");
        Victims { process, signal: 0, queue: QUEUE, foreign: QUEUE + 72, link }
    }
}

impl Context {
    /// The process to attack, as a register.
    pub(super) fn process(&self) -> u64 {
        u64::from(self.victims.process)
    }

    /// The signal for it, as a register.
    pub(super) fn signal(&self) -> u64 {
        u64::from(self.victims.signal.unsigned_abs())
    }

    /// A descriptor as a register: the first if the name stands for several, -1 if the role has none.
    pub(super) fn fd(&self, fd: Fd) -> u64 {
        self.bindings.numbers(fd).map_or(u64::from(u32::MAX), |numbers| u64::from(numbers.start.unsigned_abs()))
    }

    /// The addresses of the verdict templates; 0..0 for a role without any.
    pub(super) fn templates(&self) -> Range<u64> {
        self.bindings.templates().unwrap_or_default()
    }
}

/// One thing to try. Run only by [`run_attempt`](crate::selftest::run_attempt).
#[derive(Clone, Copy)]
pub struct Attempt {
    /// What is tried.
    pub name: &'static str,
    /// The required outcome.
    pub expect: Expect,
    /// Runs before the sandbox is entered, for attempts that need a signal under way.
    pub(crate) prepare: Option<fn()>,
    /// Makes the attempt and returns the kernel's answer.
    pub(crate) run: fn(&Context) -> i64,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} => {}", self.name, self.expect)
    }
}

impl Attempt {
    /// Whether it must be prepared before the sandbox is entered.
    pub fn needs_preparation(&self) -> bool {
        self.prepare.is_some()
    }

    pub(super) const fn deadly(name: &'static str, run: fn(&Context) -> i64) -> Attempt {
        Attempt { name, expect: Expect::Sigsys, prepare: None, run }
    }

    pub(super) const fn succeeds(name: &'static str, run: fn(&Context) -> i64) -> Attempt {
        Attempt { name, expect: Expect::Succeeds, prepare: None, run }
    }

    pub(super) const fn refused(name: &'static str, errno: i32, run: fn(&Context) -> i64) -> Attempt {
        Attempt { name, expect: Expect::Errno(errno), prepare: None, run }
    }

    pub(super) const fn lives(name: &'static str, run: fn(&Context) -> i64) -> Attempt {
        Attempt { name, expect: Expect::Survives, prepare: None, run }
    }
}

/// Makes a raw system call for an attempt.
pub(super) fn door(number: c_long, args: &[u64]) -> i64 {
    // SAFETY: attempts run only in a sacrificed child (`run` is private to this crate, and only `run_attempt` uses it)
    // or in a compromised worker of a test build. Whatever the call does to this address space ends with the process;
    // pointers are to live stack or static memory, or wrong on purpose.
    unsafe { kernel::syscall(number, args) }
}

/// An address as a register.
pub(super) fn at<T: ?Sized>(thing: &T) -> u64 {
    std::ptr::from_ref(thing).cast::<u8>() as u64
}
