//! Which worker gets which packet: one keyed hash of the client's address, once as a function and once as the BPF
//! programs that make netfilter compute the same. All packets of one client (both directions, and ICMP errors about
//! them) meet one worker, so its tables need no locks.
//!
//! `h = (Σ word_i · K_i) + C; h ^= h >> 16; h *= M; h ^= h >> 15; worker = h mod workers`, over the words of the
//! address masked to the affinity prefix. The odd `K_i`, `M` and `C` are secret and drawn at start: somebody who
//! may choose his address (an IPv6 /48, a botnet) cannot aim at one worker.

use super::bpf::{Assembler, Label, Op, Program};
use crate::Family;
use loaded_config::plan::{Plan, Service};
use loaded_ipc::PortRange;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

const IPPROTO_ICMP: u32 = 1;
const IPPROTO_FRAGMENT: u32 = 44;
const IPPROTO_ICMPV6: u32 = 58;
/// Unreachable, source quench, redirect, time exceeded, parameter problem: those that quote a packet (RFC 792).
const ICMP_ERRORS: [u32; 5] = [3, 4, 5, 11, 12];
/// ICMPv6 types below this are errors (RFC 4443 §2.1).
const ICMPV6_FIRST_INFORMATIONAL: u32 = 128;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// Before the quoted packet, both families.
const ICMP_HEADER: u32 = 8;

/// The secret of the hash. Whoever takes over running workers (a new binary, an adoption) must go on with the same
/// numbers, or clients change their worker and their flows are not found.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKeys([u32; 6]);

impl HashKeys {
    /// From six random numbers. Multipliers become odd, so that no bit of the address is lost.
    #[must_use]
    pub fn new(random: [u32; 6]) -> Self {
        let [a, b, c, d, sum, mix] = random;
        Self([a | 1, b | 1, c | 1, d | 1, sum, mix | 1])
    }
}

/// Shows nothing: it is a secret, and logs travel.
impl std::fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKeys(..)")
    }
}

/// How addresses become workers. Fixed for the life of an instance: whatever changes it sends clients to workers that do
/// not know their flows.
///
/// Clients that share an affinity entry must share a worker, so no service may have a shorter affinity prefix than the
/// one that is steered by; a longer one is no harm. A reload may therefore add, remove and change services as it likes but
/// for a shorter prefix ([`Steering::covers`]), which needs a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Leading bits of an IPv4 address that count, at most 32.
    prefix4: u8,
    /// Leading bits of an IPv6 address that count, at most 128.
    prefix6: u8,
    keys: HashKeys,
}

/// Steered by in IPv6 when an instance starts without a service of that family: what TOML files give their services.
/// A reload can then bring the first.
const PREFIX6_OF_LATER_SERVICES: u8 = 64;

impl Steering {
    /// For the plan an instance starts with. The shortest affinity prefix of all services of a family counts, for the
    /// rules do not know services.
    #[must_use]
    pub fn new(plan: &Plan, keys: HashKeys) -> Self {
        let is_used = plan.services.iter().any(|service| has(service, Family::V6));
        let otherwise = if is_used { 128 } else { PREFIX6_OF_LATER_SERVICES };
        let prefix4 = shortest(plan, Family::V4).map_or(32, |(_, prefix)| prefix);
        Self::with_prefixes(prefix4, shortest(plan, Family::V6).map_or(otherwise, |(_, prefix)| prefix), keys)
    }

    /// Whether a running instance may change to this plan and keep its steering.
    #[must_use]
    pub fn covers(&self, plan: &Plan) -> bool {
        self.uncovered(plan).is_none()
    }

