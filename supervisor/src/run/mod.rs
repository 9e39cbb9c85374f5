//! From the command line to the end of an instance.
//!
//! [`check`] changes nothing. [`run`] starts an instance ([`start`], after the checks in [`checked`]) and serves. `acquired` is what
//! a start has acquired so far, `workers` the workers that it starts or takes over.

mod acquired;
mod checked;
mod start;
mod workers;

use crate::Error;
use crate::handover::predecessor::Predecessor;
use crate::instance::{Exit, Instance};
pub use crate::options::Options;
use crate::preflight::{available_cores, check_accounts};
use crate::process::daemon::{self, PidFile};
use crate::process::output;
use checked::Checked;
use loaded_config as config;
use loaded_netfilter::Tools;
use loaded_sandbox::{CHROOT, Identity, check_chroot_dir, keep_only_fds, raise_limits, shed_inheritance};
use nix::unistd::geteuid;
use sd_notify::NotifyState;
use std::os::fd::OwnedFd;
use std::path::Path;

/// `--check`: the configuration, and what it names on this host. Needs no rights and changes nothing.
///
/// # Errors
/// What is wrong with the configuration.
pub fn check(options: &Options) -> Result<config::LoadedPlan, Error> {
    let loaded = options.load()?;
    Identity::lookup(&loaded.plan.user)?;
    check_accounts(&loaded.plan)?;
    loaded.plan.check_cores(&available_cores()?)?;
    Ok(loaded)
}

/// What this host lacks that every start needs, whatever the configuration. Needs no rights and changes nothing.
#[must_use]
pub fn lacking() -> Vec<Error> {
    let chroot = check_chroot_dir(Path::new(CHROOT)).err().map(Error::from);
    let programs = Tools::find().err().map(Error::from);
    chroot.into_iter().chain(programs).collect()
}

/// Runs an instance until it is told to end, or a successor serves in its place.
///
/// # Errors
/// Whatever keeps it from serving. Nothing on the host has changed then.
pub fn run(options: &Options) -> Result<(), Error> {
    output::to_stderr();
    output::set_level(options.overrides.log_level.unwrap_or_default());
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    shed_inheritance()?;
    for kept in raise_limits() {
        log::warn!("a limit of this process stays: {kept}");
    }
    if options.successor { succeed(options, Predecessor::take()?) } else { start_alone(options) }
}

/// The life of an instance without a predecessor.
fn start_alone(options: &Options) -> Result<(), Error> {
    let starter = if options.detached {
        Some(daemon::take_starter()?)
    } else {
        keep_only_fds(&[0, 1, 2])?;
        None
    };
    let detach = |options: &Options| if options.detached { Ok(daemon::detach()?) } else { Ok(()) };
    let checked = Checked::check(options, detach)?;
    let pid_file = checked.options.pid_file.as_deref().map(|path| PidFile::write(path, None)).transpose()?;
    let instance = start::alone(checked)?;
    serve(instance, pid_file, starter)
}

/// The life of an instance that takes the place of a predecessor.
fn succeed(options: &Options, predecessor: Predecessor) -> Result<(), Error> {
    let started = start::beside(options, &predecessor).inspect_err(|error| predecessor.refuse(error));
    let (mut instance, options, replaced) = started?;
    // Before the predecessor ends: whoever looks for a process by these must find ours.
    daemon::notify(NotifyState::MainPid(std::process::id()));
    let pid_file = options.pid_file.as_deref().map(|path| PidFile::write(path, Some(replaced))).transpose();
    let pid_file = pid_file.unwrap_or_else(|error| {
        log::error!("{error}");
        None
    });
    instance.replace_predecessor(predecessor, &options.control_path());
    serve(instance, pid_file, None)
}

/// Serves to the end. The rules stand: from here on the only way out is through [`Instance::end`].
fn serve(mut instance: Instance, pid_file: Option<PidFile>, starter: Option<OwnedFd>) -> Result<(), Error> {
    instance.log_serving();
    let released = starter.map_or(Ok(()), |starter| {
        output::to_syslog();
        Ok(daemon::release(starter)?)
    });
    daemon::notify(NotifyState::Ready);
    match released.and_then(|()| instance.serve()) {
        Ok(Exit::Succeeded) => {
            // Rules, routes, control socket and PID file are the successor's by now.
            std::mem::forget((instance, pid_file));
            Ok(())
        }
        result => {
            daemon::notify(NotifyState::Stopping);
            let end = instance.end();
            drop(pid_file);
            result.map(drop).and(end)
        }
    }
}
