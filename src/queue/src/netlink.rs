//! nfnetlink_queue messages, written and read as bytes, without unsafe code.
//!
//! Layouts and numbers are those of `include/uapi/linux/netfilter/nfnetlink_queue.h` and
//! `include/uapi/linux/netlink.h`. Header fields are in host byte order, attribute values in network byte order.

/// `struct nlmsghdr` and `struct nfgenmsg` together, bytes.
pub(crate) const HEADERS: usize = 20;
/// `struct nlattr`, bytes.
pub(crate) const ATTR: usize = 4;

const NFNL_SUBSYS_QUEUE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;

const NFQNL_MSG_PACKET: u16 = 0;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQNL_MSG_VERDICT_BATCH: u16 = 3;

pub(crate) const NFQA_VERDICT_HDR: u16 = 2;
/// On a received packet its mark, if not 0; in a verdict the new mark.
pub(crate) const NFQA_MARK: u16 = 3;
pub(crate) const NFQA_PAYLOAD: u16 = 10;
/// No kernel knows this attribute: `nla_parse_deprecated` skips types above its maximum (net/netfilter/nfnetlink.c). It
/// pads a message to a fixed size.
pub(crate) const NFQA_FILLER: u16 = 0x3ff;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_CAP_LEN: u16 = 13;
const NFQA_SKB_INFO: u16 = 14;
const NLA_TYPE_MASK: u16 = 0x3fff;

const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
const NFQA_CFG_F_FAIL_OPEN: u32 = 1;
const NFQA_CFG_F_GSO: u32 = 4;

const NFQA_SKB_CSUMNOTREADY: u32 = 1;
const NFQA_SKB_GSO: u32 = 2;

/// Verdicts, from `include/uapi/linux/netfilter.h`.
pub(crate) const NF_DROP: u32 = 0;
pub(crate) const NF_ACCEPT: u32 = 1;
pub(crate) const NF_REPEAT: u32 = 4;

/// Largest payload the kernel hands over: a 16-bit attribute length less its header.
pub(crate) const MAX_PAYLOAD: usize = 0xffff - ATTR;

/// Bytes a length occupies in a message: rounded up to a multiple of four.
pub(crate) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// The headers of a message to the queue subsystem.
pub(crate) fn headers(kind: MessageKind, queue: u16, length: u32, ack: bool) -> [u8; HEADERS] {
    let (message, flags) = match kind {
        MessageKind::Verdict => (NFQNL_MSG_VERDICT, NLM_F_REQUEST),
        MessageKind::VerdictBatch => (NFQNL_MSG_VERDICT_BATCH, NLM_F_REQUEST),
        MessageKind::Config => (NFQNL_MSG_CONFIG, NLM_F_REQUEST),
    };
    let mut h = [0; HEADERS];
    h[0..4].copy_from_slice(&length.to_ne_bytes());
    h[4..6].copy_from_slice(&(NFNL_SUBSYS_QUEUE << 8 | message).to_ne_bytes());
    h[6..8].copy_from_slice(&(flags | if ack { NLM_F_ACK } else { 0 }).to_ne_bytes());
    // nfgenmsg: family 0 (any), version 0, res_id = the queue in network byte order.
    h[18..20].copy_from_slice(&queue.to_be_bytes());
    h
}

/// The kinds of messages we send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MessageKind {
    Verdict,
    VerdictBatch,
    Config,
}

