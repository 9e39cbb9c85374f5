//! Whether the program has done with a packet what the worker would have done.

use crate::generated::{Made, ports_of};
use crate::packets::{self, FIN, SYN, ends};
use crate::world::{self, DIRECT_VIPS, MISS, REDIRECT, World, at, forwarded, now, same_flows};
use loaded_fastpath::Report;
use loaded_ipc::Outcome;

/// What became of the packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) silent: u64,
    pub(crate) told: u64,
    /// Either, and as it was.
    pub(crate) direct: u64,
    pub(crate) missed: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.silent += more.silent;
        self.told += more.told;
        self.direct += more.direct;
        self.missed += more.missed;
    }
}

/// Returns what the worker makes of it.
pub(crate) fn judge(world: &mut World, made: &Made, kept: [bool; 6], seen: &mut Seen, context: &str) -> Vec<u8> {
    let from = if made.reply { world.inside } else { world.outside };
    // The kernel makes no buffer of less (bpf_prog_test_run_skb in net/bpf/test_run.c), nor does a device.
    if made.bytes.len() < 40 && made.bytes[0] >> 4 == 6 {
        return vec![];
    }
    let before = world.table();
    let (said, sent) = world.try_packet(&made.bytes, from);
    let reports = world.heard();
    assert!(world.table() == before, "the program has changed the table: {context}");
    let silent = said == REDIRECT && reports.is_empty();
    // What Ethernet adds to a short packet is gone before the rules see it (ip_rcv_core, ip6_rcv_core).
    let whole = &made.bytes[..length_of(&made.bytes).min(made.bytes.len())];
    let time = now();
    let (outcome, expected) = world.decide(whole, time);
    if said == MISS {
        assert_eq!(sent, made.bytes, "{context}");
        assert_eq!(reports, [], "{context}");
        seen.missed += 1;
        return expected;
    }
    assert_eq!(said, REDIRECT, "{context}");
    // The worker may have given the flow another backend than it began with.
    let backend = if made.reply { ends(&made.bytes).0 } else { ends(&sent).1 };
    let is_direct = !made.reply && DIRECT_VIPS.contains(&backend.as_str());
    let backend = world::BACKENDS.iter().position(|b| *b == backend);
    assert!(is_direct || backend.is_some_and(|backend| kept[backend]), "{context}");
    seen.direct += u64::from(is_direct);
    assert_eq!(outcome, if made.reply { Outcome::Returned } else { Outcome::Forwarded }, "{context}");
    assert_eq!(sent[..whole.len()], forwarded(expected.clone()), "{context}");
    assert_eq!(sent[whole.len()..], made.bytes[whole.len()..], "{context}");
    if silent {
        assert!(same_flows(&world.table(), &before), "it moves the flow's state, and no report says so: {context}");
        seen.silent += 1;
    } else {
        assert_eq!(reports.len(), 1, "{context}");
        is_about(&reports[0], whole, made.reply, context);
        // The report moves the flow as the packet would have.
        let after = world.table();
        world.restore(&before);
        world.decider.hear(&reports[0], time);
        assert!(world.table() == after, "the report does not lead where the packet does: {context}");
        seen.told += 1;
    }
    expected
}

/// The packet's length as its header says.
fn length_of(bytes: &[u8]) -> usize {
    let two = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if bytes[0] >> 4 == 6 { 40 + two(4) } else { two(2) }
}

/// Whether a report says of a packet what it is.
fn is_about(report: &Report, bytes: &[u8], reply: bool, context: &str) {
    let (from, to) = ports_of(bytes);
    let (client, service) = if reply { (to, from) } else { (from, to) };
    assert_eq!((report.client_port, report.reply), (client, reply), "{context}");
    let there = world::backend_of(report.backend).map_or(report.vip_port, |backend| at(backend, report.vip_port).1);
    assert_eq!(service, if reply { there } else { report.vip_port }, "{context}");
    let key = if there == report.vip_port { there } else { 0 };
    assert_eq!(report.service_port, key, "{context}");
    assert_eq!(report.bytes as usize, bytes.len(), "{context}");
    if report.protocol == packets::TCP {
        let at = if bytes[0] >> 4 == 4 { 20 } else { 40 };
        let four = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let header = usize::from(bytes[at + 12] >> 4) * 4;
        let counted = u32::from(bytes[at + 13] & SYN != 0) + u32::from(bytes[at + 13] & FIN != 0);
        let end = four(at + 4).wrapping_add((bytes.len() - at - header) as u32).wrapping_add(counted);
        assert_eq!((report.flags, report.acknowledged, report.end), (bytes[at + 13], four(at + 8), end), "{context}");
    }
}
