//! The jail: how a process of `loaded` gives up its rights, in which order, and how that is proved.
//!
//! *What may be done here:* everything that takes rights away. *What may not:* anything that gives one back.
//!
//! ```text
//!  supervisor (root)                         child (fork + exec of ourselves, still root)
//!  ─────────────────                         ────────────────────────────────────────────
//!  KernelSupport::probe      what has this kernel?   keep_only_fds    0,1,2 = /dev/null, then what the role works with
//!  pinger            sockets for the prober
//!  trim_supervisor   caps, deny list         drop_rights      bounding set, securebits, namespaces, chroot,
//!                                                             ids, capset, pdeathsig, dumpable, MDWE
//!                                            (caller)         allocate; a worker: build the pinned templates
//!                                            seal             Landlock, rlimits, seccomp: nothing after it
//!  prove             /proc/PID from outside  READY
//! ```
//!
//! The policy of a role is data with reasons ([`policy`]); the same table is enforced, printed by
//! `--print-sandbox` and compared with a golden file. The suite that runs into the fence on purpose is [`act`]
//! (what is tried) and [`selftest`] (how it is tried).
//!
//! Kernel facts name where they can be checked: a man page, a function in the kernel, or a test in `tests/`.

pub mod act;
mod drop;
mod error;
mod fds;
mod identity;
mod kernel;
mod marked;
mod ping;
pub mod policy;
mod process;
pub mod proof;
mod seal;
pub mod selftest;
mod session;
mod support;
mod trim;
mod victim;

pub use drop::{Survival, drop_rights};
pub use error::SandboxError;
pub use fds::{inherited, keep_only_fds, open_fds};
pub use identity::{CHROOT, Identity, check_chroot_dir};
pub use kernel::leave;
pub use marked::{disconnect, marked};
pub use ping::{Family, Pinger, pinger};
pub use policy::{Bindings, CHECK_SOCKETS, Policy, Role};
pub use process::Process;
pub use seal::{SandboxRequirement, limit_resources, restrict_with_landlock, seal};
pub use session::begin_session;
pub use support::{KernelSupport, Layer};
pub use trim::trim_supervisor;
pub use victim::{offer_to_oom, spare_from_oom};
