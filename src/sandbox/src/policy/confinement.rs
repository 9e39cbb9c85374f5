//! What confines a role besides its system calls.

use std::fmt;

use caps::{Capability, CapsHashSet};
use nix::sched::CloneFlags;
use nix::sys::resource::Resource;

/// A capability that stays.
#[derive(Debug)]
pub(crate) struct KeptCapability {
    pub(crate) cap: Capability,
    pub(crate) why: &'static str,
}

/// A namespace that the process leaves for a new, empty one.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    pub(crate) flag: CloneFlags,
    pub(crate) why: &'static str,
}

/// A resource limit, soft and hard.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) resource: Resource,
    pub(crate) value: LimitValue,
    pub(crate) why: &'static str,
}

/// A limit that may depend on how many workers the process talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LimitValue {
    /// A constant.
    Fixed(u64),
    /// One more for each worker.
    AndWorkers(u64),
}

impl LimitValue {
    pub(crate) fn with(self, workers: usize) -> u64 {
        match self {
            LimitValue::Fixed(value) => value,
            LimitValue::AndWorkers(value) => value.saturating_add(workers as u64),
        }
    }
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitValue::Fixed(value) => write!(f, "{value}"),
            LimitValue::AndWorkers(value) => write!(f, "{value}+workers"),
        }
    }
}

impl Namespace {
    pub(super) const NET: Self =
        Self { name: "net", flag: CloneFlags::CLONE_NEWNET, why: "a new socket would reach no network" };
    pub(super) const IPC: Self =
        Self { name: "ipc", flag: CloneFlags::CLONE_NEWIPC, why: "no shared memory or queues of others" };
    pub(super) const UTS: Self =
        Self { name: "uts", flag: CloneFlags::CLONE_NEWUTS, why: "the host's name is not ours" };
    pub(super) const MOUNT: Self = Self {
        name: "mount",
        flag: CloneFlags::CLONE_NEWNS,
        why: "a view of mounts of its own, of which it can change nothing",
    };
}

impl Limit {
    pub(super) const NO_FILE_GROWS: Self = Self {
        name: "FSIZE",
        resource: Resource::RLIMIT_FSIZE,
        value: LimitValue::Fixed(0),
        why: "no file can grow, should one be open",
    };
    pub(super) const NO_PROCESS: Self = Self {
        name: "NPROC",
        resource: Resource::RLIMIT_NPROC,
        value: LimitValue::Fixed(0),
        why: "fork is EAGAIN for a user not root",
    };

    /// No core dump.
    pub(super) const fn core(why: &'static str) -> Self {
        Self { name: "CORE", resource: Resource::RLIMIT_CORE, value: LimitValue::Fixed(0), why }
    }

    /// The most descriptors open at one time.
    pub(super) const fn descriptors(value: LimitValue, why: &'static str) -> Self {
        Self { name: "NOFILE", resource: Resource::RLIMIT_NOFILE, value, why }
    }
}

/// Everything about a role that is not a system call.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) caps: &'static [KeptCapability],
    pub(crate) namespaces: &'static [Namespace],
    /// What Landlock takes away.
    pub(crate) landlock: &'static str,
    pub(crate) limits: &'static [Limit],
    /// The descriptors from 0 on.
    pub(crate) fds: &'static [&'static str],
    /// The descriptor that follows once for each worker, if any.
    pub(crate) fd_per_worker: Option<&'static str>,
    /// What a hostile process of this role can still do; empty where it is not listed.
    pub(crate) remains: &'static [&'static str],
    /// What a memory fault leads to.
    pub(crate) faults: &'static str,
}

impl Confinement {
    pub(crate) fn cap_mask(&self) -> u64 {
        self.caps.iter().fold(0, |mask, kept| mask | kept.cap.bitmask())
    }

    pub(crate) fn cap_set(&self) -> CapsHashSet {
        self.caps.iter().map(|kept| kept.cap).collect()
    }
}
