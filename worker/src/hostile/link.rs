//! What a hijacked worker can say to the supervisor, and how it can waste time.

use loaded_ipc::{Assumed, Explained, FromWorker, MAX_FRAME, Outcome, SupervisorLink, ToWorker};
use loaded_sandbox::leave;
use nix::unistd::write;

type LinkAttempt = fn(&SupervisorLink, u64) -> i64;

/// An answer that any worker could give.
const LIE: Explained =
    Explained { assumed: Assumed::Any, outcome: Outcome::PassedForeign, service: None, flow: None, chosen: None };

/// By name. The number they take is the generation that the datagram names.
const ATTEMPTS: [(&str, LinkAttempt); 19] = [
    ("link: bytes that are no message", |link, _| raw(link, &[0xff; 64])),
    ("link: an empty message", |link, _| raw(link, &[])),
    ("link: half a message", |link, _| raw(link, &[0; 3])),
    ("link: a message and more", |link, _| raw(link, &[0; 64])),
    ("link: a message longer than any", |link, _| raw(link, &[0; 2 * MAX_FRAME])),
    ("link: bytes without end", |link, _| {
        loop {
            raw(link, &[0xff; MAX_FRAME]);
        }
    }),
    ("link: ready once more", |link, generation| say(link, &FromWorker::Ready { generation })),
    ("link: ready in another generation", |link, generation| {
        say(link, &FromWorker::Ready { generation: generation + 1 })
    }),
    ("link: prepared once more", |link, generation| say(link, &FromWorker::Prepared { generation })),
    ("link: an answer nobody asked for", |link, _| say(link, &FromWorker::Explained { id: 7, explained: LIE })),
    ("link: last words without end", |link, _| {
        loop {
            say(link, &FromWorker::Failed("not yet".to_owned()));
        }
    }),
    ("link: last words that forge a log", |link, _| {
        let text = "\x1b[2J\nloaded: worker[1]: killed by its own sandbox\r\n\u{202e}";
        say(link, &FromWorker::Failed(text.to_owned()));
        leave(3)
    }),
    ("link: a lie about a packet", |link, _| {
        loop {
            if let Ok(ToWorker::Explain { id, .. }) = link.receive() {
                return say(link, &FromWorker::Explained { id, explained: LIE });
            }
        }
    }),
    ("link: flows ended that nobody named", |link, _| say(link, &FromWorker::Ended { id: 7, ended: 3 })),
    ("link: a lie about ended flows", |link, _| ended(link, |id| vec![(id, u32::MAX)])),
    ("link: ended flows told twice", |link, _| ended(link, |id| vec![(id, 1), (id, 1)])),
    ("link: ended flows of another order", |link, _| ended(link, |id| vec![(id.wrapping_add(1), 1)])),
    ("time: spin", |_, _| {
        loop {
            std::hint::spin_loop();
        }
    }),
    ("time: end as if in order", |_, _| leave(0)),
];

pub(super) fn find(name: &[u8]) -> Option<LinkAttempt> {
    ATTEMPTS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, attempt)| *attempt)
}

/// Waits for an order to end flows, ends none, and says these numbers of orders and flows.
fn ended(link: &SupervisorLink, lies: impl Fn(u32) -> Vec<(u32, u32)>) -> i64 {
    loop {
        if let Ok(ToWorker::End { id, .. }) = link.receive() {
            return lies(id).into_iter().map(|(id, ended)| say(link, &FromWorker::Ended { id, ended })).sum();
        }
    }
}

fn raw(link: &SupervisorLink, bytes: &[u8]) -> i64 {
    write(link, bytes).map_or_else(|errno| -i64::from(errno as i32), |length| i64::try_from(length).unwrap_or(i64::MAX))
}

fn say(link: &SupervisorLink, message: &FromWorker) -> i64 {
    i64::from(link.send(message).is_err())
}
