//! How long a flow may be idle, by backend and state. The defaults: `Idle::STANDARD` in src/ipc/src/policy.rs.

use crate::state::FlowState;

/// Idle seconds after which a flow is forgotten, by state. A flow that was idle for exactly this long still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Any protocol but echo, until the backend has answered; TCP until the client has acknowledged that.
    pub half_open: u32,
    /// TCP, open; also with one side closed, for the other may stay silent as long. Whatever was ended: a client that was silent as
    /// long as it may must not find that it goes on.
    pub established: u32,
    /// TCP, after both FINs.
    pub closing: u32,
    /// TCP, after a RST: it may be a forgery that both sides ignore, and their next packet shows that.
    pub reset: u32,
    /// Everything but TCP and echo, as soon as the backend has answered, for another answer may be on its way.
    pub datagram: u32,
    /// ICMP echo.
    pub echo: u32,
}

/// The timeouts of all flows.
#[derive(Debug)]
pub(crate) struct FlowTimeouts {
    /// By the number of their backend.
    of_backends: Box<[Timeouts]>,
    /// Of backends with a higher number.
    others: Timeouts,
    /// For each state, the shortest and the longest of all.
    bounds: (Timeouts, Timeouts),
}

impl Timeouts {
    /// Idle seconds for `state`.
    #[inline]
    pub fn of(&self, state: FlowState) -> u32 {
        match state {
            FlowState::HalfOpen | FlowState::Answered | FlowState::Unanswered => self.half_open,
            FlowState::Established
            | FlowState::ClientDone
            | FlowState::BackendDone
            | FlowState::LastAck
            | FlowState::OneSided
            | FlowState::Ended => self.established,
            FlowState::Closing => self.closing,
            FlowState::Reset => self.reset,
            FlowState::Replied | FlowState::Datagram => self.datagram,
            FlowState::Echo => self.echo,
        }
    }

    /// For each state, what `choose` makes of both.
    fn zip(self, other: Self, choose: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            half_open: choose(self.half_open, other.half_open),
            established: choose(self.established, other.established),
            closing: choose(self.closing, other.closing),
            reset: choose(self.reset, other.reset),
            datagram: choose(self.datagram, other.datagram),
            echo: choose(self.echo, other.echo),
        }
    }
}

impl FlowTimeouts {
    pub(crate) fn new(others: Timeouts, of_backends: Box<[Timeouts]>) -> Self {
        let all = || of_backends.iter().copied();
        let bounds = (
            all().fold(others, |least, one| least.zip(one, u32::min)),
            all().fold(others, |most, one| most.zip(one, u32::max)),
        );
        Self { of_backends, others, bounds }
    }

    pub(crate) fn others(&self) -> Timeouts {
        self.others
    }

    /// Idle seconds for `state` at a backend.
    #[inline]
    pub(crate) fn of(&self, backend: u16, state: FlowState) -> u32 {
        self.of_backends.get(usize::from(backend)).unwrap_or(&self.others).of(state)
    }

    /// Whether a flow has been idle for too long. Its backend, which costs a cache line to read, is asked for only if it
    /// matters.
    pub(crate) fn is_expired(&self, state: FlowState, age: u32, backend: impl Fn() -> Option<u16>) -> bool {
        let (shortest, longest) = (self.bounds.0.of(state), self.bounds.1.of(state));
        match age {
            _ if age <= shortest => false,
            _ if age > longest => true,
            // A torn entry has no backend, and counts as expired.
            _ => backend().is_none_or(|backend| age > self.of(backend, state)),
        }
    }
}

#[cfg(test)]
impl Timeouts {
    pub(crate) const EXAMPLE: Self =
        Self { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
}
