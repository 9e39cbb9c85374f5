//! The state machine of a flow: which state follows a packet, and which number proves one. What the states mean is said at
//! [`FlowState`].

use crate::wire::{Kind, TcpSegment, low_half, upper_half};
use loaded_table::FlowState;

/// Which side sent a packet, and what the packet proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The client, or somebody who forges its address. `proven`: the number that [`claim`] finds in the packet equals
    /// the one that is kept.
    Client { proven: bool },
    /// The backend. `proven`: likewise; then the backend has received what the client sent.
    Backend { proven: bool },
}

/// The number in a packet that can prove that its sender receives what the other side sends. `None`: nothing depends on
/// that.
#[inline]
pub(super) fn claim(state: FlowState, kind: Kind, by_client: bool) -> Option<u16> {
    use FlowState as S;
    let Kind::Tcp(segment) = kind else { return None };
    if !by_client {
        // If the backend acknowledges this FIN, the FIN came from the client.
        return (state == S::LastAck && segment.acknowledges()).then_some(low_half(segment.acknowledged));
    }
    let comes_at = || low_half(segment.end.wrapping_sub(u32::from(segment.finishes())));
    match state {
        // It acknowledges what the backend sent, give or take what is on its way: one of 65,536 blocks of 65,536 numbers.
        S::Answered if segment.acknowledges() => Some(upper_half(segment.acknowledged)),
        // Its sequence number is the one that the backend expects: a RST with any other ends nothing there (RFC 5961
        // §3).
        S::HalfOpen | S::Established | S::ClientDone | S::BackendDone if segment.resets() => Some(comes_at()),
        S::Reset => Some(comes_at()),
        _ => None,
    }
}

/// The number to keep after a packet that leads from one state to another: the one that [`claim`], or a refusal, must
/// show next. `None`: the one that is kept stays. `is_new_second`: the flow was not seen in this second before.
///
/// While a flow is answered, the backend's first segment of each second counts. In the middle of a fast download the
/// client never acknowledges what came last, but it does acknowledge this one before the next, if a round trip takes
/// less than a second.
#[inline]
pub(super) fn proof_after(
    (before, next): (FlowState, FlowState),
    kind: Kind,
    sender: Sender,
    is_new_second: bool,
) -> Option<u16> {
    use FlowState as S;
    let Kind::Tcp(segment) = kind else { return None };
    match sender {
        Sender::Backend { .. } if segment.resets() || !segment.acknowledges() => None,
        Sender::Backend { .. } => match next {
            S::Answered if before != S::Answered || segment.accepts() || is_new_second => Some(upper_half(segment.end)),
            S::Established | S::ClientDone | S::BackendDone => Some(low_half(segment.acknowledged)),
            _ => None,
        },
        Sender::Client { .. } => match next {
            // A refusal acknowledges the SYN.
            S::HalfOpen if segment.opens() => Some(low_half(segment.end)),
            // The backend has not acknowledged this packet yet, but will.
            S::LastAck if segment.finishes() => Some(low_half(segment.end)),
            S::Established | S::ClientDone if before == S::Answered => Some(low_half(segment.end)),
            _ => None,
        },
    }
}

/// The state after a packet of either side. A state that lives long takes packets of both sides, and the client must
/// acknowledge what the backend has sent: whoever forges the client's address can send, but must guess one number of
/// 65,536. The same holds for ending a connection in the client's name.
pub(super) fn next_state(state: FlowState, kind: Kind, sender: Sender) -> FlowState {
    match kind {
        Kind::Tcp(segment) => after_segment(state, segment, sender),
        Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other => match (state, sender) {
            (FlowState::Unanswered, Sender::Backend { .. }) => FlowState::Replied,
            (FlowState::Replied, Sender::Client { .. }) => FlowState::Datagram,
            _ => state,
        },
        _ => state,
    }
}

#[inline]
fn after_segment(state: FlowState, segment: TcpSegment, sender: Sender) -> FlowState {
    match sender {
        Sender::Client { proven: false } if segment.resets() => state,
        // A backend that waits for the client's acknowledgement answers a wrong one with such a RST, and keeps waiting
        // (RFC 9293 §3.10.7.4; net/ipv4/tcp_minisocks.c, tcp_check_req). The RST of a refusal acknowledges the SYN.
        Sender::Backend { .. } if segment.resets() && !segment.acknowledges() && state == FlowState::Answered => state,
        _ if segment.resets() => after_reset(state),
        // Without ACK it is a SYN, or a segment that its receiver drops silently (RFC 9293 §3.10.7).
        _ if !segment.acknowledges() => state,
        Sender::Backend { proven } => after_backend(state, segment, proven),
        Sender::Client { proven } => after_client(state, segment.finishes(), proven),
    }
}