    /// Why it does not cover the plan: names the service with the shortest prefix, and what to do.
    #[must_use]
    pub fn uncovered(&self, plan: &Plan) -> Option<String> {
        let steered = [(Family::V4, self.prefix4), (Family::V6, self.prefix6)].into_iter();
        let mut refused = steered.filter_map(|(family, steered)| {
            let (service, prefix) = shortest(plan, family)?;
            (prefix < steered).then(|| {
                format!(
                    "service {service:?}: affinity by {family} /{prefix} needs other steering than the /{steered} this instance \
                     was started with, which would move flows to workers that do not know them; restart to change it"
                )
            })
        });
        refused.next()
    }

    /// With the prefixes given, cut to 32 and 128.
    #[must_use]
    pub fn with_prefixes(prefix4: u8, prefix6: u8, keys: HashKeys) -> Self {
        Self { prefix4: prefix4.min(32), prefix6: prefix6.min(128), keys }
    }

    /// The worker, from 0, that gets the packets of this client when there are `workers` of them.
    #[must_use]
    pub fn worker_of(&self, client: IpAddr, workers: u16) -> u16 {
        let words = match client {
            IpAddr::V4(v4) => vec![v4.to_bits()],
            IpAddr::V6(v6) => words(v6).to_vec(),
        };
        let [keys @ .., sum, mix] = self.keys.0;
        let masks = self.masks(if client.is_ipv4() { Family::V4 } else { Family::V6 });
        let mut h = words
            .iter()
            .zip(masks)
            .zip(keys)
            .fold(sum, |h, ((word, mask), key)| h.wrapping_add((word & mask).wrapping_mul(key)));
        h ^= h >> 16;
        h = h.wrapping_mul(mix);
        h ^= h >> 15;
        u16::try_from(h % u32::from(workers.max(1))).unwrap_or(0)
    }

    /// The parts of an IPv4 and an IPv6 address that count, and the keys, for a program that computes the same.
    #[must_use]
    pub fn numbers(&self) -> (u32, [u32; 4], [u32; 6]) {
        (mask(self.prefix4, 0), [0, 1, 2, 3].map(|word| mask(self.prefix6, word)), self.keys.0)
    }

    /// Matches requests of this worker's clients. The client is the source; for an ICMP error it is the *inner*
    /// destination, since the quoted packet went from the VIP to the client while the error itself may come from any
    /// router. An ICMPv6 error behind an extension header is steered by its outer source: it then may meet a worker
    /// that does not know the flow, and that one error is lost.
    pub(crate) fn request(&self, family: Family, worker: u16, workers: u16) -> Program {
        let mut asm = Assembler::default();
        let (inner, hash) = (asm.label(), asm.label());
        match family {
            Family::V4 => {
                let outer = asm.label();
                asm.op(Op::LdByte, 9);
                asm.jump_unless(Op::Jeq, IPPROTO_ICMP, outer);
                // A later fragment of a packet has no ICMP header there.
                asm.op(Op::LdWord, 4);
                asm.op(Op::And, 0x1fff);
                asm.jump_unless(Op::Jeq, 0, outer);
                asm.op(Op::LdxHeader, 0);
                asm.op(Op::LdByteX, 0);
                for kind in ICMP_ERRORS {
                    asm.jump_if(Op::Jeq, kind, inner);
                }
                asm.place(outer);
                asm.op(Op::LdWord, 12);
                asm.jump(hash);
                asm.place(inner);
                asm.op(Op::LdWordX, ICMP_HEADER + 16);
            }
            Family::V6 => {
                // X is what is added to the place of the source address.
                let outer = asm.label();
                asm.op(Op::LdByte, 6);
                asm.jump_unless(Op::Jeq, IPPROTO_ICMPV6, outer);
                asm.op(Op::LdByte, IPV6_HEADER);
                asm.jump_if(Op::Jge, ICMPV6_FIRST_INFORMATIONAL, outer);
                asm.op(Op::LdxImm, IPV6_HEADER + ICMP_HEADER + 16);
                asm.jump(hash);
                asm.place(outer);
                asm.op(Op::LdxImm, 0);
            }
        }
        self.hash(asm, family, hash, worker, workers)
    }

