//! The parts of a TCP segment that decide about its flow.

use etherparse::TcpHeaderSlice;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSegment {
    /// Source and destination port. Host byte order.
    pub ports: (u16, u16),
    /// The sequence number after this segment: the one that its receiver acknowledges.
    pub end: u32,
    /// The number that this segment acknowledges, if it has an ACK.
    pub acknowledged: u32,
    flags: u8,
}

impl TcpSegment {
    /// The segment with this header, of `length` bytes with it.
    #[inline(always)]
    pub(super) fn new(h: &TcpHeaderSlice<'_>, length: usize) -> Self {
        Self {
            ports: (h.source_port(), h.destination_port()),
            end: segment_end(h, length),
            acknowledged: h.acknowledgment_number(),
            flags: flags(h),
        }
    }

    /// A segment that was reported: its flags (RFC 9293 §3.1), and its numbers.
    pub(crate) fn reported(ports: (u16, u16), flags: u8, (end, acknowledged): (u32, u32)) -> Self {
        Self { ports, end, acknowledged, flags: flags & (FIN | SYN | RST | ACK) }
    }

    /// The same with these source and destination ports.
    pub(crate) fn with_ports(self, ports: (u16, u16)) -> Self {
        Self { ports, ..self }
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

/// The sequence number after a segment of `length` bytes, header and data; SYN and FIN take a number each (RFC 9293 §3.4). If the
/// length is wrong, so is the number, which no one will acknowledge.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
pub(super) fn segment_end(h: &TcpHeaderSlice<'_>, length: usize) -> u32 {
    let data = length.wrapping_sub(h.slice().len()) as u32;
    let flags = flags(h);
    let numbers = u32::from(flags & FIN) + u32::from(flags >> 1 & 1);
    h.sequence_number().wrapping_add(data).wrapping_add(numbers)
}

/// The lower half of a sequence number.
#[must_use]
#[inline]
pub fn low_half(number: u32) -> u16 {
    (number & 0xffff) as u16
}

/// The upper half: the same for 65,536 numbers in a row.
#[must_use]
#[inline]
pub fn upper_half(number: u32) -> u16 {
    (number >> 16) as u16
}
