//! The supervisor: it must be root, so whatever it does not need is taken away, from itself and from every child it
//! starts.
//!
//! The deny list is inherited through fork and exec: by iptables-restore, nft and modprobe, and by workers, which
//! stack their own allow list on top (seccomp(2): the strictest answer of all filters counts).

use caps::Capability;

use super::confinement::{Confinement, KeptCapability};
use super::rule::SyscallRule;

pub(super) const CONFINEMENT: Confinement = Confinement {
    // Deliberately absent: CAP_SYS_PTRACE, which finds the owner of a queue and takes over a dead supervisor's workers,
    // both done before the trim; CAP_SYS_MODULE, for the kernel loads netfilter modules on demand; CAP_SYS_NICE, for a
    // child pins itself to its core while it is still root; CAP_DAC_OVERRIDE, for root owns the configuration.
    caps: &[
        KeptCapability { cap: Capability::CAP_NET_ADMIN, why: "bind queues, install rules, and pass it on to workers" },
        KeptCapability {
            cap: Capability::CAP_NET_RAW,
            why: "iptables-legacy needs a raw socket, and pings where ping sockets are refused",
        },
        KeptCapability { cap: Capability::CAP_SYS_ADMIN, why: "a respawned worker leaves its namespaces" },
        KeptCapability { cap: Capability::CAP_SYS_CHROOT, why: "a respawned child chroots" },
        KeptCapability {
            cap: Capability::CAP_SETPCAP,
            why: "a respawned child drops its bounding set and locks securebits",
        },
        KeptCapability { cap: Capability::CAP_SETUID, why: "a respawned child changes its user" },
        KeptCapability { cap: Capability::CAP_SETGID, why: "a respawned child changes its groups" },
        KeptCapability { cap: Capability::CAP_KILL, why: "stop children, which run as another user" },
    ],
    namespaces: &[],
    landlock: "",
    limits: &[],
    fds: &[],
    fd_per_worker: None,
    remains: &[],
    faults: "",
};

macro_rules! deadly {
    ($why:literal: $($call:ident = $number:path),+ $(,)?) => {
        &[$(SyscallRule::new(stringify!($call), $number, &[], $why)),+]
    };
}

pub(super) fn rules() -> Vec<SyscallRule> {
    [KERNEL_CODE, OTHER_PROCESSES, ATTACK_SURFACE, MOUNTS, MACHINE, X86].concat()
}

const KERNEL_CODE: &[SyscallRule] = deadly!("code in the kernel":
    bpf = libc::SYS_bpf,
    init_module = libc::SYS_init_module,
    finit_module = libc::SYS_finit_module,
    delete_module = libc::SYS_delete_module,
    kexec_load = libc::SYS_kexec_load,
    kexec_file_load = KEXEC_FILE_LOAD,
    perf_event_open = libc::SYS_perf_event_open,
);

const OTHER_PROCESSES: &[SyscallRule] = deadly!("into another process":
    ptrace = libc::SYS_ptrace,
    process_vm_readv = libc::SYS_process_vm_readv,
    process_vm_writev = libc::SYS_process_vm_writev,
    process_madvise = libc::SYS_process_madvise,
    kcmp = libc::SYS_kcmp,
    pidfd_getfd = libc::SYS_pidfd_getfd,
);

const ATTACK_SURFACE: &[SyscallRule] = deadly!("large surface, not used; io_uring also goes around seccomp":
    io_uring_setup = libc::SYS_io_uring_setup,
    io_uring_enter = libc::SYS_io_uring_enter,
    io_uring_register = libc::SYS_io_uring_register,
    userfaultfd = libc::SYS_userfaultfd,
    add_key = libc::SYS_add_key,
    request_key = libc::SYS_request_key,
    keyctl = libc::SYS_keyctl,
    fanotify_init = libc::SYS_fanotify_init,
);

/// A child unshares its mount namespace and chroots without any of these.
const MOUNTS: &[SyscallRule] = deadly!("mounts are as they were at start":
    mount = libc::SYS_mount,
    umount2 = libc::SYS_umount2,
    pivot_root = libc::SYS_pivot_root,
    fsopen = libc::SYS_fsopen,
    fsconfig = libc::SYS_fsconfig,
    fsmount = libc::SYS_fsmount,
    fspick = libc::SYS_fspick,
    open_tree = libc::SYS_open_tree,
    move_mount = libc::SYS_move_mount,
    mount_setattr = libc::SYS_mount_setattr,
    open_tree_attr = OPEN_TREE_ATTR,
    open_by_handle_at = libc::SYS_open_by_handle_at,
    setns = libc::SYS_setns,
);

const MACHINE: &[SyscallRule] = deadly!("the machine is not ours to run":
    reboot = libc::SYS_reboot,
    swapon = libc::SYS_swapon,
    swapoff = libc::SYS_swapoff,
    acct = libc::SYS_acct,
    quotactl = libc::SYS_quotactl,
    quotactl_fd = libc::SYS_quotactl_fd,
    syslog = libc::SYS_syslog,
    sethostname = libc::SYS_sethostname,
    setdomainname = libc::SYS_setdomainname,
    settimeofday = libc::SYS_settimeofday,
    clock_settime = libc::SYS_clock_settime,
    adjtimex = libc::SYS_adjtimex,
    clock_adjtime = libc::SYS_clock_adjtime,
);

#[cfg(target_arch = "x86_64")]
const X86: &[SyscallRule] = deadly!("x86: ports and segments":
    iopl = libc::SYS_iopl,
    ioperm = libc::SYS_ioperm,
    modify_ldt = libc::SYS_modify_ldt,
);
#[cfg(not(target_arch = "x86_64"))]
const X86: &[SyscallRule] = &[];

/// Linux 6.15; the number is the same on every architecture.
const OPEN_TREE_ATTR: libc::c_long = 467;
/// glibc's headers gave aarch64 this call later than the kernel did (5.0); 294 is the number of the generic table.
#[cfg(target_arch = "aarch64")]
const KEXEC_FILE_LOAD: libc::c_long = 294;
#[cfg(not(target_arch = "aarch64"))]
const KEXEC_FILE_LOAD: libc::c_long = libc::SYS_kexec_file_load;
