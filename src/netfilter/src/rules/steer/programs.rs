//! The programs for xt_bpf: those that steer, and those that tell fragments, errors and sources apart.

use super::{Steering, words};
use crate::Family;
use crate::rules::bpf::{Assembler, Label, Op, Program};
use loaded_ipc::PortRange;
use std::net::IpAddr;

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

impl Steering {
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
