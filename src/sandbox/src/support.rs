//! Which layers of the sandbox this kernel offers, and what follows from the lack of one.

use std::fmt;

use crate::kernel;

/// A layer that a kernel may lack. What every kernel has (ids, chroot, capabilities, rlimits) is no layer but a
/// precondition: if it fails, we do not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// close_range(2), Linux 5.9.
    CloseRange,
    /// PR_SET_MDWE, Linux 6.3.
    Mdwe,
    /// mseal(2), Linux 6.10.
    Mseal,
    /// Landlock ABI 1, Linux 5.13: the file system.
    Landlock,
    /// Landlock ABI 4, Linux 6.7: TCP bind and connect.
    LandlockNet,
    /// Landlock ABI 6, Linux 6.12: signals and abstract Unix sockets.
    LandlockScopes,
    /// Seccomp with SECCOMP_RET_KILL_PROCESS, Linux 4.14.
    Seccomp,
}

impl Layer {
    /// All layers, in the order they are printed.
    pub const ALL: [Layer; 7] = [
        Layer::Seccomp,
        Layer::Landlock,
        Layer::LandlockNet,
        Layer::LandlockScopes,
        Layer::Mseal,
        Layer::Mdwe,
        Layer::CloseRange,
    ];

    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Layer::CloseRange => "close_range",
            Layer::Mdwe => "memory-deny-write-execute",
            Layer::Mseal => "mseal",
            Layer::Landlock => "Landlock",
            Layer::LandlockNet => "Landlock network rules",
            Layer::LandlockScopes => "Landlock scopes",
            Layer::Seccomp => "seccomp",
        }
    }

    /// What follows if it is missing.
    pub fn consequence(self) -> &'static str {
        match self {
            Layer::CloseRange => "descriptors are closed one by one from /proc/self/fd instead",
            Layer::Mdwe => "only seccomp keeps a hostile child from making code of data",
            Layer::Mseal => "only seccomp keeps a hostile worker from mapping over the verdict templates",
            Layer::Landlock => "only chroot and seccomp keep a hostile child from files",
            Layer::LandlockNet => {
                "only seccomp and the empty network namespace keep a hostile worker from TCP, and nothing a hostile \
                 prober from any TCP port"
            }
            Layer::LandlockScopes => "only seccomp and its own uid keep a hostile child from signalling others",
            Layer::Seccomp => {
                "a hostile worker can change the firewall through its queue descriptor, and a hostile prober forge \
                 addresses if it has a raw socket"
            }
        }
    }
}

/// One layer as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSupport {
    /// The layer.
    pub layer: Layer,
    /// Whether it is there (and, after `seal`, in force).
    pub present: bool,
    /// A detail worth printing, such as the ABI.
    pub detail: String,
}

/// The layers that are in force, or available.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelSupport {
    findings: Vec<LayerSupport>,
}

impl KernelSupport {
    /// Asks the kernel about every layer, changing nothing. For the supervisor's log at start.
    pub fn probe() -> KernelSupport {
        let mut support = KernelSupport::default();
        support.note(Layer::Seccomp, has_seccomp(), "kill-process action");
        support.note_landlock(landlock_abi());
        support.note(Layer::Mseal, has_mseal(), "");
        support.note(Layer::Mdwe, has_mdwe(), "");
        support.note(Layer::CloseRange, has_close_range(), "");
        support
    }

    /// Adds the findings of another stage; the later finding wins.
    pub fn merge(&mut self, later: KernelSupport) {
        for finding in later.findings {
            self.findings.retain(|f| f.layer != finding.layer);
            self.findings.push(finding);
        }
    }

    /// Whether this layer is there.
    pub fn has(&self, layer: Layer) -> bool {
        self.findings.iter().any(|f| f.layer == layer && f.present)
    }

    /// Everything found, for printing.
    pub fn findings(&self) -> &[LayerSupport] {
        &self.findings
    }

    /// What is missing, for warnings.
    pub fn absent(&self) -> impl Iterator<Item = Layer> {
        self.findings.iter().filter(|f| !f.present).map(|f| f.layer)
    }

    pub(crate) fn note(&mut self, layer: Layer, present: bool, detail: &str) {
        self.findings.push(LayerSupport { layer, present, detail: detail.to_owned() });
    }

    pub(crate) fn note_landlock(&mut self, abi: i64) {
        for (layer, least) in [(Layer::Landlock, 1), (Layer::LandlockNet, 4), (Layer::LandlockScopes, 6)] {
            self.note(layer, abi >= least, &format!("ABI {abi}, needs {least}"));
        }
    }
}

impl fmt::Display for KernelSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let LayerSupport { layer, present, detail } = finding;
            let word = if *present { "present" } else { "ABSENT" };
            write!(f, "{:<26} {word}", layer.name())?;
            if !detail.is_empty() {
                write!(f, " ({detail})")?;
            }
            if !present {
                write!(f, ": {}", layer.consequence())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The Landlock ABI, 0 where there is none (not built: ENOSYS; not enabled at boot: EOPNOTSUPP; landlock(7)).
pub(crate) fn landlock_abi() -> i64 {
    const CREATE_RULESET_VERSION: u64 = 1;
    // SAFETY: with this flag the kernel takes a null attribute of size 0 and only answers a number.
    unsafe { kernel::syscall(libc::SYS_landlock_create_ruleset, &[0, 0, CREATE_RULESET_VERSION]) }.max(0)
}

pub(crate) fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    let operation = u64::from(libc::SECCOMP_GET_ACTION_AVAIL);
    // SAFETY: reads four bytes at a pointer that is good for the call.
    unsafe { kernel::syscall(libc::SYS_seccomp, &[operation, 0, (&raw const action) as u64]) == 0 }
}

fn has_mseal() -> bool {
    // SAFETY: a length of 0 seals nothing and answers 0 where the call exists (`do_mseal` in mm/mseal.c).
    unsafe { kernel::syscall(libc::SYS_mseal, &[0, 0, 0]) == 0 }
}

fn has_mdwe() -> bool {
    kernel::prctl(libc::PR_GET_MDWE, 0, 0).is_ok()
}

fn has_close_range() -> bool {
    let beyond = u64::from(u32::MAX);
    // SAFETY: no descriptor has this number (they are ints), so nothing is closed.
    unsafe { kernel::syscall(libc::SYS_close_range, &[beyond, beyond, 0]) == 0 }
}
