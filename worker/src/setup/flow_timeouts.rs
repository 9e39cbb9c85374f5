//! From configured timeouts to those of a flow table. The defaults and their reasons are in [`Idle::STANDARD`]
//! (src/ipc/src/policy.rs).

use loaded_ipc::Idle;
use loaded_table::Timeouts;

/// Idle seconds after which flows of a service are forgotten, by state.
#[must_use]
pub fn flow_timeouts(idle: &Idle) -> Timeouts {
    let Idle { tcp, half_open, closing, udp, echo } = *idle;
    Timeouts { half_open, established: tcp, closing, reset: idle.reset(), datagram: udp, echo }
}
