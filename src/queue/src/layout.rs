//! The layout of a worker's two memory regions, and the choice of the template that answers a run of packets. Pure
//! arithmetic.
//!
//! A *slot* holds one received packet and, in the same place, the body of its verdict message:
//!
//! ```text
//! slot: | HEADROOM: headers and attributes as received | body: verdict attr | payload attr | payload | filler |
//! ```
//!
//! The kernel reads exactly the bytes that a template's iovecs name. Their lengths are sealed, so a body has one of a
//! few fixed lengths, and a filler attribute takes up what the payload leaves over.

use crate::netlink::{ATTR, MAX_PAYLOAD, align};

/// Packets read at once, and verdicts sent at once.
pub const BATCH: usize = 32;
/// Spare bytes after a packet, for an answer longer than the packet: an ICMPv6 error puts 40 bytes of IP header and 8
/// of its own before what it quotes, an ICMP error 20 and 8.
pub const SPARE: usize = 48;
/// The shortest packet: an IPv4 header. The kernel does not check this; it would route a shorter one by leftover bytes
/// of the old packet.
const SHORTEST: usize = 20;

/// `NFQA_VERDICT_HDR`: attribute header, verdict, packet id.
pub(crate) const VERDICT_ATTR: usize = ATTR + 8;
/// A verdict followed by `NFQA_MARK`: the body of a marked packet.
pub(crate) const MARKED: usize = VERDICT_ATTR + ATTR + 4;
/// Where the payload begins in a body.
pub(crate) const PAYLOAD_AT: usize = VERDICT_ATTR + ATTR;
/// Space before a body for whatever precedes the payload in a received message. On Ethernet the kernel's attributes
/// take about 100 bytes; a message with more is moved into place.
pub(crate) const HEADROOM: usize = 512;

/// Length of a body for a verdict without payload, an ACK or a small request.
const SMALL: usize = 256;
/// Length of a body for a packet of an Ethernet's MTU.
const MEDIUM: usize = 1536;
/// Larger bodies are sent one by one, in multiples of this length.
const STEP: usize = 512;
/// Number of lengths for single sends: (step + 1) * STEP up to the largest payload.
pub(crate) const STEPS: usize = (PAYLOAD_AT + MAX_PAYLOAD + ATTR).div_ceil(STEP);
/// Largest body.
const LARGEST: usize = STEPS * STEP;

/// Distance between slots. The odd cache line keeps slots from falling into the same cache sets, as they would at a
/// multiple of 4096.
pub(crate) const STRIDE: usize = (HEADROOM + LARGEST + 64).next_multiple_of(4096) + 64;
const _: () = assert!(PAYLOAD_AT + MAX_PAYLOAD + ATTR <= LARGEST && STRIDE % 4096 == 64);
/// Size of all slots, bytes.
pub(crate) const ARENA: usize = BATCH * STRIDE;

/// The two body lengths that are sent in batches.
pub(crate) const BATCHED: [usize; 2] = [SMALL, MEDIUM];

/// Offset of a slot's body in the arena.
pub(crate) const fn body_at(slot: usize) -> usize {
    slot * STRIDE + HEADROOM
}

/// The longest answer to a packet of `length` bytes: the packet and [`SPARE`], as far as an attribute can carry it. A
/// slot always has room for [`MAX_PAYLOAD`].
pub(crate) const fn room(length: usize) -> usize {
    let room = length + SPARE;
    if room < MAX_PAYLOAD { room } else { MAX_PAYLOAD }
}

/// Whether a packet of `length` bytes can become one of `new` bytes.
pub(crate) const fn fits(new: usize, length: usize) -> bool {
    new >= SHORTEST && new <= room(length)
}

/// Length of a body that is sent alone, at this step.
pub(crate) const fn step_length(step: usize) -> usize {
    (step + 1) * STEP
}

/// Number of templates: every window of slots in both batched lengths, and every step in every slot.
pub(crate) const TEMPLATES: usize = BATCHED.len() * BATCH * BATCH + BATCH * STEPS;

/// Index of the template that sends `count` (1..=BATCH) bodies, starting at slot `first`.
pub(crate) const fn batched_template(class: usize, first: usize, count: usize) -> usize {
    (class * BATCH + first) * BATCH + count - 1
}

/// Index of the template that sends one slot's body at the length of a step.
pub(crate) const fn single_template(slot: usize, step: usize) -> usize {
    BATCHED.len() * BATCH * BATCH + slot * STEPS + step
}

/// What one slot sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// No verdict is due: the message was an answer of the kernel, not a packet.
    Nothing,
    /// A verdict; the packet stays as it is.
    Bare,
    /// A verdict and a new mark; the content stays as it is.
    Marked,
    /// A verdict and new content of this length.
    Payload(usize),
}

