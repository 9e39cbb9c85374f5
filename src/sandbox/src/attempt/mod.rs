//! What a hostile worker would try, one attempt at a time, and the required outcome. [`prober`] has the prober's,
//! [`exporter`] the exporter's.
//!
//! A forbidden attempt is a single raw system call (or a single store) with all its data on the stack: an allocation or
//! a second call on the way could itself die of SIGSYS and make a hole look closed. `src/sandbox/tests/worker.rs` shows
//! that none does: with the default action weakened, every attempt that ought to die lives. Attempts with another
//! expectation may take several calls.
//!
//! Attempts target things whose loss is visible from outside: the rule set, conntrack, queue number [`QUEUE`], the link
//! `lo`. So run them in their own network namespace (`selftest::enter_private_namespaces`).

mod allowed;
mod bpf;
pub mod exporter;
mod kind;
mod memory;
mod message;
pub mod prober;
mod process;
mod queue;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use kind::ALIVE;
pub use kind::{Attempt, Context, Expect, QUEUE, Victims};

/// Everything a worker must not be able to do.
pub fn forbidden() -> Vec<Attempt> {
    [
        process::ATTEMPTS,
        memory::ATTEMPTS,
        memory::TEMPLATES,
        memory::SHARED,
        queue::ATTEMPTS,
        bpf::COMMANDS,
        bpf::MAPS,
        #[cfg(target_arch = "x86_64")]
        x86::ATTEMPTS,
    ]
    .concat()
}

/// Uses each rule of the worker's policy once; all must survive.
pub fn allowed() -> Vec<Attempt> {
    [allowed::ATTEMPTS, allowed::EVERYONE].concat()
}

/// Receives into the read-only templates: EFAULT, and the worker lives. Not in the lists, because the kernel gets as
/// far as writing only if a message is waiting on the queue descriptor.
pub fn receive_into_templates() -> Attempt {
    allowed::RECEIVE_INTO_TEMPLATES
}

/// Three quick attempts, each on another layer of the policy.
pub fn short() -> Vec<Attempt> {
    [process::OPENAT, queue::NFT_BY_SENDTO, queue::OWN_MSGHDR].to_vec()
}
