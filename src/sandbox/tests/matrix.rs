//! Kernels that lack a layer, simulated by a seccomp filter that gives the old kernel's answer. Each missing layer must
//! be named, with its consequence; below the requirement the start is refused unless a weak sandbox was allowed.

#![allow(clippy::unwrap_used)]

mod rig;

use std::process::ExitCode;

use loaded_sandbox::selftest::enter_private_namespaces;
use loaded_sandbox::{
    Bindings, KernelSupport, Layer, Role, SandboxError, SandboxPolicy, SandboxRequirement, Survival, drop_rights,
    keep_only_fds, open_fds, seal,
};
use rig::{child_passes, kernel_without, nobody, raw};

fn main() -> ExitCode {
    rig::run(&[
        ("this kernel", this_kernel),
        ("without Landlock", without_landlock),
        ("with Landlock switched off at boot", landlock_off),
        ("without seccomp", without_seccomp),
        ("without MDWE", without_mdwe),
        ("without mseal", without_mseal),
        ("without close_range", without_close_range),
    ])
}

fn bindings() -> Bindings {
    Bindings::Worker { queue_fd: 3, link_fd: 4, membership_fd: 5, templates: 0x2000_0000_0000..0x2000_0000_1000 }
}

fn enter(requirement: SandboxRequirement) -> Result<KernelSupport, SandboxError> {
    enter_private_namespaces().unwrap();
    let mut support = drop_rights(Role::Worker, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo)?;
    support.merge(seal(&SandboxPolicy::worker(), &bindings(), requirement)?);
    Ok(support)
}

fn this_kernel() {
    let support = KernelSupport::probe();
    println!("{support}");
    assert_eq!(support.findings().len(), Layer::ALL.len());
    child_passes(move || {
        let entered = enter(SandboxRequirement::Required).unwrap();
        for layer in [Layer::Seccomp, Layer::Landlock, Layer::LandlockNet, Layer::LandlockScopes, Layer::Mdwe] {
            assert_eq!(entered.has(layer), support.has(layer), "{layer:?}: what is there is used");
        }
    });
}

/// Refused, naming the layer, where it is required; entered and reported where a weak sandbox was allowed.
fn refused_without(missing: Layer, without: fn()) {
    child_passes(|| {
        without();
        let support = KernelSupport::probe();
        assert!(!support.has(missing));
        assert!(support.to_string().contains(missing.consequence()), "{support}");
        let error = SandboxRequirement::Required.check(&support).unwrap_err().to_string();
        assert!(error.contains(missing.name()) && error.contains("--allow-weak-sandbox"), "{error}");
        assert!(SandboxRequirement::AllowWeak.check(&support).is_ok());
    });
    child_passes(|| {
        without();
        let error = enter(SandboxRequirement::Required).unwrap_err();
        assert!(matches!(error, SandboxError::WeakKernel { .. }), "{error}");
    });
    child_passes(|| {
        without();
        let support = enter(SandboxRequirement::AllowWeak).unwrap();
        assert!(support.absent().any(|layer| layer == missing));
    });
}

fn without_landlock() {
    refused_without(Layer::Landlock, || kernel_without(libc::SYS_landlock_create_ruleset, None, libc::ENOSYS));
}

fn landlock_off() {
    refused_without(Layer::Landlock, || kernel_without(libc::SYS_landlock_create_ruleset, None, libc::EOPNOTSUPP));
}

fn without_seccomp() {
    refused_without(Layer::Seccomp, || kernel_without(libc::SYS_seccomp, None, libc::ENOSYS));
}

fn without_mdwe() {
    child_passes(|| {
        for option in [libc::PR_SET_MDWE, libc::PR_GET_MDWE] {
            kernel_without(libc::SYS_prctl, Some(u64::from(option.unsigned_abs())), libc::EINVAL);
        }
        assert!(!KernelSupport::probe().has(Layer::Mdwe));
        let support = enter(SandboxRequirement::Required).unwrap();
        assert_eq!(support.absent().collect::<Vec<_>>(), [Layer::Mdwe]);
    });
}

fn without_mseal() {
    child_passes(|| {
        kernel_without(libc::SYS_mseal, None, libc::ENOSYS);
        assert!(!KernelSupport::probe().has(Layer::Mseal));
        assert!(SandboxRequirement::Required.check(&KernelSupport::probe()).is_ok());
    });
}

fn without_close_range() {
    child_passes(|| {
        kernel_without(libc::SYS_close_range, None, libc::ENOSYS);
        assert!(!KernelSupport::probe().has(Layer::CloseRange));
        for _ in 0..5 {
            assert!(raw(libc::SYS_dup, [0; 6]) > 2);
        }
        keep_only_fds(&[0, 1, 2]).unwrap();
        assert_eq!(open_fds().unwrap(), [0, 1, 2]);
    });
}
