//! The states of a flow.

/// Where a flow is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// TCP: the client has sent, the backend not yet. May be evicted, soon first of all.
    HalfOpen = 1,
    /// TCP: open. Protected.
    Established = 2,
    /// TCP: FIN both ways. May be evicted.
    Closing = 3,
    /// UDP: the client has spoken after the backend, as who hears nothing hardly does. Protected.
    Datagram = 4,
    /// ICMP echo. May be evicted.
    Echo = 5,
    /// TCP: the client has sent FIN, the backend not: it may send for hours yet. Protected.
    ClientDone = 6,
    /// TCP: the backend has sent FIN, the client not. Protected.
    BackendDone = 7,
    /// TCP: the backend has answered, the client not yet acknowledged. May be evicted.
    Answered = 8,
    /// UDP: the client has sent, the backend not yet. May be evicted, soon first of all.
    Unanswered = 9,
    /// TCP: RST seen, and nothing since. May be evicted.
    Reset = 10,
    /// UDP: the backend has answered, the client not spoken since. May be evicted: a spoofed source gets as far.
    Replied = 11,
    /// TCP whose backend nobody hears (mode "dsr"): the client says that it is open. May be evicted, after all others.
    OneSided = 12,
}

impl FlowState {
    /// The state of this number.
    #[inline]
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::HalfOpen,
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::Datagram,
            5 => Self::Echo,
            6 => Self::ClientDone,
            7 => Self::BackendDone,
            8 => Self::Answered,
            9 => Self::Unanswered,
            10 => Self::Reset,
            11 => Self::Replied,
            12 => Self::OneSided,
            _ => return None,
        })
    }

    /// Whether a flow in this state is protected: not given up for a new one, but where its client's prefix has more than
    /// its share.
    #[inline]
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Established | Self::ClientDone | Self::BackendDone | Self::Datagram)
    }
}
