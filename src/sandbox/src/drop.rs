//! Stage one: from root to a user that may hold one capability.
//!
//! The order matters; each step says what it must precede, and `src/sandbox/tests/facts.rs` shows why.

use std::ffi::CString;

use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chdir, chroot, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use crate::error::SandboxError;
use crate::identity::{CHROOT, Identity, check_chroot_dir};
use crate::kernel;
use crate::policy::Confinement;
use crate::role::Role;
use crate::support::{KernelSupport, Layer};

/// securebits, all of them locked so that they outlive any later gain of rights (capabilities(7)).
/// NOROOT: uid 0 means nothing at exec. NO_SETUID_FIXUP: ids and capabilities do not affect each other, which also lets
/// CAP_NET_ADMIN survive setresuid without KEEP_CAPS. KEEP_CAPS stays off, and no ambient capability can be raised.
const SECUREBITS: i32 = libc::SECBIT_NOROOT
    | libc::SECBIT_NOROOT_LOCKED
    | libc::SECBIT_NO_SETUID_FIXUP
    | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
    | libc::SECBIT_KEEP_CAPS_LOCKED
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE
    | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

/// Whether a child survives its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// The kernel kills it with the supervisor.
    DiesToo,
    /// It goes on, until whoever takes it over decides.
    Outlives,
}

/// Drops what `role` must not have. Runs as root in a child after exec, before any thread exists; `parent` is the pid
/// that started us. Returns which layers this kernel has.
///
/// After an error the process is in an untested state: end it.
pub fn drop_rights(
    role: Role,
    identity: &Identity,
    parent: u32,
    survival: Survival,
) -> Result<KernelSupport, SandboxError> {
    let confinement = Confinement::of(role);
    if role == Role::Supervisor {
        return Err(SandboxError::WrongRole { act: "drop to an unprivileged user", role });
    }
    if kernel::has_threads() {
        return Err(SandboxError::Threads { act: "drop rights" });
    }
    identity.refuse_root()?;

    name_process(role)?;
    drop_bounding_set(confinement)?;
    lock_securebits()?;
    leave_namespaces(confinement)?;
    lock_in()?;
    become_user(identity)?;
    keep_only_caps(&confinement.cap_set())?;
    let support = harden(parent, survival)?;
    read_back(confinement, identity)?;
    Ok(support)
}

/// For a program of the operator's that this process is about to become: no capability, not even one that another program could give
/// back, another user, no group but its own. Needs root; before any thread exists.
///
/// # Errors
/// The user is root, or the kernel refuses.
pub fn become_stranger(identity: &Identity) -> Result<(), SandboxError> {
    identity.refuse_root()?;
    // The prober has no capability either.
    drop_bounding_set(Confinement::of(Role::Prober))?;
    become_user(identity)?;
    keep_only_caps(&CapsHashSet::new())?;
    prctl::set_no_new_privs().map_err(refused("set", "no_new_privs"))
}

fn refused<'a>(act: &'static str, object: impl Into<String> + 'a) -> impl FnOnce(Errno) -> SandboxError + 'a {
    move |source| SandboxError::Refused { act, object: object.into(), source }
}

fn name_process(role: Role) -> Result<(), SandboxError> {
    let name = format!("loaded-{role}");
    let text = CString::new(name.as_str()).map_err(|_| refused("name the process", name.as_str())(Errno::EINVAL))?;
    prctl::set_name(&text).map_err(refused("name the process", name))
}

/// Must precede the change of ids: it needs CAP_SETPCAP, and afterwards fails with EPERM.
///
/// Counts up until the kernel says EINVAL (`cap_valid` in kernel/capability.c; the same number as
/// /proc/sys/kernel/cap_last_cap), so capabilities newer than this program are dropped too.
pub(crate) fn drop_bounding_set(confinement: &Confinement) -> Result<(), SandboxError> {
    for number in 0..64 {
        let held = match kernel::prctl(libc::PR_CAPBSET_READ, number, 0) {
            Ok(held) => held == 1,
            Err(Errno::EINVAL) => break,
            Err(source) => return Err(refused("read the bounding set", format!("capability {number}"))(source)),
        };
        if held && confinement.cap_mask() & (1 << number) == 0 {
            kernel::prctl(libc::PR_CAPBSET_DROP, number, 0)
                .map_err(refused("drop from the bounding set", format!("capability {number}")))?;
        }
    }
    Ok(())
}

fn lock_securebits() -> Result<(), SandboxError> {
    let bits = u64::from(SECUREBITS.unsigned_abs());
    kernel::prctl(libc::PR_SET_SECUREBITS, bits, 0).map(drop).map_err(refused("lock", "securebits"))
}

/// Must precede the change of ids: it needs CAP_SYS_ADMIN. New sockets then live in an empty network. The inherited
/// queue descriptor keeps acting on the network it was opened in (netlink_net_capable in net/netlink/af_netlink.c asks
/// for the socket's namespace), which is why seccomp is indispensable.
fn leave_namespaces(confinement: &Confinement) -> Result<(), SandboxError> {
    let flags = confinement.namespaces.iter().fold(CloneFlags::empty(), |all, n| all | n.flag);
    let names: Vec<&str> = confinement.namespaces.iter().map(|n| n.name).collect();
    unshare(flags).map_err(refused("unshare", names.join(", ")))
}