/// Binds a queue and sets everything (mode, range, length, GSO) in one message.
///
/// Packets can arrive as soon as the queue is bound, so the answer to a second configuration message would have to be
/// picked out from among them.
pub(crate) fn bind_message(queue: u16, max_len: u32, fail_open: bool) -> Vec<u8> {
    let mut m = vec![0; HEADERS];
    attr(&mut m, NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    let mut params = [0; 5];
    // Any range above what an attribute can carry means the whole packet.
    params[..4].copy_from_slice(&0xffff_u32.to_be_bytes());
    params[4] = NFQNL_COPY_PACKET;
    attr(&mut m, NFQA_CFG_PARAMS, &params);
    attr(&mut m, NFQA_CFG_QUEUE_MAXLEN, &max_len.to_be_bytes());
    let flags = NFQA_CFG_F_GSO | if fail_open { NFQA_CFG_F_FAIL_OPEN } else { 0 };
    attr(&mut m, NFQA_CFG_MASK, &(NFQA_CFG_F_GSO | NFQA_CFG_F_FAIL_OPEN).to_be_bytes());
    attr(&mut m, NFQA_CFG_FLAGS, &flags.to_be_bytes());
    let length = u32::try_from(m.len()).unwrap_or(u32::MAX);
    m[..HEADERS].copy_from_slice(&headers(MessageKind::Config, queue, length, true));
    m
}

/// One verdict for every waiting packet with an id up to `last`.
pub(crate) fn batch_message(queue: u16, verdict: u32, last: u32) -> Vec<u8> {
    verdict_message(MessageKind::VerdictBatch, queue, verdict, last)
}

/// A verdict for the packet with this id alone. If the kernel does not know the id, it answers ENOENT.
pub(crate) fn single_message(queue: u16, verdict: u32, id: u32) -> Vec<u8> {
    verdict_message(MessageKind::Verdict, queue, verdict, id)
}

fn verdict_message(kind: MessageKind, queue: u16, verdict: u32, id: u32) -> Vec<u8> {
    let mut m = vec![0; HEADERS];
    let mut value = [0; 8];
    value[..4].copy_from_slice(&verdict.to_be_bytes());
    value[4..].copy_from_slice(&id.to_be_bytes());
    attr(&mut m, NFQA_VERDICT_HDR, &value);
    let length = u32::try_from(m.len()).unwrap_or(u32::MAX);
    m[..HEADERS].copy_from_slice(&headers(kind, queue, length, false));
    m
}

fn attr(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTR + value.len()).unwrap_or(u16::MAX);
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(align(message.len()), 0);
}

/// A received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A packet that waits for its verdict.
    Packet(Arrived),
    /// The kernel's answer: 0 acknowledges, anything else is an errno (positive).
    Answer(i32),
    /// Anything else, malformed messages included.
    Other,
}

/// Where a packet lies in the received bytes, and what the kernel says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) id: u32,
    /// Offset of the payload in the message; without a payload, the length of the message.
    pub(crate) start: usize,
    pub(crate) length: usize,
    /// The packet was cut: it was longer than what could be copied.
    pub(crate) cut: bool,
    /// The transport checksum covers only the pseudo header (`CHECKSUM_PARTIAL`).
    pub(crate) partial: bool,
    pub(crate) gso: bool,
    /// Its mark; 0 means none.
    pub(crate) mark: u32,
}

/// Reads one message.
pub(crate) fn parse(message: &[u8]) -> Incoming {
    let (Some(length), Some(kind)) = (host32(message, 0), host16(message, 4)) else { return Incoming::Other };
    let Some(message) = message.get(..length as usize) else { return Incoming::Other };
    if kind == NLMSG_ERROR {
        return host32(message, 16).map_or(Incoming::Other, |e| Incoming::Answer(e.cast_signed().wrapping_neg()));
    }
    if kind != NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET {
        return Incoming::Other;
    }
    let mut id = None;
    let (mut start, mut length) = (message.len(), 0);
    let (mut cut, mut info, mut mark) = (false, 0, 0);
    let mut at = HEADERS;
    while let (Some(attr_length), Some(attr_kind)) = (host16(message, at), host16(message, at + 2)) {
        let attr_length = usize::from(attr_length);
        let Some(value) = message.get(at + ATTR..at + attr_length) else { break };
        match attr_kind & NLA_TYPE_MASK {
            NFQA_PACKET_HDR => id = net32(value, 0),
            NFQA_PAYLOAD => (start, length) = (at + ATTR, value.len()),
            NFQA_CAP_LEN => cut = true,
            NFQA_MARK => mark = net32(value, 0).unwrap_or(0),
            NFQA_SKB_INFO => info = net32(value, 0).unwrap_or(0),
            _ => {}
        }
        at += align(attr_length);
    }
    match id {
        Some(id) => Incoming::Packet(Arrived {
            id,
            start,
            length,
            cut,
            partial: info & NFQA_SKB_CSUMNOTREADY != 0,
            gso: info & NFQA_SKB_GSO != 0,
            mark,
        }),
        None => Incoming::Other,
    }
}

