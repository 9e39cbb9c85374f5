//! The states of a flow. Which packet leads to which is for the caller to say.

/// Where a flow is in its life. A flow in an *open* state is protected, that is never evicted for a new one, while its
/// client's prefix is within its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// TCP: the client has sent, the backend not yet. May be evicted, after a second before all others.
    HalfOpen = 1,
    /// TCP: established. Open.
    Established = 2,
    /// TCP: FIN both ways. May be evicted.
    Closing = 3,
    /// UDP: the client has sent again after the backend's answer, so it probably hears it. Open.
    Datagram = 4,
    /// ICMP echo. May be evicted.
    Echo = 5,
    /// TCP: the client has sent FIN, the backend not: it may go on sending for hours. Open.
    ClientDone = 6,
    /// TCP: the backend has sent FIN, the client not. Open.
    BackendDone = 7,
    /// TCP: the backend has answered, the client has not acknowledged that yet. May be evicted.
    Answered = 8,
    /// UDP: the client has sent, the backend not yet. May be evicted, after a second before all others.
    Unanswered = 9,
    /// TCP: a RST was seen, and nothing since. May be evicted.
    Reset = 10,
    /// UDP: the backend has answered, the client has not sent since. May be evicted: a spoofed source gets this far.
    Replied = 11,
    /// TCP whose backend's packets do not come this way (mode "dsr"): the client acts as if it were open. May be evicted, after
    /// all others.
    OneSided = 12,
    /// TCP: FIN both ways, the backend's first; it has not acknowledged the client's yet (the client is in LAST-ACK, RFC 9293
    /// §3.3.2). Open.
    LastAck = 13,
    /// Ended by the operator: packets of either side are answered or dropped. May be evicted. A binary that does not know this state
    /// forgets such a flow.
    Ended = 14,
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
            13 => Self::LastAck,
            14 => Self::Ended,
            _ => return None,
        })
    }

    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::HalfOpen,
        Self::Answered,
        Self::Established,
        Self::ClientDone,
        Self::BackendDone,
        Self::LastAck,
        Self::Closing,
        Self::Reset,
        Self::Ended,
        Self::OneSided,
        Self::Unanswered,
        Self::Replied,
        Self::Datagram,
        Self::Echo,
    ];

    /// Its name for operators, one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Datagram => "datagram",
            Self::Echo => "echo",
            Self::ClientDone => "client_done",
            Self::BackendDone => "backend_done",
            Self::Answered => "answered",
            Self::Unanswered => "unanswered",
            Self::Reset => "reset",
            Self::Replied => "replied",
            Self::OneSided => "one_sided",
            Self::LastAck => "last_ack",
            Self::Ended => "ended",
        }
    }

    /// Whether this is an open state: one that protects a flow, unless its client's prefix is over its quota.
    #[inline]
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Established | Self::ClientDone | Self::BackendDone | Self::LastAck | Self::Datagram)
    }
}