    /// Matches replies (and ICMP errors about requests) to this worker's clients: the client is the destination.
    pub(crate) fn reply(&self, family: Family, worker: u16, workers: u16) -> Program {
        let mut asm = Assembler::default();
        let hash = asm.label();
        match family {
            Family::V4 => asm.op(Op::LdWord, 16),
            Family::V6 => asm.op(Op::LdxImm, 16),
        }
        self.hash(asm, family, hash, worker, workers)
    }

    /// IPv4 comes with the address in A; IPv6 with the distance of the address from the source address in X.
    fn hash(&self, mut asm: Assembler, family: Family, start: Label, worker: u16, workers: u16) -> Program {
        let [keys @ .., sum, mix] = self.keys.0;
        let masks = self.masks(family);
        let used = || masks.iter().zip(keys).zip(0_u32..).filter(|((mask, _), _)| **mask != 0);
        asm.place(start);
        for ((&mask, key), cell) in used() {
            if family == Family::V6 {
                asm.op(Op::LdWordX, 8 + 4 * cell);
            }
            if mask != u32::MAX {
                asm.op(Op::And, mask);
            }
            asm.op(Op::Mul, key);
            asm.op(Op::St, cell);
        }
        asm.op(Op::LdMem, 0);
        for (_, cell) in used().skip(1) {
            asm.op(Op::LdxMem, cell);
            asm.op(Op::AddX, 0);
        }
        asm.op(Op::Add, sum);
        for (shift, multiply) in [(16, Some(mix)), (15, None)] {
            asm.op(Op::Tax, 0);
            asm.op(Op::Rsh, shift);
            asm.op(Op::XorX, 0);
            multiply.into_iter().for_each(|by| asm.op(Op::Mul, by));
        }
        asm.op(Op::Mod, workers.max(1).into());
        let no = asm.label();
        asm.jump_unless(Op::Jeq, worker.into(), no);
        asm.op(Op::Ret, 1);
        asm.place(no);
        asm.op(Op::Ret, 0);
        asm.finish()
    }

    /// One mask for each word of an address. The first is never empty: prefixes are at least 1.
    fn masks(&self, family: Family) -> Vec<u32> {
        match family {
            Family::V4 => vec![mask(self.prefix4, 0)],
            Family::V6 => (0..4).map(|word| mask(self.prefix6, word)).collect(),
        }
    }
}

fn has(service: &Service, family: Family) -> bool {
    service.vips.iter().any(|vip| family.has(*vip))
}

/// The service of this family with the shortest affinity prefix.
fn shortest(plan: &Plan, family: Family) -> Option<(&str, u8)> {
    let prefixes = plan.services.iter().filter(|service| has(service, family)).filter_map(|service| {
        let affinity = service.affinity?;
        Some((service.name.as_str(), if family == Family::V4 { affinity.prefix4 } else { affinity.prefix6 }))
    });
    prefixes.min_by_key(|(_, prefix)| *prefix)
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
    [a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h]
}