/// After a RST that is believed.
fn after_reset(state: FlowState) -> FlowState {
    use FlowState as S;
    match state {
        // What was never open, or is closing, cannot turn out to be open after all.
        S::HalfOpen | S::Answered | S::Closing => S::Closing,
        S::Ended => S::Ended,
        _ => S::Reset,
    }
}

/// After any other segment of the backend.
fn after_backend(state: FlowState, segment: TcpSegment, proven: bool) -> FlowState {
    use FlowState as S;
    let finishes = segment.finishes();
    match state {
        S::HalfOpen => S::Answered,
        // It accepts another connection on the ports of one that it no longer has. Or it repeats its first answer, and
        // the client will repeat its acknowledgement.
        S::Established | S::ClientDone | S::BackendDone | S::LastAck | S::Reset if segment.accepts() => S::Answered,
        S::ClientDone if finishes => S::Closing,
        S::LastAck if proven => S::Closing,
        S::Established | S::Reset if finishes => S::BackendDone,
        // After a real reset each side answers every packet with another reset. So a later packet that is not a reset
        // shows that the connection is still open.
        S::Reset => S::Established,
        _ => state,
    }
}

/// After any other segment of the client that acknowledges something.
fn after_client(state: FlowState, finishes: bool, proven: bool) -> FlowState {
    use FlowState as S;
    match state {
        S::Established if finishes => S::ClientDone,
        S::BackendDone if finishes => S::LastAck,
        S::Answered | S::Reset if proven && finishes => S::ClientDone,
        S::Answered | S::Reset if proven => S::Established,
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
        (Kind::Tcp(segment), _) if segment.resets() => after_reset(state),
        // Another connection on the ports of one that is over, at the same backend.
        (Kind::Tcp(segment), S::Closing | S::Reset) if segment.opens() => S::HalfOpen,
        (Kind::Tcp(segment), _) if segment.acknowledges() && segment.finishes() => S::Closing,
        (Kind::Tcp(segment), S::HalfOpen | S::Answered | S::Reset) if segment.acknowledges() => S::OneSided,
        // A client that sends twice has probably been answered.
        (Kind::Udp { .. } | Kind::Sctp { .. } | Kind::Other, S::Unanswered) => S::Replied,
        _ => state,
    }
}

/// The state of a flow that begins with this packet of a client.
pub(super) fn first_state(kind: Kind) -> FlowState {
    match kind {
        Kind::Tcp(segment) if segment.finishes() || segment.resets() => FlowState::Closing,
        Kind::Tcp(_) => FlowState::HalfOpen,
        Kind::Echo { .. } => FlowState::Echo,
        // SCTP too: heartbeats keep an idle association's flow alive (RFC 9260 §8.3: every 30 s).
        _ => FlowState::Unanswered,
    }
}

/// Whether a packet that brought a flow to this state shows, as far as can be known, that the client receives what the
/// backend sends.
pub(super) fn is_proof(state: FlowState) -> bool {
    use FlowState as S;
    matches!(state, S::Established | S::Datagram | S::OneSided | S::Replied)
}

/// Whether a packet that leaves this state as it is keeps the flow alive. Only its backend's packets keep an open
/// connection alive: the backend acknowledges whatever an honest client sends, while anyone can send in the client's
/// name for ever.
#[inline]
pub(super) fn keeps_alive(state: FlowState, sender: Sender) -> bool {
    use FlowState as S;
    let lives_by_backend = matches!(state, S::Answered | S::Established | S::ClientDone | S::BackendDone | S::LastAck);
    !lives_by_backend || matches!(sender, Sender::Backend { .. })
}

/// Whether the backend, or the operator, has ended the connection, so that another may begin on the same ports (RFC 9293 §3.6.1).
pub(super) fn is_over(state: FlowState) -> bool {
    matches!(state, FlowState::Closing | FlowState::Reset | FlowState::Ended)
}
