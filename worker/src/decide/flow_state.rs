//! The state machine of a flow: which state follows a packet. What the states mean is said at [`FlowState`].

use crate::wire::Kind;
use loaded_table::FlowState;

/// Who has sent a packet, and what that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The client, or somebody in its name. `proven`: it acknowledges the end of what the backend sent last, which only who hears
    /// the backend knows. To be asked for where [`needs_proof`] says so, else `false`.
    Client { proven: bool },
    /// The backend.
    Backend,
}

/// Whether in this state the client is believed only with proof. Until it leaves the state, the end of the backend's latest
/// packet is kept with the flow.
#[inline]
pub(super) fn needs_proof(state: FlowState) -> bool {
    matches!(state, FlowState::Answered | FlowState::Reset | FlowState::ResetByClient)
}

/// The state after a packet of either side. A state that lives long takes packets of both sides, and that the client
/// acknowledges what the backend has sent: a spoofed source can send, but has to guess one number of 65,536.
pub(super) fn next_state(state: FlowState, kind: Kind, sender: Sender) -> FlowState {
    match (kind, sender) {
        (Kind::Tcp { resets: true, .. }, Sender::Backend) => after_backends_reset(state),
        (Kind::Tcp { resets: true, .. }, Sender::Client { .. }) => after_clients_reset(state),
        // Without ACK it is a SYN, or a segment that its receiver drops silently (RFC 9293 §3.10.7).
        (Kind::Tcp { acknowledges: false, .. }, _) => state,
        (Kind::Tcp { finishes, accepts, .. }, Sender::Backend) => after_backend(state, finishes, accepts),
        (Kind::Tcp { finishes, .. }, Sender::Client { proven }) => after_client(state, finishes, proven),
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, _) => match (state, sender) {
            (FlowState::Unanswered, Sender::Backend) => FlowState::Replied,
            (FlowState::Replied, Sender::Client { .. }) => FlowState::Datagram,
            _ => state,
        },
        _ => state,
    }
}

/// After a RST of the backend, which ends what is open.
fn after_backends_reset(state: FlowState) -> FlowState {
    use FlowState as S;
    match state {
        // What was never open, or is closing, cannot turn out to be still open.
        S::HalfOpen | S::Answered | S::Closing => S::Closing,
        _ => S::Reset,
    }
}

/// After a RST in the client's name. Whether the backend takes it for one is not known here: it does so only with the very
/// number that it waits for (RFC 5961 §3). So the flow stays at its backend and goes only after all others, but does not live as
/// long. Before it is open it stays what it is: it does not live long, and is among the first to go.
fn after_clients_reset(state: FlowState) -> FlowState {
    use FlowState as S;
    match state {
        S::Established | S::ClientDone => S::ResetByClient,
        // The backend has ended its half.
        S::BackendDone => S::Reset,
        _ => state,
    }
}

/// After any other segment of the backend.
fn after_backend(state: FlowState, finishes: bool, accepts: bool) -> FlowState {
    use FlowState as S;
    match state {
        S::HalfOpen => S::Answered,
        // It accepts another connection on the ports of one that it does not have any more.
        S::ClientDone | S::BackendDone | S::ResetByClient if accepts => S::Answered,
        S::ClientDone if finishes => S::Closing,
        S::Established | S::Reset | S::ResetByClient if finishes => S::BackendDone,
        // After a real reset each side answers whatever comes with another reset. So a packet that is none and comes last shows
        // that the connection is still open.
        S::Reset | S::ResetByClient => S::Established,
        _ => state,
    }
}

/// After an acknowledgement of the client.
fn after_client(state: FlowState, finishes: bool, proven: bool) -> FlowState {
    use FlowState as S;
    match state {
        S::Established if finishes => S::ClientDone,
        S::BackendDone if finishes => S::Closing,
        _ if !(proven && needs_proof(state)) => state,
        _ if finishes => S::ClientDone,
        _ => S::Established,
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
        // Another connection on the ports of one that is over, at the same backend.
        (Kind::Tcp { opens: true, .. }, S::Closing | S::Reset) => S::HalfOpen,
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

/// Whether the backend has ended the connection, so that another may begin on the same ports (RFC 9293 §3.6.1).
pub(super) fn is_over(state: FlowState) -> bool {
    matches!(state, FlowState::Closing | FlowState::Reset)
}