impl Body {
    /// Bytes of attributes before the filler.
    pub(crate) fn used(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Bare => VERDICT_ATTR,
            Self::Marked => MARKED,
            Self::Payload(length) => PAYLOAD_AT + align(length),
        }
    }

    fn class(self) -> Option<usize> {
        BATCHED.iter().position(|&length| self.used() <= length)
    }
}

/// One send: a template, and the slots and body length it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) template: usize,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) length: usize,
}

/// Chooses the send that answers the bodies from `first` on; `None` when none is left.
///
/// Order is kept, so the packets of a flow leave as they came. A run of small bodies stops before a medium one only if
/// it is long enough to be worth a send of its own: below that, copying longer bodies is cheaper.
pub(crate) fn next_run(bodies: &[Body], mut first: usize) -> Option<Run> {
    const WORTH_A_SEND: usize = 6;
    while bodies.get(first)? == &Body::Nothing {
        first += 1;
    }
    let Some(mut class) = bodies[first].class() else {
        let step = bodies[first].used().div_ceil(STEP).saturating_sub(1).min(STEPS - 1);
        return Some(Run { template: single_template(first, step), first, count: 1, length: step_length(step) });
    };
    let mut count = 1;
    let mut small_tail = usize::from(class == 0);
    for body in &bodies[first + 1..] {
        match (body, body.class()) {
            (Body::Nothing, _) | (_, None) => break,
            (_, Some(0)) => {
                small_tail += 1;
                if class == 1 && small_tail >= WORTH_A_SEND {
                    count -= WORTH_A_SEND - 1;
                    break;
                }
            }
            (_, Some(_)) => {
                if class == 0 && count >= WORTH_A_SEND {
                    break;
                }
                class = 1;
                small_tail = 0;
            }
        }
        count += 1;
    }
    Some(Run { template: batched_template(class, first, count), first, count, length: BATCHED[class] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            1 => Just(Body::Nothing),
            2 => Just(Body::Bare),
            2 => Just(Body::Marked),
            4 => (20usize..240).prop_map(Body::Payload),
            4 => (241usize..1520).prop_map(Body::Payload),
            1 => (1521..=MAX_PAYLOAD).prop_map(Body::Payload),
        ]
    }

    #[test]
    fn every_room_lies_in_its_slot_and_its_answer_in_a_body() {
        for length in [0, 1, 20, 200, 1500, 30_000, MAX_PAYLOAD - SPARE, MAX_PAYLOAD - 1, MAX_PAYLOAD] {
            let room = room(length);
            assert!(room >= length && room <= MAX_PAYLOAD && (room == length + SPARE || room == MAX_PAYLOAD));
            assert!(PAYLOAD_AT + room + HEADROOM <= STRIDE && Body::Payload(room).used() + ATTR <= LARGEST);
            assert!(fits(room, length) && !fits(room + 1, length) && !fits(SHORTEST - 1, length));
        }
    }

    proptest! {
        #[test]
        fn every_body_is_sent_once_in_order_and_fits(bodies in prop::collection::vec(body(), 0..=BATCH)) {
            let mut sent = Vec::new();
            let mut at = 0;
            while let Some(run) = next_run(&bodies, at) {
                prop_assert!(run.count >= 1 && run.template < TEMPLATES);
                for (slot, body) in bodies.iter().enumerate().skip(run.first).take(run.count) {
                    prop_assert!(*body != Body::Nothing);
                    prop_assert!(body.used() == run.length || body.used() + ATTR <= run.length);
                    sent.push(slot);
                }
                at = run.first + run.count;
            }
            let due: Vec<_> = (0..bodies.len()).filter(|&i| bodies[i] != Body::Nothing).collect();
            prop_assert_eq!(sent, due);
        }
    }

    #[test]
    fn equal_bodies_leave_in_one_send() {
        for body in [Body::Bare, Body::Marked, Body::Payload(52), Body::Payload(1500)] {
            let run = next_run(&[body; BATCH], 0).expect("a run");
            assert_eq!((run.first, run.count), (0, BATCH));
        }
    }

    #[test]
    fn a_long_run_of_small_bodies_does_not_pay_for_a_medium_one() {
        let mut bodies = [Body::Payload(52); BATCH];
        bodies[20] = Body::Payload(1500);
        let run = next_run(&bodies, 0).expect("a run");
        assert_eq!((run.count, run.length), (20, SMALL));
        let run = next_run(&bodies, 20).expect("a run");
        assert_eq!((run.count, run.length), (1, MEDIUM));
    }
}
