//! How long a flow may be idle.

use crate::state::FlowState;

/// ServiceTimeouts seconds after which a flow is forgotten, by state. A flow idle for exactly this long still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until both sides have spoken, TCP and UDP. Default 30: longer than the 16 s between a client's fourth and fifth
    /// SYN, so its retries meet the same backend. Short because each costs an attacker one packet.
    pub half_open: u32,
    /// Default 7440 = 2 h 4 min, the least RFC 5382 REQ-5 allows: two hours until the first keep-alive, and 4 min. Also
    /// of a connection that one side has closed: the other may be silent as long.
    pub established: u32,
    /// Default 30: a peer's retransmitted FINs (200 ms doubled seven times is 25 s) still find their flow. Less than
    /// the 4 min of RFC 5382, which guards against a NAT giving the port to another; here the client owns it.
    pub closing: u32,
    /// Default 240, the least RFC 5382 REQ-5 allows for what is not open: the reset may be a forged one that both sides
    /// ignore, and their next packet shows it.
    pub reset: u32,
    /// Default 180: RFC 4787 REQ-5 wants 120 or more; 180 is what Linux conntrack gives a UDP stream. As soon as there is an
    /// answer, for another one may be on its way.
    pub datagram: u32,
    /// Default 60, the least RFC 5508 REQ-2 allows.
    pub echo: u32,
}

/// The timeouts of all services.
#[derive(Debug)]
pub(crate) struct ServiceTimeouts {
    /// By index.
    of_services: Box<[Timeouts]>,
    /// Of services without a place there.
    others: Timeouts,
    /// Of each state, the shortest and the longest of all.
    bounds: (Timeouts, Timeouts),
}

impl Timeouts {
    /// ServiceTimeouts seconds for `state`.
    #[inline]
    pub fn of(&self, state: FlowState) -> u32 {
        match state {
            FlowState::HalfOpen | FlowState::Answered | FlowState::Unanswered => self.half_open,
            FlowState::Established | FlowState::ClientDone | FlowState::BackendDone | FlowState::OneSided => {
                self.established
            }
            FlowState::Closing => self.closing,
            FlowState::Reset => self.reset,
            FlowState::Replied | FlowState::Datagram => self.datagram,
            FlowState::Echo => self.echo,
        }
    }

    /// Of each state what `choose` takes of both.
    fn each(self, other: Self, choose: impl Fn(u32, u32) -> u32) -> Self {
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

impl ServiceTimeouts {
    pub(crate) fn new(others: Timeouts, of_services: Box<[Timeouts]>) -> Self {
        let all = || of_services.iter().copied();
        let bounds = (
            all().fold(others, |least, one| least.each(one, u32::min)),
            all().fold(others, |most, one| most.each(one, u32::max)),
        );
        Self { of_services, others, bounds }
    }

    pub(crate) fn others(&self) -> Timeouts {
        self.others
    }

    /// ServiceTimeouts seconds for `state` in a service.
    #[inline]
    pub(crate) fn of(&self, service: u16, state: FlowState) -> u32 {
        self.of_services.get(usize::from(service)).unwrap_or(&self.others).of(state)
    }

    /// Whether a flow has been idle for too long. Its service, which costs a cache line, is asked for only where services
    /// differ about it.
    pub(crate) fn is_over(&self, state: FlowState, age: u32, service: impl Fn() -> Option<u16>) -> bool {
        let (shortest, longest) = (self.bounds.0.of(state), self.bounds.1.of(state));
        match age {
            _ if age <= shortest => false,
            _ if age > longest => true,
            // What is torn is over.
            _ => service().is_none_or(|service| age > self.of(service, state)),
        }
    }
}

#[cfg(test)]
impl Timeouts {
    pub(crate) const EXAMPLE: Self =
        Self { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
}