/// The part of the prefix that falls into this word; the first keeps at least one bit.
fn mask(prefix: u8, word: u8) -> u32 {
    let bits = prefix.max(1).saturating_sub(32 * word).min(32);
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

/// Matches a fragment: by "more fragments" and the offset in IPv4 (RFC 791 §3.1), by a fragment header directly
/// behind the IPv6 header.
pub(crate) fn fragment(family: Family) -> Program {
    let mut asm = Assembler::default();
    let no = asm.label();
    match family {
        Family::V4 => {
            asm.op(Op::LdWord, 4);
            asm.op(Op::And, 0x3fff);
            asm.jump_if(Op::Jeq, 0, no);
        }
        Family::V6 => {
            asm.op(Op::LdByte, 6);
            asm.jump_unless(Op::Jeq, IPPROTO_FRAGMENT, no);
        }
    }
    asm.op(Op::Ret, 1);
    asm.place(no);
    asm.op(Op::Ret, 0);
    asm.finish()
}

/// Programs that together match an ICMP error whose quoted packet was addressed to one of `backends`: an error about
/// a request, from the backend or from any router before it. They follow a rule that has checked the ICMP type.
pub(crate) fn errors_about(family: Family, backends: &[IpAddr]) -> Vec<Program> {
    chunks(family, backends).map(|chunk| about(family, chunk)).collect()
}

/// Matches an ICMP error whose quoted packet left a port of this range. The quoted header has no options, as those that this
/// host sends.
pub(crate) fn quotes_source_port(family: Family, ports: PortRange) -> Program {
    let mut asm = Assembler::default();
    let no = asm.label();
    match family {
        Family::V4 => {
            asm.op(Op::LdxHeader, 0);
            asm.op(Op::LdWordX, ICMP_HEADER + IPV4_HEADER);
        }
        Family::V6 => asm.op(Op::LdWord, 2 * IPV6_HEADER + ICMP_HEADER),
    }
    asm.op(Op::Rsh, 16);
    asm.jump_unless(Op::Jge, ports.low.into(), no);
    asm.jump_if(Op::Jge, u32::from(ports.high) + 1, no);
    asm.op(Op::Ret, 1);
    asm.place(no);
    asm.op(Op::Ret, 0);
    asm.finish()
}

/// Programs that together match what has one of these addresses as its source.
pub(crate) fn sent_by(family: Family, addresses: &[IpAddr]) -> Vec<Program> {
    chunks(family, addresses).map(|chunk| from(family, chunk)).collect()
}

/// As many addresses as one program can compare.
fn chunks(family: Family, addresses: &[IpAddr]) -> std::slice::Chunks<'_, IpAddr> {
    // A backend takes one instruction of at most 19 characters or, in IPv6, eight of together 116 at most; four more
    // are for the program itself. MAX_INSTRUCTIONS bounds IPv6, MAX_TEXT bounds IPv4.
    let room = match family {
        Family::V4 => 50,
        Family::V6 => 7,
    };
    addresses.chunks(room)
}

fn about(family: Family, backends: &[IpAddr]) -> Program {
    let mut asm = Assembler::default();
    let (yes, no) = (asm.label(), asm.label());
    match family {
        Family::V4 => {
            asm.op(Op::LdxHeader, 0);
            asm.op(Op::LdWordX, ICMP_HEADER + 16);
        }
        Family::V6 => {
            asm.op(Op::LdByte, 6);
            asm.jump_unless(Op::Jeq, IPPROTO_ICMPV6, no);
        }
    }
    compare(asm, (IPV6_HEADER + ICMP_HEADER + 24, backends), yes, no)
}

fn from(family: Family, addresses: &[IpAddr]) -> Program {
    let mut asm = Assembler::default();
    let (yes, no) = (asm.label(), asm.label());
    if family == Family::V4 {
        asm.op(Op::LdWord, 12);
    }
    compare(asm, (8, addresses), yes, no)
}

/// Compares an address with each of these: in IPv4 the one in A, in IPv6 the one at this offset.
fn compare(mut asm: Assembler, (at, addresses): (u32, &[IpAddr]), yes: Label, no: Label) -> Program {
    for address in addresses {
        match address {
            IpAddr::V4(v4) => asm.jump_if(Op::Jeq, v4.to_bits(), yes),
            IpAddr::V6(v6) => {
                let next = asm.label();
                for (word, place) in words(*v6).into_iter().zip((at..).step_by(4)) {
                    asm.op(Op::LdWord, place);
                    let last = place == at + 12;
                    if last { asm.jump_if(Op::Jeq, word, yes) } else { asm.jump_unless(Op::Jeq, word, next) }
                }
                asm.place(next);
            }
        }
    }
    asm.place(no);
    asm.op(Op::Ret, 0);
    asm.place(yes);
    asm.op(Op::Ret, 1);
    asm.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
