//! The prober: what it drops is settled, its system calls come with the checks. Until then it cannot be sealed.

use nix::sched::CloneFlags;

use super::{Namespace, Terms};

pub(super) const TERMS: Terms = Terms {
    caps: &[],
    // No network namespace of its own: it must reach the backends the way packets do.
    namespaces: &[
        Namespace { name: "ipc", flag: CloneFlags::CLONE_NEWIPC, why: "no shared memory or queues of others" },
        Namespace { name: "uts", flag: CloneFlags::CLONE_NEWUTS, why: "the host's name is not ours" },
        Namespace {
            name: "mount",
            flag: CloneFlags::CLONE_NEWNS,
            why: "a view of mounts of its own, of which it can change nothing",
        },
    ],
    limits: &[],
    fds: &[],
};
