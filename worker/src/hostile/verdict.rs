//! What verdicts a hijacked worker can give: everything that fits a template.

use super::exploit::{Exploit, write_answer};
use loaded_queue::Packet;
use std::net::Ipv6Addr;

/// `include/uapi/linux/netfilter.h`: a queue's number is in the upper half of the code; the flag lets a packet pass where
/// nobody answers that queue.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const STOLEN: u32 = 2;
const QUEUE: u32 = 3;
const BYPASS: u32 = 0x8000;
/// `include/uapi/linux/netfilter/nfnetlink_queue.h`.
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;
const CT: u16 = 11;
const PRIORITY: u16 = 21;
/// `NLA_F_NESTED`, and in it CTA_MARK.
const NESTED: u16 = 0x8000;
const CTA_MARK: u16 = 8;
/// A queue that nobody has bound.
const UNBOUND: u32 = 999;
/// Packet ids on both sides of the one that the datagram names.
const AROUND: u32 = 16;

/// Returns whether the packet is answered by it.
type VerdictAttempt = fn(&mut Packet<'_>, &Exploit) -> bool;

const ATTEMPTS: [(&str, VerdictAttempt); 15] = [
    ("verdict: drop", |packet, _| given(packet, DROP, &[])),
    ("verdict: let it pass as it came", |packet, _| given(packet, ACCEPT, &[])),
    ("verdict: none", |packet, _| {
        packet.leave();
        true
    }),
    ("verdict: another queue", |packet, exploit| given(packet, QUEUE | u32::from(exploit.victims.foreign) << 16, &[])),
    ("verdict: nobody's queue", |packet, _| given(packet, QUEUE | UNBOUND << 16, &[])),
    ("verdict: nobody's queue, or pass", |packet, _| given(packet, QUEUE | BYPASS | UNBOUND << 16, &[])),
    ("verdict: stolen", |packet, _| refused(packet, STOLEN)),
    ("verdict: of no kind", |packet, _| refused(packet, 77)),
    ("verdict: mark", |packet, exploit| given(packet, ACCEPT, &attribute(MARK, exploit.victims.process))),
    ("verdict: priority", |packet, exploit| given(packet, ACCEPT, &attribute(PRIORITY, exploit.victims.process))),
    ("verdict: conntrack", |packet, exploit| {
        let mut nested = [0; 12];
        nested[4..].copy_from_slice(&attribute(CTA_MARK, exploit.victims.process));
        put_header(&mut nested, CT | NESTED, 12);
        given(packet, ACCEPT, &nested)
    }),
    ("verdict: more content than is sent", |packet, _| {
        let mut bytes = [0x45; 24];
        put_header(&mut bytes, PAYLOAD, 0xfff0);
        given(packet, ACCEPT, &bytes)
    }),
    ("verdict: one byte of content", |packet, _| {
        let mut bytes = [0x45; 8];
        put_header(&mut bytes, PAYLOAD, 5);
        given(packet, ACCEPT, &bytes)
    }),
    ("verdict: another packet", |packet, _| {
        let mut attributes = [0; 240];
        let bytes = packet.bytes();
        let length = bytes.len().min(attributes.len() - 4);
        attributes[4..4 + length].copy_from_slice(&bytes[..length]);
        forge(&mut attributes[4..4 + length]);
        // Below 240.
        put_header(&mut attributes, PAYLOAD, u16::try_from(4 + length).unwrap_or(0));
        given(packet, ACCEPT, &attributes[..(4 + length).next_multiple_of(4)])
    }),
    ("verdict: of packets in another queue", |packet, exploit| {
        let (named, own) = (exploit.victims.process, packet.id());
        for id in named.saturating_sub(AROUND)..named.saturating_add(AROUND) {
            if id != own {
                packet.say(DROP, id, &[]);
            }
        }
        write_answer(packet.bytes(), 0);
        false
    }),
];

pub(super) fn find(name: &[u8]) -> Option<VerdictAttempt> {
    ATTEMPTS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, attempt)| *attempt)
}

fn given(packet: &mut Packet<'_>, code: u32, attributes: &[u8]) -> bool {
    let id = packet.id();
    packet.say(code, id, attributes);
    packet.leave();
    true
}

/// The kernel refuses the code, so the packet still waits and is dropped then.
fn refused(packet: &mut Packet<'_>, code: u32) -> bool {
    let id = packet.id();
    packet.say(code, id, &[]);
    given(packet, DROP, &[])
}

/// Turns it into a packet to its own sender, from an address that is nobody's here.
fn forge(bytes: &mut [u8]) {
    if bytes[0] >> 4 == 6 {
        bytes.copy_within(8..24, 24);
        bytes[8..24].copy_from_slice(&Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 9).octets());
        return;
    }
    bytes.copy_within(12..16, 16);
    bytes[12..16].copy_from_slice(&[203, 0, 113, 9]);
    bytes[10..12].fill(0);
    let words = bytes[..20].chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    bytes[10..12].copy_from_slice(&(!sum).to_be_bytes()[2..]);
}

fn attribute(kind: u16, value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    put_header(&mut bytes, kind, 8);
    bytes
}

fn put_header(bytes: &mut [u8], kind: u16, length: u16) {
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
}
