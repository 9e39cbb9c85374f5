//! CPU cores.

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::io;

/// The cores this process may run on (sched_getaffinity(2)), ascending.
///
/// # Errors
/// If the kernel refuses the call.
pub fn available_cores() -> io::Result<Vec<u16>> {
    let cpus = sched_getaffinity(Pid::from_raw(0))?;
    let usable = (0..CpuSet::count()).filter(|&core| cpus.is_set(core).unwrap_or(false));
    Ok(usable.filter_map(|core| u16::try_from(core).ok()).collect())
}
