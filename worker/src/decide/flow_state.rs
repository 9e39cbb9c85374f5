//! The state machine of a flow: which state follows a packet. What the states mean is said at [`FlowState`].

use crate::wire::Kind;
use loaded_table::FlowState;

/// The state after a packet of either side. A state that lives long takes packets of both sides, and an acknowledgement of
/// the client after the backend's first packet: a spoofed source can send, but would have to guess what the backend answers
/// and when.
pub(super) fn next_state(state: FlowState, kind: Kind, request: bool) -> FlowState {
    use FlowState as S;
    match (kind, state, request) {
        // A RST ends a half-open or closing flow: the state is Closing. Only an open flow goes to Reset, because the RST may
        // be forged and the next packet would show that.
        (Kind::Tcp { resets: true, .. }, S::HalfOpen | S::Answered | S::Closing, _) => S::Closing,
        (Kind::Tcp { resets: true, .. }, ..) => S::Reset,
        // Without ACK it is a SYN, or a segment that a backend drops silently (RFC 9293 §3.10.7).
        (Kind::Tcp { acknowledges: false, .. }, _, true) => state,
        (Kind::Tcp { .. }, S::HalfOpen, false) => S::Answered,
        (Kind::Tcp { finishes: true, .. }, S::BackendDone, true)
        | (Kind::Tcp { finishes: true, .. }, S::ClientDone, false) => S::Closing,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Answered | S::Reset, true) => S::ClientDone,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Reset, false) => S::BackendDone,
        // After a real reset each side answers whatever comes with another reset. So a packet that is none and comes last shows
        // that the connection is still open.
        (Kind::Tcp { acknowledges: true, .. }, S::Reset, _) => S::Established,
        (Kind::Tcp { acknowledges: true, opens: false, .. }, S::Answered, true) => S::Established,
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Unanswered, false) => S::Replied,
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Replied, true) => S::Datagram,
        _ => state,
    }
}

/// The state after a packet of the client, where the backend's answers do not come this way (mode "dsr"). An
/// acknowledgement is taken as a sign that there was an answer, but proves nothing: such a flow lives as long as an open
/// one, but is evicted before any that is. After the client's FIN the backend may send for hours, but the client
/// acknowledges each packet, which keeps even a closing flow alive.
pub(super) fn next_state_one_sided(state: FlowState, kind: Kind) -> FlowState {
    use FlowState as S;
    match (kind, state) {
        (Kind::Tcp { resets: true, .. }, S::HalfOpen | S::Answered | S::Closing) => S::Closing,
        (Kind::Tcp { resets: true, .. }, _) => S::Reset,
        (Kind::Tcp { acknowledges: true, finishes: true, .. }, _) => S::Closing,
        (Kind::Tcp { acknowledges: true, opens: false, .. }, S::HalfOpen | S::Answered | S::Reset) => S::OneSided,
        // A client that sends twice has probably been answered.
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Unanswered) => S::Replied,
        _ => state,
    }
}

/// The state of a flow that begins with this packet of a client.
pub(super) fn first_state(kind: Kind) -> FlowState {
    match kind {
        Kind::Tcp { finishes: true, .. } | Kind::Tcp { resets: true, .. } => FlowState::Closing,
        Kind::Tcp { .. } => FlowState::HalfOpen,
        Kind::Echo { .. } => FlowState::Echo,
        // SCTP too: heartbeats keep an idle association's flow alive (RFC 9260 §8.3: every 30 s).
        _ => FlowState::Unanswered,
    }
}

/// Whether a packet that brought a flow to this state shows, as far as can be known, that the client hears the backend.
pub(super) fn is_proof(state: FlowState) -> bool {
    use FlowState as S;
    matches!(state, S::Established | S::Datagram | S::OneSided | S::Replied)
}

/// Whether the connection has ended, so that another may begin on the same ports (RFC 9293 §3.6.1).
pub(super) fn is_over(state: FlowState) -> bool {
    matches!(state, FlowState::Closing | FlowState::Reset)
}
