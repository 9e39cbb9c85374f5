//! Where a flow is in its life.

use crate::wire::Kind;
use loaded_table::FlowState;

/// Where a flow is after a packet of one of its sides. What lives long needs both sides to have spoken, and the client
/// to have acknowledged after the backend: a spoofed source can send, but must guess when and what the backend answers.
pub(super) fn next_state(state: FlowState, kind: Kind, request: bool) -> FlowState {
    use FlowState as S;
    match (kind, state, request) {
        // Only what was open can turn out to be open still.
        (Kind::Tcp { resets: true, .. }, S::HalfOpen | S::Answered | S::Closing, _) => S::Closing,
        (Kind::Tcp { resets: true, .. }, ..) => S::Reset,
        // Without ACK, FIN or not, it is a SYN or what a backend drops without a reset (RFC 9293 §3.10.7).
        (Kind::Tcp { acknowledges: false, .. }, _, true) => state,
        (Kind::Tcp { .. }, S::HalfOpen, false) => S::Answered,
        (Kind::Tcp { finishes: true, .. }, S::BackendDone, true)
        | (Kind::Tcp { finishes: true, .. }, S::ClientDone, false) => S::Closing,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Answered | S::Reset, true) => S::ClientDone,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Reset, false) => S::BackendDone,
        // Both sides answer what comes after a real reset with another; so what comes last tells.
        (Kind::Tcp { acknowledges: true, .. }, S::Reset, _) => S::Established,
        (Kind::Tcp { acknowledges: true, opens: false, .. }, S::Answered, true) => S::Established,
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Unanswered, false) => S::Replied,
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Replied, true) => S::Datagram,
        _ => state,
    }
}

/// Where a flow is after a packet of its client, when nobody sees what the backend answers (mode "dsr"). An
/// acknowledgement is taken for a sign that there was an answer, but it proves nothing: such a flow lives as long as an
/// open one, and has to go before any that is. The client's FIN may be followed by hours of data to it, but each packet of
/// them is acknowledged, and so keeps even a closing flow alive.
pub(super) fn next_state_one_sided(state: FlowState, kind: Kind) -> FlowState {
    use FlowState as S;
    match (kind, state) {
        (Kind::Tcp { resets: true, .. }, S::HalfOpen | S::Answered | S::Closing) => S::Closing,
        (Kind::Tcp { resets: true, .. }, _) => S::Reset,
        (Kind::Tcp { acknowledges: true, finishes: true, .. }, _) => S::Closing,
        (Kind::Tcp { acknowledges: true, opens: false, .. }, S::HalfOpen | S::Answered | S::Reset) => S::OneSided,
        // Who speaks twice is likely to have been answered.
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Unanswered) => S::Replied,
        _ => state,
    }
}

/// The state of a flow that a packet of the client begins.
pub(super) fn first_state(kind: Kind) -> FlowState {
    match kind {
        Kind::Tcp { finishes: true, .. } | Kind::Tcp { resets: true, .. } => FlowState::Closing,
        Kind::Tcp { .. } => FlowState::HalfOpen,
        Kind::Echo { .. } => FlowState::Echo,
        // SCTP too: its associations outlive a silence by their heartbeats (RFC 9260 §8.3: every 30 s).
        _ => FlowState::Unanswered,
    }
}

/// Whether a client whose packet has brought its flow to this state has heard an answer, as far as can be known.
pub(super) fn is_proof(state: FlowState) -> bool {
    use FlowState as S;
    matches!(state, S::Established | S::Datagram | S::OneSided | S::Replied)
}

/// Whether a flow's connection has ended, so that another may begin on the same ports (RFC 9293 §3.6.1).
pub(super) fn is_over(state: FlowState) -> bool {
    matches!(state, FlowState::Closing | FlowState::Reset)
}
