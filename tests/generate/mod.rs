//! Packets of every shape, from a seed: sound ones, and what hostile or broken hosts make of them. It knows what a packet
//! is made of, so that what it breaks is broken in one place and read up to there. Includes nothing, so that any test can
//! take this file by its path.
#![allow(dead_code, reason = "each test that takes this file uses a part of it")]

use std::net::IpAddr;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const ICMP6: u8 = 58;
const NO_NEXT: u8 = 59;
const SCTP: u8 = 132;
/// IPv6 extension headers: hop by hop, routing, fragment, authentication, destination options, mobility.
const EXTENSIONS: [u8; 6] = [0, 43, 44, AUTHENTICATION, 60, 135];

/// Who may be named. Each list has addresses of both families.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) vips: Vec<IpAddr>,
    pub(crate) backends: Vec<IpAddr>,
    pub(crate) clients: Vec<IpAddr>,
    /// Neither of these.
    pub(crate) strangers: Vec<IpAddr>,
    pub(crate) ports: Vec<u16>,
}

impl Cast {
    /// That of `scripts/lab`.
    pub(crate) fn of_the_lab() -> Self {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
        let (mut clients, mut backends) = (Vec::new(), Vec::new());
        for n in 0..200_u8 {
            clients.push(IpAddr::from([192, 0, 2, n]));
            clients.push(format!("2001:db8:1::{n:x}").parse().expect("an address"));
        }
        clients.retain(|client| ![IpAddr::from([192, 0, 2, 100])].contains(client));
        for n in 11..14_u8 {
            backends.push(IpAddr::from([198, 51, 100, n]));
            backends.push(format!("2001:db8:2::{n}").parse().expect("an address"));
        }
        Self {
            vips: addresses(&["192.0.2.100", "2001:db8:1::100"]),
            backends,
            clients,
            strangers: addresses(&[
                "203.0.113.9",
                "127.0.0.1",
                "224.0.0.1",
                "255.255.255.255",
                "0.0.0.0",
                "::1",
                "::",
                "ff02::1",
                "fe80::1",
                "2001:db8:9::9",
                "::ffff:192.0.2.100",
            ]),
            ports: vec![0, 1, 53, 80, 81, 443, 7007, 65535],
        }
    }
}

/// An endless sequence of packets, the same for the same seed.
#[derive(Debug)]
pub(crate) struct Generator {
    state: u64,
    cast: Cast,
}

/// A direction of a conversation.
#[derive(Debug, Clone, Copy)]
struct Ends {
    from: IpAddr,
    to: IpAddr,
    ports: (u16, u16),
}

impl Iterator for Generator {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.packet())
    }
}

impl Generator {
    pub(crate) fn new(seed: u64, cast: Cast) -> Self {
        Self { state: seed, cast }
    }