/// The packet id, read from the first attribute of a packet message (nfqnl_build_packet_message).
pub(crate) fn first_id(message: &[u8]) -> Option<u32> {
    let packet = host16(message, 4)? == NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET;
    let first = host16(message, HEADERS + 2)? & NLA_TYPE_MASK == NFQA_PACKET_HDR;
    if packet && first { net32(message, HEADERS + ATTR) } else { None }
}

fn host16(m: &[u8], at: usize) -> Option<u16> {
    m.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn host32(m: &[u8], at: usize) -> Option<u32> {
    m.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn net32(m: &[u8], at: usize) -> Option<u32> {
    m.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(attrs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut m = vec![0; HEADERS];
        for (kind, value) in attrs {
            attr(&mut m, *kind, value);
        }
        let length = u32::try_from(m.len()).expect("short");
        m[0..4].copy_from_slice(&length.to_ne_bytes());
        m[4..6].copy_from_slice(&(NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET).to_ne_bytes());
        m
    }

    #[test]
    fn a_packet_is_read() {
        let m = packet(&[
            (NFQA_PACKET_HDR, &[0, 0, 0, 9, 8, 0, 0]),
            (NFQA_MARK, &[0x80, 0, 0, 7]),
            (NFQA_SKB_INFO, &[0, 0, 0, 3]),
            (NFQA_PAYLOAD, b"hello"),
        ]);
        let Incoming::Packet(p) = parse(&m) else { panic!("not a packet") };
        assert_eq!((p.id, p.cut, p.partial, p.gso, p.mark), (9, false, true, true, 0x8000_0007));
        assert_eq!(&m[p.start..p.start + p.length], b"hello");
    }

    #[test]
    fn a_cut_packet_is_known_as_such() {
        let m = packet(&[(NFQA_PACKET_HDR, &[0; 7]), (NFQA_CAP_LEN, &[0, 1, 0, 0]), (NFQA_PAYLOAD, b"x")]);
        assert!(matches!(parse(&m), Incoming::Packet(Arrived { cut: true, .. })));
    }

    #[test]
    fn an_answer_carries_its_errno() {
        let mut m = vec![0; 36];
        m[0..4].copy_from_slice(&36u32.to_ne_bytes());
        m[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        m[16..20].copy_from_slice(&(-2i32).to_ne_bytes());
        assert_eq!(parse(&m), Incoming::Answer(2));
    }

    #[test]
    fn binding_is_one_message_of_known_bytes() {
        let m = bind_message(0x0105, 0x1000, false);
        assert_eq!(m.len(), 20 + 8 + 12 + 8 + 8 + 8);
        assert_eq!(&m[18..20], &[1, 5]);
        assert_eq!(&m[20..28], &[8, 0, 1, 0, 1, 0, 0, 0]);
        assert_eq!(&m[28..40], &[9, 0, 2, 0, 0, 0, 0xff, 0xff, 2, 0, 0, 0]);
        assert_eq!(&m[40..48], &[8, 0, 3, 0, 0, 0, 0x10, 0]);
        assert_eq!(&m[48..], &[8, 0, 4, 0, 0, 0, 0, 5, 8, 0, 5, 0, 0, 0, 0, 4]);
        assert_eq!(&bind_message(0x0105, 0x1000, true)[48..], &[8, 0, 4, 0, 0, 0, 0, 5, 8, 0, 5, 0, 0, 0, 0, 5]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_within_bounds(m in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Incoming::Packet(p) = parse(&m) {
                prop_assert!(p.start + p.length <= m.len());
            }
        }

        #[test]
        fn garbled_packets_parse_within_bounds(at in 0usize..60, byte: u8) {
            let mut m = packet(&[(NFQA_PACKET_HDR, &[0; 7]), (NFQA_PAYLOAD, &[7; 20])]);
            let at = at % m.len();
            m[at] = byte;
            if let Incoming::Packet(p) = parse(&m) {
                prop_assert!(p.start + p.length <= m.len());
            }
        }
    }
}
