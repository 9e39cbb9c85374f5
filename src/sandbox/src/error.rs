//! Errors; each variant names the attempted act and its object.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::family::Family;
use crate::role::Role;

/// A step of dropping rights failed. The caller must end the process: half a sandbox is worse than none.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The user database could not be queried.
    #[error("look up user \"{user}\": {source}")]
    LookUpUser {
        /// The name as given.
        user: String,
        /// The answer of getpwnam.
        source: Errno,
    },
    /// No such user.
    #[error("look up user \"{user}\": no such user; name another with -U")]
    UnknownUser {
        /// The name as given.
        user: String,
    },
    /// The user is root, or root's group.
    #[error("run workers as \"{user}\": {what} 0 is root's; with -U name an unprivileged user that nothing else uses")]
    RootUser {
        /// The name as given.
        user: String,
        /// "uid" or "gid".
        what: &'static str,
    },
    /// The chroot directory is unsuitable.
    #[error("chroot directory {path}: {problem}; make it with: install -d -m 0755 -o root -g root {path}")]
    ChrootDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A role was asked to do what is not its job.
    #[error("{act}: the {role} does not do that")]
    WrongRole {
        /// What was asked.
        act: &'static str,
        /// The role.
        role: Role,
    },
    /// The kernel refused.
    #[error("{act} {object}: {source}")]
    Refused {
        /// The attempted act, usually the system call.
        act: &'static str,
        /// The object of the act.
        object: String,
        /// The kernel's answer.
        source: Errno,
    },
    /// The kernel agreed, but reading back shows something else.
    #[error("{object} after dropping rights: wanted {wanted}, found {found}")]
    NotAsTold {
        /// What was read back.
        object: &'static str,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// Rights are per thread: dropping them in one leaves them to the others.
    #[error("{act}: this process has more than one thread, and rights are per thread")]
    Threads {
        /// What was about to be done.
        act: &'static str,
    },
    /// The parent died before we could ask to die with it.
    #[error("check parent: expected pid {expected}, found {found}; the supervisor is gone")]
    Orphaned {
        /// The pid of the process that started us.
        expected: u32,
        /// The pid of our parent now.
        found: u32,
    },
    /// A descriptor to be kept is missing, or the kept ones are not 0..n.
    #[error("keep descriptors {kept:?}: {problem}")]
    Descriptors {
        /// What was to be kept.
        kept: Vec<i32>,
        /// What is wrong.
        problem: String,
    },
    /// A capability that the role needs is missing.
    #[error("{act}: {capability} is missing ({why}); start as root with it in the bounding set")]
    MissingCapability {
        /// What was about to be done.
        act: &'static str,
        /// The capability.
        capability: String,
        /// What it is needed for.
        why: &'static str,
    },
    /// The caps crate reports text, not numbers.
    #[error("{act} {object}: {detail}")]
    Capabilities {
        /// The attempted act.
        act: &'static str,
        /// The set.
        object: &'static str,
        /// What the crate reports.
        detail: String,
    },
    /// The numbers bound to a policy's symbols make no sense.
    #[error("bind the {role}'s policy: {problem}")]
    Bindings {
        /// The policy's role.
        role: Role,
        /// What is wrong.
        problem: String,
    },
    /// The filter could not be compiled or loaded.
    #[error("{act} the {role}'s seccomp filter: {detail}")]
    Seccomp {
        /// "compile" or "load".
        act: &'static str,
        /// The filter's role.
        role: Role,
        /// What seccompiler reports.
        detail: String,
    },
    /// The Landlock crate failed, which best effort should never do.
    #[error("restrict the process with Landlock: {detail}")]
    Landlock {
        /// What the crate reports.
        detail: String,
    },
    /// No ping socket of either kind could be opened.
    #[error(
        "open a socket that pings {family}: as a ping socket: {ping}; as a raw socket: {raw}; \
         let group 0 ping (sysctl -w net.ipv4.ping_group_range=\"0 0\") or start with CAP_NET_RAW"
    )]
    NoPinger {
        /// The address family.
        family: Family,
        /// Why no ping socket could be opened.
        ping: Errno,
        /// Why no raw socket could be opened.
        raw: Errno,
    },
    /// This kernel lacks a required layer.
    #[error(
        "this kernel has no {missing}, so {consequence}; refusing to start (--allow-weak-sandbox starts all the same)"
    )]
    WeakKernel {
        /// The layer.
        missing: &'static str,
        /// What a hostile worker gains.
        consequence: &'static str,
    },
}
