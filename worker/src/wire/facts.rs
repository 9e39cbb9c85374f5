//! What the kernel knows of a packet besides its bytes, as plain data: whoever receives packets fills it in.

/// What the kernel says about one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketFacts {
    /// The packet was cut short, because it was too long to be handed over whole. Its bytes must never be sent.
    pub cut: bool,
    /// What its transport checksum field holds.
    pub checksum: ChecksumState,
}

/// What the transport checksum field holds, as the kernel says (`NFQA_SKB_INFO`). A packet with new bytes becomes
/// `CHECKSUM_NONE`: the kernel sends the field as it finds it, except that it makes the checksum of each segment of a
/// GSO packet itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumState {
    /// A complete checksum.
    Complete,
    /// The sum of the pseudo header, in a packet that leaves in one piece: the checksum must be computed.
    Partial,
    /// The sum of the pseudo header, in a GSO packet: it stays a sum.
    PartialGso,
}

impl PacketFacts {
    /// The facts of a packet that is complete, and so is its checksum.
    pub const WHOLE: Self = Self { cut: false, checksum: ChecksumState::Complete };
}

impl ChecksumState {
    /// `partial`: the kernel has left the checksum to the network card. `gso`: the packet is to be cut into segments on its
    /// way out.
    #[must_use]
    #[inline]
    pub fn new(partial: bool, gso: bool) -> Self {
        match (partial, gso) {
            (false, _) => Self::Complete,
            (true, false) => Self::Partial,
            (true, true) => Self::PartialGso,
        }
    }
}
