//! The sandbox: how a process of `loaded` gives up its rights, in which order, and how that is proved.
//!
//! It knows how the kernel takes rights away and what each role needs. It never gives a right back, and it knows
//! nothing of packets, backends, messages or configuration.
//!
//! ```text
//!  policy/     what each role may do: one table a role, each rule with its reason; compiled, printed, compared
//!  drop        stage one: from root to a user that may hold one capability
//!  seal        stage two: Landlock, resource limits, seccomp; nothing can be opened or mapped after it
//!  trim        what the supervisor itself gives up
//!  proof       checks a child from outside, by /proc/PID
//!  support     which layers this kernel has, and what the lack of one means
//!  attempt/    every forbidden and every allowed thing a child could try, as data
//!  selftest/   makes those attempts, each in a child that is sacrificed
//!  identity    the user that children become           fds        which descriptors a child owns
//!  ping        sockets that ping                       marked     sockets with a mark
//!  pidfd       another process, held by a pidfd        oom        whom the kernel kills when memory is short
//!  accept      connections as the exporter accepts them
//!  session     no terminal for children                kernel     the few calls that std and nix lack
//!  hostile/    for tests: weaker policies, and attempts in a live worker; in no release
//! ```
//!
//! The order, for a child:
//!
//! ```text
//!  supervisor (root)                         child (fork + exec of ourselves, still root)
//!  ─────────────────                         ────────────────────────────────────────────
//!  KernelSupport::probe                      keep_only_fds    0, 1, 2 = /dev/null, then what the role works with
//!  open_ping_socket  for the prober          drop_rights      bounding set, securebits, namespaces, chroot,
//!  trim_supervisor   caps, deny list                          ids, capset, pdeathsig, dumpable, MDWE
//!                                            (caller)         allocates; a worker builds the pinned templates
//!                                            seal             Landlock, rlimits, seccomp: nothing after it
//!  prove             /proc/PID from outside  Prepared
//! ```
//!
//! Kernel facts name where they can be checked: a man page, a function in the kernel, or a test in `src/sandbox/tests/`.

mod accept;
pub mod attempt;
mod drop;
mod error;
mod family;
mod fds;
#[cfg(feature = "hostile")]
pub mod hostile;
mod identity;
mod inheritance;
mod kernel;
mod marked;
mod oom;
mod pidfd;
mod ping;
pub mod policy;
pub mod proof;
mod role;
mod seal;
pub mod selftest;
mod session;
mod support;
mod trim;

pub use accept::accept;
pub use drop::{Survival, become_stranger, drop_rights};
pub use error::SandboxError;
pub use family::Family;
pub use fds::{inherited, keep_only_fds, open_fds};
pub use identity::{CHROOT, Identity, check_chroot_dir};
pub use inheritance::{raise_limits, shed_inheritance};
pub use kernel::leave;
pub use marked::{disconnect, marked};
pub use oom::{offer_to_oom, spare_from_oom};
pub use pidfd::PidFd;
pub use ping::{PingKind, open_ping_socket};
pub use policy::{Bindings, CHECK_SOCKETS, CONNECTIONS, SandboxPolicy};
pub use role::Role;
pub use seal::{SandboxRequirement, limit_resources, restrict_with_landlock, seal};
pub use session::begin_session;
pub use support::{KernelSupport, Layer};
pub use trim::trim_supervisor;

/// Whether this build can weaken a policy, as test builds can. A release asserts that it cannot (src/main.rs).
pub const FOR_TESTS: bool = cfg!(feature = "hostile");
