//! A plain reader of packets and their checksums, word by word from the RFCs, that knows nothing of the one under test.

use std::ops::Range;

/// As far as a packet can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// IPv4, else IPv6.
    pub v4: bool,
    /// Bytes of the IP header without extensions.
    pub header: usize,
    /// The protocol behind the extension headers.
    pub protocol: u8,
    /// Where it begins.
    pub at: usize,
    /// Extension headers before it.
    pub extensions: usize,
    /// A piece of a datagram, the first or a later one.
    pub piece: bool,
    /// A piece that does not begin with the protocol's header.
    pub later: bool,
}

/// Reads as many extension headers as there are (RFC 8200 §4, RFC 4302 §2.2). `None` if a header is not whole.
pub fn walk(bytes: &[u8]) -> Option<Walked> {
    match bytes.first()? >> 4 {
        4 => {
            let header = usize::from(bytes[0] & 15) * 4;
            if header < 20 || bytes.len() < header {
                return None;
            }
            let field = word(bytes, 6)?;
            let (piece, later) = (field & 0x3fff != 0, field & 0x1fff != 0);
            Some(Walked { v4: true, header, protocol: bytes[9], at: header, extensions: 0, piece, later })
        }
        6 if bytes.len() >= 40 => {
            let (mut protocol, mut at, mut extensions) = (bytes[6], 40, 0);
            let walked = |protocol, at, extensions, piece, later| Walked {
                v4: false,
                header: 40,
                protocol,
                at,
                extensions,
                piece,
                later,
            };
            loop {
                let length = match protocol {
                    0 | 43 | 60 => 8 + usize::from(*bytes.get(at + 1)?) * 8,
                    44 => 8,
                    51 => 8 + usize::from(*bytes.get(at + 1)?) * 4,
                    _ => return Some(walked(protocol, at, extensions, false, false)),
                };
                let whole = bytes.get(at..at + length)?;
                let (is_fragment, next) = (protocol == 44, whole[0]);
                (protocol, at, extensions) = (next, at + length, extensions + 1);
                if is_fragment && word(whole, 2)? & 0xfff9 != 0 {
                    return Some(walked(protocol, at, extensions, true, word(whole, 2)? & 0xfff8 != 0));
                }
            }
        }
        _ => None,
    }
}

impl Walked {
    /// Where the two addresses are, one behind the other.
    pub fn addresses(&self) -> Range<usize> {
        if self.v4 { 12..20 } else { 8..40 }
    }

    /// Where the checksum of the upper layer is, if there is one that we know.
    pub fn checksum(&self) -> Option<usize> {
        let offset = match (self.protocol, self.v4) {
            _ if self.later => return None,
            (6, _) => 16,
            (17, _) => 6,
            (1, true) | (58, false) => 2,
            _ => return None,
        };
        Some(self.at + offset)
    }

    /// Where the ports are, if the protocol has any here.
    pub fn ports(&self) -> Option<Range<usize>> {
        (matches!(self.protocol, 6 | 17 | 132) && !self.later).then(|| self.at..self.at + 4)
    }

    /// Where the CRC of SCTP is (RFC 9260 §3.1).
    pub fn crc(&self) -> Option<Range<usize>> {
        (self.protocol == 132 && !self.later).then(|| self.at + 8..self.at + 12)
    }

    /// The CRC of the whole SCTP packet, as its sender makes it: bit by bit, with the field taken as 0 (RFC 9260 Appendix A).
    pub fn made_crc(&self, bytes: &[u8]) -> Option<u32> {
        let field = self.crc()?;
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        let taken = |at: usize| if field.contains(&at) { 0 } else { u32::from(bytes[at]) };
        Some(!(self.at..bytes.len()).fold(u32::MAX, |crc, at| (0..8).fold(crc ^ taken(at), |crc, _| step(crc))))
    }

    /// What its field says.
    pub fn stated_crc(&self, bytes: &[u8]) -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(self.crc()?)?.try_into().ok()?))
    }

    /// What the checksum covers beside the pseudo header. Of UDP its own length counts (RFC 768).
    pub fn covered<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let rest = bytes.get(self.at..).unwrap_or(&[]);
        match word(rest, 4) {
            Some(length) if self.protocol == 17 => rest.get(..usize::from(length)).unwrap_or(rest),
            _ => rest,
        }
    }

    /// The sum of the pseudo header; 0 of ICMP, which has none.
    pub fn pseudo(&self, bytes: &[u8]) -> u16 {
        if self.protocol == 1 {
            return 0;
        }
        let length = u16::try_from(self.covered(bytes).len()).unwrap_or(u16::MAX);
        plain(&[&bytes[self.addresses()], &[0, self.protocol], &length.to_be_bytes()])
    }

    /// The sum of all that the upper layer's checksum covers and of the checksum: -0 if it is right. `None` where there
    /// is none, UDP says that there is none (over IPv6 it must not: RFC 8200 §8.1), or its length does not even cover it.
    pub fn upper(&self, bytes: &[u8]) -> Option<u16> {
        let at = self.checksum()?;
        let field = word(bytes, at)?;
        if self.at + self.covered(bytes).len() < at + 2 {
            return None;
        }
        if self.protocol == 17 && field == 0 {
            return None;
        }
        Some(plain(&[&self.pseudo(bytes).to_be_bytes(), self.covered(bytes)]))
    }

    /// The same of the IP header.
    pub fn outer(&self, bytes: &[u8]) -> u16 {
        if self.v4 { plain(&[&bytes[..self.header]]) } else { 0xffff }
    }

    /// Makes the checksum of the IP header from scratch.
    pub fn finish_header(&self, bytes: &mut [u8]) {
        if self.v4 {
            put(bytes, 10, 0);
            let made = !plain(&[&bytes[..self.header]]);
            put(bytes, 10, made);
        }
    }

    /// Makes every checksum from scratch, as its sender does. "No checksum" stays so.
    pub fn finish(&self, bytes: &mut [u8]) {
        self.finish_header(bytes);
        if let Some(at) = self.checksum()
            && self.upper(bytes).is_some()
        {
            put(bytes, at, 0);
            let made = !plain(&[&self.pseudo(bytes).to_be_bytes(), self.covered(bytes)]);
            put(bytes, at, if self.protocol == 17 && made == 0 { 0xffff } else { made });
        }
        if let (Some(field), Some(made), false) = (self.crc(), self.made_crc(bytes), self.piece)
            && let Some(place) = bytes.get_mut(field)
        {
            place.copy_from_slice(&made.to_le_bytes());
        }
    }
}

/// Whether every checksum of a packet is right, as far as there are any. Of a piece of a datagram the IP header's counts.
pub fn sound(bytes: &[u8]) -> bool {
    walk(bytes).is_some_and(|packet| {
        packet.outer(bytes) == 0xffff
            && (packet.piece
                || packet.upper(bytes).is_none_or(|sum| sum == 0xffff)
                    && packet.stated_crc(bytes).is_none_or(|stated| Some(stated) == packet.made_crc(bytes)))
    })
}

/// Sums of 0 are one number in ones' complement.
pub fn same(one: u16, two: u16) -> bool {
    one == two || one.min(two) == 0 && one.max(two) == 0xffff
}

/// The sum of RFC 1071, one 16-bit word after the other.
pub fn plain(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u64::from(*byte));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

/// A word in network byte order.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Writes one, where there is room.
pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
