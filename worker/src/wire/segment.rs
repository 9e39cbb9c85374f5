//! The parts of a TCP segment that decide about its flow.

use etherparse::TcpHeaderSlice;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment. Of sequence numbers it keeps the lower 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSegment {
    /// Source and destination port. Host byte order.
    pub ports: (u16, u16),
    /// The sequence number after this segment: the one that its receiver acknowledges.
    pub end: u16,
    /// The number that this segment acknowledges, if it has an ACK.
    pub acknowledged: u16,
    flags: u8,
}

impl TcpSegment {
    /// The segment with this header, of `length` bytes with it.
    #[inline(always)]
    pub(super) fn new(h: &TcpHeaderSlice<'_>, length: usize) -> Self {
        Self {
            ports: (h.source_port(), h.destination_port()),
            end: segment_end(h, length),
            acknowledged: low_half(h.acknowledgment_number() as usize),
            flags: flags(h),
        }
    }

    /// A segment that was reported: its flags (RFC 9293 §3.1), and its numbers.
    pub(crate) fn reported(ports: (u16, u16), flags: u8, (end, acknowledged): (u32, u32)) -> Self {
        let half = |number: u32| low_half(number as usize);
        Self { ports, end: half(end), acknowledged: half(acknowledged), flags: flags & (FIN | SYN | RST | ACK) }
    }

    /// SYN without ACK: the first packet of a connection.
    #[inline]
    pub fn opens(self) -> bool {
        self.flags & (SYN | ACK) == SYN
    }

    /// SYN with ACK: the answer to the first packet.
    #[inline]
    pub fn accepts(self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }

    /// FIN: this side has no more data to send.
    #[inline]
    pub fn finishes(self) -> bool {
        self.flags & FIN != 0
    }

    /// RST: the connection ends at once.
    #[inline]
    pub fn resets(self) -> bool {
        self.flags & RST != 0
    }

    /// ACK.
    #[inline]
    pub fn acknowledges(self) -> bool {
        self.flags & ACK != 0
    }
}

#[inline(always)]
fn flags(h: &TcpHeaderSlice<'_>) -> u8 {
    // Always there (RFC 9293 §3.1).
    h.slice().get(13).copied().unwrap_or_default()
}

/// The lower half of the sequence number after a segment of `length` bytes, header and data; SYN and FIN take a number each (RFC
/// 9293 §3.4). If the length is wrong, so is the number, which no one will acknowledge.
#[inline(always)]
pub(super) fn segment_end(h: &TcpHeaderSlice<'_>, length: usize) -> u16 {
    let data = low_half(length).wrapping_sub(low_half(h.slice().len()));
    let flags = flags(h);
    let numbers = u16::from(flags & FIN) + u16::from(flags >> 1 & 1);
    low_half(h.sequence_number() as usize).wrapping_add(data).wrapping_add(numbers)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn low_half(number: usize) -> u16 {
    number as u16
}