fn lock_in() -> Result<(), SandboxError> {
    check_chroot_dir(CHROOT.as_ref())?;
    chroot(CHROOT).map_err(refused("chroot to", CHROOT))?;
    // chroot(2) does not change the working directory, which would still be outside.
    chdir("/").map_err(refused("change directory to", "/ inside the chroot"))
}

/// Groups first, while we are still allowed to.
fn become_user(identity: &Identity) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&[]).map_err(refused("clear", "the supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(refused("become group", identity.gid.to_string()))?;
    setresuid(uid, uid, uid).map_err(refused("become user", format!("{} ({})", identity.uid, identity.name)))
}

/// With NO_SETUID_FIXUP all capabilities survived setresuid; here they go. Effective first: permitted may not become
/// smaller than effective (capset(2)).
pub(crate) fn keep_only_caps(keep: &CapsHashSet) -> Result<(), SandboxError> {
    let failed = |act, object| {
        move |e: caps::errors::CapsError| SandboxError::Capabilities { act, object, detail: e.to_string() }
    };
    caps::clear(None, CapSet::Ambient).map_err(failed("clear", "the ambient set"))?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed("clear", "the inheritable set"))?;
    caps::set(None, CapSet::Effective, keep).map_err(failed("reduce", "the effective set"))?;
    caps::set(None, CapSet::Permitted, keep).map_err(failed("reduce", "the permitted set"))
}

fn harden(parent: u32, survival: Survival) -> Result<KernelSupport, SandboxError> {
    // After the change of ids, which clears it (`commit_creds` in kernel/cred.c; tests/facts.rs).
    if survival == Survival::DiesToo {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(refused("set", "the parent-death signal"))?;
    }
    // Only then check: a parent that died earlier sent no signal.
    let found = std::os::unix::process::parent_id();
    if found != parent {
        return Err(SandboxError::Orphaned { expected: parent, found });
    }
    // setresuid set it to fs.suid_dumpable, which an admin may have set to 1. 0: no core dump, no ptrace by our own
    // uid.
    prctl::set_dumpable(false).map_err(refused("clear", "the dumpable flag"))?;

    let mut support = KernelSupport::default();
    let mdwe = u64::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    match kernel::prctl(libc::PR_SET_MDWE, mdwe, 0) {
        Ok(_) => support.note(Layer::Mdwe, true, ""),
        // Linux before 6.3.
        Err(Errno::EINVAL) => support.note(Layer::Mdwe, false, ""),
        Err(e) => return Err(refused("set", "memory-deny-write-execute")(e)),
    }
    Ok(support)
}

/// Asks the kernel what we are now. There is no /proc in here; the supervisor looks at that from outside (`proof`).
fn read_back(confinement: &Confinement, identity: &Identity) -> Result<(), SandboxError> {
    let not_as_told = |object, wanted: String, found: String| {
        if wanted == found { Ok(()) } else { Err(SandboxError::NotAsTold { object, wanted, found }) }
    };
    let uids = getresuid().map_err(refused("read", "the user ids"))?;
    let gids = getresgid().map_err(refused("read", "the group ids"))?;
    let groups = getgroups().map_err(refused("read", "the groups"))?;
    not_as_told(
        "user ids",
        format!("{:?}", [identity.uid; 3]),
        format!("{:?}", [uids.real, uids.effective, uids.saved].map(Uid::as_raw)),
    )?;
    not_as_told(
        "group ids",
        format!("{:?}", [identity.gid; 3]),
        format!("{:?}", [gids.real, gids.effective, gids.saved].map(Gid::as_raw)),
    )?;
    not_as_told("supplementary groups", "[]".to_owned(), format!("{groups:?}"))?;

    let bits = kernel::prctl(libc::PR_GET_SECUREBITS, 0, 0).map_err(refused("read", "securebits"))?;
    not_as_told("securebits", format!("{SECUREBITS:#x}"), format!("{bits:#x}"))?;
    let caps = confinement.cap_mask();
    for (object, wanted, found) in [
        ("effective capabilities", caps, held(CapSet::Effective)?),
        ("permitted capabilities", caps, held(CapSet::Permitted)?),
        ("inheritable capabilities", 0, held(CapSet::Inheritable)?),
        ("bounding set", caps, counted(libc::PR_CAPBSET_READ, 0)),
        ("ambient capabilities", 0, counted(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_IS_SET)),
    ] {
        not_as_told(object, format!("{wanted:#x}"), format!("{found:#x}"))?;
    }
    let dumpable = prctl::get_dumpable().map_err(refused("read", "the dumpable flag"))?;
    not_as_told("dumpable flag", "false".to_owned(), dumpable.to_string())
}

fn held(set: CapSet) -> Result<u64, SandboxError> {
    let found = caps::read(None, set).map_err(|e| SandboxError::Capabilities {
        act: "read back",
        object: "a capability set",
        detail: e.to_string(),
    })?;
    Ok(found.iter().fold(0, |mask, cap| mask | cap.bitmask()))
}

/// By number, not by name, so that capabilities unknown to the caps crate are seen too.
fn counted(option: i32, operation: i32) -> u64 {
    let is_set = |cap: u64| match operation {
        0 => kernel::prctl(option, cap, 0),
        _ => kernel::prctl(option, u64::from(operation.unsigned_abs()), cap),
    };
    (0..64).filter(|cap| is_set(*cap) == Ok(1)).fold(0, |mask, cap| mask | 1 << cap)
}