    /// The next packet: 1 to 1,600 bytes or so, rarely up to 65,535.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        if self.one_in(50) {
            let length = self.below(200) + 1;
            return self.noise(length);
        }
        let ends = self.ends();
        let mut bytes = self.sound(ends);
        // Most packets are sound, or nothing would get far.
        if self.one_in(3) {
            for _ in 0..=self.below(2) {
                self.break_it(&mut bytes);
            }
        }
        bytes
    }

    /// A number below `bound`. SplitMix64 (Steele, Lea, Flood, 2014).
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % bound.max(1) as u64).expect("below a usize")
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }

    fn word(&mut self) -> u16 {
        u16::try_from(self.below(65536)).expect("a word")
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// One of the list, of the same family as `like`.
    fn like(&mut self, list: &[IpAddr], like: IpAddr) -> IpAddr {
        let fitting: Vec<IpAddr> = list.iter().copied().filter(|a| a.is_ipv4() == like.is_ipv4()).collect();
        self.any(&fitting)
    }

    /// Mostly client to VIP or backend to client, with ports that meet again.
    fn ends(&mut self) -> Ends {
        let cast = self.cast.clone();
        // Most of few clients, so that flows are met again; some of many, so that tables fill.
        let client = if self.one_in(4) { self.any(&cast.clients) } else { self.any(&cast.clients[..8]) };
        let (vip, backend) = (self.like(&cast.vips, client), self.like(&cast.backends, client));
        let stranger = self.like(&cast.strangers, client);
        let near = 40_000 + u16::try_from(self.below(3)).expect("small");
        let far = if self.one_in(2) { cast.ports[3] } else { self.any(&cast.ports) };
        let (from, to, ports) = match self.below(16) {
            0..=7 => (client, vip, (near, far)),
            8..=11 => (backend, client, (far, near)),
            12 => (backend, vip, (near, far)),
            13 => (vip, client, (far, near)),
            14 => (stranger, self.any(&[vip, backend, client]), (near, far)),
            _ => (self.any(&[vip, backend, client]), stranger, (far, near)),
        };
        Ends { from, to, ports }
    }

    /// A packet that holds together.
    fn sound(&mut self, ends: Ends) -> Vec<u8> {
        let v4 = ends.from.is_ipv4();
        let (protocol, upper) = match self.below(12) {
            0..=3 => (TCP, self.tcp(ends)),
            4..=5 => (UDP, self.udp(ends)),
            6 => (if v4 { ICMP } else { ICMP6 }, self.echo(ends)),
            7..=8 => (if v4 { ICMP } else { ICMP6 }, self.error(ends)),
            9 => (SCTP, self.sctp(ends)),
            10 => (self.any(&[ESP, NO_NEXT, 47, 4, 41, 2, 89, 255, ICMP, ICMP6]), self.payload()),
            _ => (if v4 { ICMP } else { ICMP6 }, self.other_icmp(v4)),
        };
        let bytes = if v4 { self.v4(ends, protocol, upper) } else { self.v6(ends, protocol, upper) };
        if self.one_in(12) { self.piece(bytes) } else { bytes }
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match self.below(200) {
            0 => 8000,
            1 => 65_000,
            2..=20 => 1400,
            _ => self.below(64),
        };
        let fill = self.byte();
        vec![fill; length]
    }

    fn tcp(&mut self, ends: Ends) -> Vec<u8> {
        let flags = self.any(&[2, 2, 2, 18, 16, 16, 24, 17, 4, 20, 0, 3, 6, 41, 255]);
        let mut options = match self.below(6) {
            0 => vec![2, 4, 5, 180],
            1 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            2 => vec![254, 0, 0, 0],
            3 => vec![2, 200, 1, 1],
            _ => vec![],
        };
        options.resize(options.len().next_multiple_of(4), 0);
        let mut upper = [&port(ends.ports.0)[..], &port(ends.ports.1)].concat();
        upper.extend(self.noise(8));
        upper.extend([u8::try_from(5 + options.len() / 4).expect("short") << 4, flags, 255, 255, 0, 0, 0, 0]);
        upper.extend(options);
        upper.extend(self.payload());
        finish(TCP, &mut upper, ends);
        upper
    }

    fn udp(&mut self, ends: Ends) -> Vec<u8> {
        let payload = self.payload();
        let length = u16::try_from(8 + payload.len()).expect("short");
        let mut upper = [&port(ends.ports.0)[..], &port(ends.ports.1), &length.to_be_bytes(), &[0, 0]].concat();
        upper.extend(payload);
        if !self.one_in(6) {
            finish(UDP, &mut upper, ends);
        }
        upper
    }

    fn sctp(&mut self, ends: Ends) -> Vec<u8> {
        let mut upper = [&port(ends.ports.0)[..], &port(ends.ports.1)].concat();
        upper.extend(self.noise(8));
        upper.extend([self.any(&[0, 1, 2, 3, 6, 14]), 0, 0, 16]);
        upper.extend(self.noise(12));
        upper
    }

    fn echo(&mut self, ends: Ends) -> Vec<u8> {
        let request = self.cast.vips.contains(&ends.to);
        let kind = match (ends.from.is_ipv4(), request) {
            (true, true) => 8,
            (true, false) => 0,
            (false, true) => 128,
            (false, false) => 129,
        };
        let id = ends.ports.0.max(ends.ports.1) & 15;
        let mut upper = [&[kind, 0, 0, 0][..], &port(id), &[0, 1]].concat();
        upper.extend(self.payload());
        finish(if ends.from.is_ipv4() { ICMP } else { ICMP6 }, &mut upper, ends);
        upper
    }

    /// Unreachable, too big, time exceeded, parameter problem: about a packet that went the other way, whole or only its
    /// first bytes, right or wrong.
    fn error(&mut self, ends: Ends) -> Vec<u8> {
        let v4 = ends.from.is_ipv4();
        let other = if self.one_in(5) { self.ends() } else { ends };
        let other = if other.from.is_ipv4() == v4 { other } else { ends };
        let about = Ends { from: other.to, to: other.from, ports: (other.ports.1, other.ports.0) };
        let (protocol, inner) = match self.below(5) {
            0..=1 => (TCP, self.tcp(about)),
            2 => (UDP, self.udp(about)),
            3 => (if v4 { ICMP } else { ICMP6 }, self.echo(about)),
            _ => (SCTP, self.sctp(about)),
        };
        let mut quoted = if v4 { self.v4(about, protocol, inner) } else { self.v6(about, protocol, inner) };
        if self.one_in(10) {
            quoted = self.piece(quoted);
        }
        match self.below(4) {
            0 => quoted.truncate(header(&quoted) + 8),
            1 => quoted.truncate(self.below(header(&quoted) + 12)),
            _ => quoted.truncate(if v4 { 548 } else { 1232 }),
        }
        if self.one_in(8) {
            self.break_it(&mut quoted);
        }
        let (kind, code) = match v4 {
            true => self.any(&[(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (11, 1), (12, 0), (4, 0), (5, 1)]),
            false => self.any(&[(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (100, 0), (127, 255)]),
        };
        let mtu = self.any(&[[0, 0, 5, 0], [0, 0, 2, 64], [0, 0, 0, 0], [255, 255, 255, 255]]);
        let mut upper = [&[kind, code, 0, 0][..], &mtu, &quoted].concat();
        finish(if v4 { ICMP } else { ICMP6 }, &mut upper, ends);
        upper
    }

    /// Neighbour discovery, multicast listeners, timestamps and whatever else.
    fn other_icmp(&mut self, v4: bool) -> Vec<u8> {
        let kind = if v4 {
            self.any(&[9, 10, 13, 14, 17, 40, 255])
        } else {
            self.any(&[130, 131, 133, 135, 136, 137, 143, 200, 255])
        };
        let mut upper = vec![kind, 0];
        let length = self.below(40);
        upper.extend(self.noise(length));
        upper
    }

    fn v4(&mut self, ends: Ends, protocol: u8, upper: Vec<u8>) -> Vec<u8> {
        let mut options = match self.below(8) {
            // Record route, loose source route, timestamp, router alert, one that is too long, one without length.
            0 => vec![7, 7, 4, 0, 0, 0, 0, 0],
            1 => vec![131, 7, 4, 192, 0, 2, 100, 0],
            2 => vec![68, 8, 5, 0, 0, 0, 0, 0],
            3 => vec![148, 4, 0, 0],
            4 if self.one_in(4) => vec![7, 40, 4, 0],
            5 if self.one_in(4) => vec![1, 1, 1, 7],
            _ => vec![],
        };
        if self.one_in(40) {
            options.resize(40, 1);
        }
        let length = (20 + options.len() + upper.len()).min(65_535);
        let words = u8::try_from(5 + options.len() / 4).expect("short");
        let mut bytes = vec![0x40 | words, self.byte()];
        bytes.extend(port(u16::try_from(length).expect("bounded")));
        bytes.extend(self.noise(2));
        bytes.extend([self.any(&[0, 0x40]), 0, self.any(&[64, 1, 255]), protocol, 0, 0]);
        bytes.extend(octets(ends.from));
        bytes.extend(octets(ends.to));
        bytes.extend(options);
        let sum = !sum_of(&[&bytes]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend(upper);
        bytes.truncate(65_535);
        bytes
    }

    /// With none to nine extension headers, of every kind.
    fn v6(&mut self, ends: Ends, protocol: u8, upper: Vec<u8>) -> Vec<u8> {
        let count = match self.below(6) {
            0 => 1,
            1 => self.below(10),
            _ => 0,
        };
        let kinds: Vec<u8> = (0..count).map(|_| self.any(&EXTENSIONS)).collect();
        let mut chain = Vec::new();
        for (n, kind) in kinds.iter().enumerate() {
            let next = kinds.get(n + 1).copied().unwrap_or(protocol);
            chain.extend(self.extension(*kind, next));
        }
        let length = u16::try_from((chain.len() + upper.len()).min(65_495)).expect("bounded");
        let mut bytes = vec![0x60, self.byte(), self.byte(), self.byte()];
        bytes.extend(port(length));
        bytes.extend([kinds.first().copied().unwrap_or(protocol), self.any(&[64, 1, 255])]);
        bytes.extend(octets(ends.from));
        bytes.extend(octets(ends.to));
        bytes.extend(chain);
        bytes.extend(upper);
        bytes.truncate(40 + usize::from(length));
        bytes
    }

    /// Units: 8 bytes without the first 8, but 4 bytes without the first 8 for authentication (RFC 4302 §2.2).
    fn extension(&mut self, kind: u8, next: u8) -> Vec<u8> {
        match kind {
            44 => vec![next, 0, 0, 0, 0, 0, 0, 1],
            AUTHENTICATION => {
                let words = self.any(&[4_u8, 4, 1, 7]);
                let mut bytes = vec![next, words];
                bytes.extend(self.noise(usize::from(words) * 4 + 6));
                bytes
            }
            _ => {
                let units = self.any(&[0_u8, 0, 0, 1, 2, 31]);
                let mut bytes = vec![next, units];
                // Routing: type, and mostly no segments left. Options: one that fills the header.
                let left = u8::from(self.one_in(4));
                let fill = usize::from(units) * 8 + 4;
                match kind {
                    43 => bytes.extend([self.any(&[0, 2, 3, 4]), left]),
                    _ => bytes.extend([1, u8::try_from(fill).unwrap_or(252)]),
                }
                bytes.resize(4 + fill, 0);
                bytes
            }
        }
    }

    /// A fragment of a packet: the first, one in the middle, the last, or one that is whole.
    fn piece(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let start = header(&bytes);
        let more = u16::from(self.one_in(2));
        let offset = self.any(&[0, 0, 1, 2, 100, 185, 8190, 8191]);
        if bytes[0] >> 4 == 4 {
            bytes[6..8].copy_from_slice(&(more << 13 | offset).to_be_bytes());
            bytes[10..12].fill(0);
            let sum = !sum_of(&[&bytes[..start]]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            let next = std::mem::replace(&mut bytes[6], 44);
            let tail = bytes.split_off(40);
            bytes.extend([next, 0]);
            bytes.extend(port(offset << 3 | more));
            bytes.extend([0, 0, 0, self.byte()]);
            bytes.extend(tail);
            bytes.truncate(65_535);
            let length = u16::try_from(bytes.len() - 40).expect("bounded");
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }

    /// Breaks it in one place.
    fn break_it(&mut self, bytes: &mut Vec<u8>) {
        if bytes.len() < 2 {
            return;
        }
        let head = bytes.len().min(80);
        match self.below(8) {
            0 => bytes.truncate(1 + self.below(bytes.len() - 1)),
            1 => bytes.truncate(1 + self.below(head)),
            2 => {
                let at = self.below(head);
                bytes[at] ^= 1 << self.below(8);
            }
            3 => {
                let at = self.below(head);
                bytes[at] = self.any(&[0, 1, 127, 128, 255]);
            }
            // Lengths: of the packet, and of what UDP would be.
            4 => {
                let at = self.any(&[2, 4, 24, 44]);
                let value = self.any(&[0, 1, 8, 19, 20, 40, 65_535]);
                if let Some(field) = bytes.get_mut(at..at + 2) {
                    field.copy_from_slice(&port(value));
                }
            }
            // Version and header length; next header.
            5 => bytes[0] = self.byte(),
            6 => {
                let at = self.any(&[6, 9, 40]);
                let value = self.any(&[0, 1, 4, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 132, 135, 255]);
                if let Some(field) = bytes.get_mut(at) {
                    *field = value;
                }
            }
            _ => {
                let extra = self.below(64);
                bytes.extend(std::iter::repeat_n(0, extra));
                bytes.truncate(65_535);
            }
        }
    }
}

/// Bytes before the upper layer of a packet without extension headers.
fn header(bytes: &[u8]) -> usize {
    if bytes[0] >> 4 == 4 { usize::from(bytes[0] & 15) * 4 } else { 40 }
}

fn port(number: u16) -> [u8; 2] {
    number.to_be_bytes()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The sum of RFC 1071.
fn sum_of(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut total: u64 = words.map(|w| u64::from(w[0]) << 8 | w.get(1).map_or(0, |b| u64::from(*b))).sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

/// Fills a checksum in.
fn finish(protocol: u8, upper: &mut [u8], ends: Ends) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        _ => 2,
    };
    let (from, to) = (octets(ends.from), octets(ends.to));
    let length = u32::try_from(upper.len()).expect("short").to_be_bytes();
    let next = [0, 0, 0, protocol];
    let pseudo: &[&[u8]] = if protocol == ICMP { &[] } else { &[&from, &to, &length, &next] };
    let sum = !sum_of(&[pseudo, &[&*upper]].concat());
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    upper[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}
