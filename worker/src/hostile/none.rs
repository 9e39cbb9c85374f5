//! The twin of `hostile.rs` in every build but those for tests: no packet hijacks a worker.

use loaded_ipc::SupervisorLink;
use loaded_queue::Packet;
use loaded_sandbox::{Bindings, SandboxError};
use std::os::fd::OwnedFd;

pub(crate) fn map_memory(_: bool) -> Result<(), loaded_table::Error> {
    Ok(())
}

pub(crate) fn map_flows(_: &OwnedFd, _: usize) -> Result<(), loaded_table::Error> {
    Ok(())
}

pub(crate) fn prepare(_: &Bindings, _: u16) -> Result<(), SandboxError> {
    Ok(())
}

#[inline]
pub(crate) fn hijacks(_: &mut Packet<'_>, _: Option<&SupervisorLink>) -> bool {
    false
}
