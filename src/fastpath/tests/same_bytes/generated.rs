//! Packets of every shape, most of them of flows in the table.

use crate::packets::{self, ACK, FIN, RST, SYN, TCP, UDP, put};
use crate::world::{DIRECT, DIRECT_VIPS, at};

/// Where decisions come from.
#[derive(Debug, Clone)]
pub(crate) enum Random {
    /// A small generator of random numbers (Marsaglia 2003, xorshift64).
    Seeded(u64),
    /// A fuzzer: two bytes for each, and zeros at their end.
    Given(std::vec::IntoIter<u8>),
}

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
            }
            Self::Given(bytes) => bytes.by_ref().take(2).fold(0, |sum, byte| sum << 8 | u64::from(byte)),
        }
    }

    /// Whether a fuzzer has no more to say.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Given(bytes) if bytes.len() == 0)
    }

    /// 0..n
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        // Many, by one decision.
        let mut more = Self::Seeded(self.next() | 1);
        (0..n).map(|_| more.next() as u8).collect()
    }
}

/// A flow that was begun, whatever has become of it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) protocol: u8,
    pub(crate) client: (String, u16),
    pub(crate) vip: (&'static str, u16),
    pub(crate) backend: String,
}

/// A packet, and whether it comes from the backend.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) bytes: Vec<u8>,
    pub(crate) reply: bool,
}

const FLAGS: [u8; 20] = [
    ACK,
    ACK,
    ACK,
    ACK,
    ACK,
    ACK,
    ACK | 8,
    ACK | 8,
    ACK | 8,
    ACK | 8,
    SYN,
    SYN | ACK,
    FIN | ACK,
    FIN | ACK,
    RST,
    RST | ACK,
    0,
    FIN,
    ACK | 0x20,
    0xff,
];

/// A packet of this flow, or something near it.
pub(crate) fn make(random: &mut Random, flow: &Known) -> Made {
    let reply = random.one_in(2);
    let backend = match DIRECT_VIPS.iter().position(|vip| *vip == flow.vip.0) {
        // Its answers keep the virtual IP and do not come here; what comes here in its own name is no answer.
        Some(side) => (DIRECT[2 * side + random.below(2)], flow.vip.1),
        None => at(&flow.backend, flow.vip.1),
    };
    let client = (flow.client.0.as_str(), flow.client.1);
    let (from, to) = if reply { (backend, client) } else { (client, flow.vip) };
    let mut upper = if flow.protocol == TCP { tcp_upper(random) } else { udp_upper(random) };
    put(&mut upper, 0, from.1);
    put(&mut upper, 2, to.1);
    let mut bytes = packets::ip(from.0, to.0, flow.protocol, upper);
    let header = if bytes[0] >> 4 == 4 { 20 } else { 40 };
    let field = header + if flow.protocol == TCP { 16 } else { 6 };
    // The program does not look at it: any sum is changed alike.
    match random.below(8) {
        0 => put(&mut bytes, field, random.next() as u16),
        1 => {
            put(&mut bytes, field, *random.pick(&[0, 0xffff, 1, 0xfffe]));
        }
        _ => {}
    }
    if header == 20 {
        change_v4(random, &mut bytes);
    } else {
        change_v6(random, &mut bytes);
    }
    if random.one_in(20) {
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
    }
    if random.one_in(100) {
        bytes.truncate(random.below(bytes.len()).max(20));
    } else if random.one_in(100) {
        let n = 1 + random.below(40);
        bytes.extend(random.bytes(n));
    }
    Made { bytes, reply }
}

fn tcp_upper(random: &mut Random) -> Vec<u8> {
    let options = if random.one_in(2) { 3 } else { random.below(11) };
    let payload = *random.pick(&[0, 0, 1, 9, 500, 1400]);
    let mut upper = random.bytes(20 + options * 4 + payload);
    upper[12] = (5 + options as u8) << 4 | upper[12] & 15;
    upper[13] = if random.one_in(20) { random.next() as u8 } else { *random.pick(&FLAGS) };
    if random.one_in(50) {
        upper[12] = random.next() as u8;
    }
    upper
}

fn udp_upper(random: &mut Random) -> Vec<u8> {
    let payload = *random.pick(&[0, 1, 12, 13, 700, 1400]);
    let mut upper = random.bytes(8 + payload);
    put(&mut upper, 4, 8 + payload as u16);
    if random.one_in(20) {
        put(&mut upper, 4, random.below(1500) as u16);
    }
    upper
}

fn change_v4(random: &mut Random, bytes: &mut Vec<u8>) {
    bytes[1] = if random.one_in(4) { random.next() as u8 } else { 0 };
    put(bytes, 4, random.next() as u16);
    bytes[6] = if random.one_in(2) { 0x40 } else { 0 };
    bytes[8] = if random.one_in(10) { 2 + random.below(254) as u8 } else { 64 };
    match random.below(60) {
        0 => {
            bytes[6..8].copy_from_slice(&(random.next() as u16).to_be_bytes());
        }
        1 => {
            bytes[8] = random.below(3) as u8;
        }
        2 => {
            let rest = bytes.split_off(20);
            bytes.extend([1, 1, 1, 1]);
            bytes.extend(rest);
            bytes[0] = 0x46;
            let length = bytes.len() as u16;
            put(bytes, 2, length);
        }
        _ => {}
    }
    let header = usize::from(bytes[0] & 15) * 4;
    put(bytes, 10, 0);
    let sum = packets::plain(&[&bytes[..header]]);
    put(bytes, 10, !sum);
    if random.one_in(60) {
        put(bytes, 10, random.next() as u16);
    }
}

fn change_v6(random: &mut Random, bytes: &mut Vec<u8>) {
    if random.one_in(4) {
        bytes[0] = 0x60 | random.next() as u8 & 15;
        bytes[1..4].copy_from_slice(&(random.next() as u32).to_le_bytes()[..3]);
    }
    bytes[7] = if random.one_in(10) { 2 + random.below(254) as u8 } else { 64 };
    match random.below(40) {
        0 => {
            bytes[7] = random.below(3) as u8;
        }
        1 => {
            let upper = bytes.split_off(40);
            bytes.extend([bytes[6], 0, 1, 4, 0, 0, 0, 0]);
            bytes.extend(upper);
            bytes[6] = *random.pick(&[0, 43, 60]);
            let length = bytes.len() as u16 - 40;
            put(bytes, 4, length);
        }
        _ => {}
    }
}

/// The flow that a packet says it is of, with no address of the service: client, client's port, service's port.
pub(crate) fn ports_of(bytes: &[u8]) -> (u16, u16) {
    let at = if bytes[0] >> 4 == 4 { 20 } else { 40 };
    (u16::from_be_bytes([bytes[at], bytes[at + 1]]), u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))
}

pub(crate) const PROTOCOLS: [u8; 3] = [TCP, TCP, UDP];
