//! Whether the program would send a client's next packet on: what `forward` in `bpf/fast.bpf.c` asks of a flow, in its order, for an
//! operator who wants to know beforehand. Pure.

use crate::records::Fresh;
use crate::shared::Miss;
use loaded_table::FlowState;

/// A client's packet to a virtual IP. Its headers are ordinary: no options, no fragment, hops to go, not too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A SYN.
    Syn,
    /// A TCP segment with ACK and no other flag.
    Ack,
    /// A UDP datagram.
    Datagram,
    /// Any other protocol.
    Other,
}

/// The flow that it belongs to, as its worker's table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowNow {
    /// Its state.
    pub state: FlowState,
    /// Seconds since its worker has seen it.
    pub unseen: u32,
    /// How long flows of its backend go on unseen; `None`: the program does not know the backend.
    pub fresh: Option<Fresh>,
    /// Replies of its backend take another way (mode "dsr").
    pub direct: bool,
    /// The worker keeps flows of its backend.
    pub is_kept: bool,
}

/// What becomes of a packet that the program sends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It tells its worker nothing new.
    Silently,
    /// It may move the flow's state: its worker gets a report.
    WithReport,
}

/// Whether the packet is sent on, or why not.
///
/// # Errors
/// Why it goes on to the rules and the queue.
pub fn foretell(next: Next, flow: Option<FlowNow>) -> Result<Sent, Miss> {
    match next {
        Next::Other => return Err(Miss::Unread),
        Next::Syn => return Err(Miss::Opens),
        Next::Ack | Next::Datagram => {}
    }
    let FlowNow { state, unseen, fresh, direct, is_kept } = flow.ok_or(Miss::NoFlow)?;
    let fresh = fresh.ok_or(Miss::Backend)?;
    let sent = if direct { weigh_one_sided(next, state) } else { weigh(next, state) }.ok_or(Miss::Unusual)?;
    if unseen > fresh.of_state(state) {
        return Err(Miss::Stale);
    }
    if is_kept { Ok(sent) } else { Err(Miss::NotKept) }
}

/// `weigh_one_sided` in the program; `None`: the worker has to see it.
fn weigh_one_sided(next: Next, state: FlowState) -> Option<Sent> {
    use FlowState as S;
    match (next, state) {
        (Next::Datagram, S::Replied) | (Next::Ack, S::OneSided) => Some(Sent::Silently),
        (Next::Datagram, S::Unanswered) | (Next::Ack, S::HalfOpen | S::Closing) => Some(Sent::WithReport),
        _ => None,
    }
}

/// `weigh` in the program; `None`: the worker has to see it.
fn weigh(next: Next, state: FlowState) -> Option<Sent> {
    use FlowState as S;
    match (next, state) {
        (Next::Datagram, S::Datagram) => Some(Sent::Silently),
        (Next::Datagram, S::Unanswered | S::Replied) => Some(Sent::WithReport),
        (Next::Ack, S::Established | S::ClientDone | S::BackendDone) => Some(Sent::Silently),
        (Next::Ack, S::LastAck | S::HalfOpen | S::Answered | S::Closing) => Some(Sent::WithReport),
        _ => None,
    }
}
