//! A queue's socket in front of a kernel that says anything: each packet gets one verdict, which is well formed.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use loaded_queue::{QueueSocket, Release, Verdict};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;

/// A socket pair keeps ten datagrams (net.unix.max_dgram_qlen), and each message has one answer at most.
const MOST: usize = 8;

#[derive(Debug, Arbitrary)]
struct Input<'b> {
    messages: Vec<Message<'b>>,
    acts: Vec<Act>,
}

#[derive(Debug, Arbitrary)]
enum Message<'b> {
    /// As it is.
    Raw(&'b [u8]),
    /// A packet message with these attributes.
    Packet { id: u32, attributes: Vec<(u16, &'b [u8])>, wrong_length: Option<u16> },
    /// The kernel's answer.
    Answer(i32),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Act {
    Settle(u8),
    Resized(u8, u16),
    Marked(u32, u32),
    Hold(bool),
    Forget,
    Scribble(u8),
}

thread_local! {
    static QUEUE: RefCell<(QueueSocket, UnixDatagram)> = RefCell::new({
        let (kernel, worker) = UnixDatagram::pair().expect("pair");
        kernel.set_nonblocking(true).expect("nonblocking");
        worker.set_nonblocking(true).expect("nonblocking");
        (QueueSocket::open(worker.into(), 7).expect("socket"), kernel)
    });
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(u16::try_from(4 + value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    let (kind, body, wrong) = match message {
        Message::Raw(bytes) => return bytes.to_vec(),
        Message::Answer(code) => (2_u16, code.to_ne_bytes().to_vec(), None),
        Message::Packet { id, attributes, wrong_length } => {
            let mut body = vec![0; 4];
            attribute(&mut body, 1, &[&id.to_be_bytes()[..], &[8, 0, 1]].concat());
            for (kind, value) in attributes {
                // Those that are read are met often.
                attribute(&mut body, [3, 10, 13, 14, *kind][usize::from(*kind % 5)], value);
            }
            (3 << 8, body, *wrong_length)
        }
    };
    let length = wrong.map_or(16 + body.len(), usize::from);
    let length = u32::try_from(length).expect("short");
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
}

fn verdict(n: u8) -> Verdict {
    [Verdict::Drop, Verdict::Accept, Verdict::Rewrite, Verdict::Repeat][usize::from(n % 4)]
}

/// How many verdicts there are in a send: its messages lie one behind the other.
fn verdicts(sent: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < sent.len() {
        let length = u32::from_ne_bytes(sent[at..at + 4].try_into().expect("a header")) as usize;
        assert!(length >= 32 && at + length <= sent.len(), "a message of {length} at {at} of {}", sent.len());
        assert_eq!(u16::from_ne_bytes([sent[at + 4], sent[at + 5]]), 3 << 8 | 1, "a verdict");
        assert_eq!(sent[at + 18..at + 20], [0, 7], "of our queue");
        // Every byte belongs to an attribute: verdict, then mark or payload, then what fills it up.
        let (end, mut attribute, mut n) = (at + length, at + 20, 0);
        while attribute < end {
            let size = usize::from(u16::from_ne_bytes([sent[attribute], sent[attribute + 1]]));
            let kind = u16::from_ne_bytes([sent[attribute + 2], sent[attribute + 3]]);
            assert!(size >= 4 && attribute + size <= end, "attribute {kind} of {size}");
            assert!(match n {
                0 => kind == 2 && size == 12,
                1 => matches!(kind, 3 | 10 | 0x3ff),
                _ => kind == 0x3ff,
            });
            (attribute, n) = (attribute + size.next_multiple_of(4), n + 1);
        }
        (at, count) = (end, count + 1);
    }
    count
}

fn drain(kernel: &UnixDatagram) -> usize {
    let (mut sent, mut count) = (vec![0; 1 << 18], 0);
    loop {
        match kernel.recv(&mut sent) {
            Ok(length) => count += verdicts(&sent[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    QUEUE.with_borrow_mut(|(socket, kernel)| {
        let unsent = socket.faults().unsent;
        let mut sent = 0;
        for message in input.messages.iter().take(MOST) {
            sent += usize::from(kernel.send(&bytes_of(message)).is_ok());
        }
        let mut acts = input.acts.iter().copied();
        let (mut expected, mut got, mut held) = (0, 0, vec![]);
        // Once more than needed: the second receive sends what is left.
        for _ in 0..2 {
            let received = socket.receive().expect("the socket is there");
            assert!(received <= sent);
            assert_eq!(socket.waiting().count(), received);
            expected += received;
            while let Some(mut packet) = socket.next() {
                let (length, room) = (packet.bytes().len(), packet.room().len());
                assert!(room >= length && room <= length + loaded_queue::SPARE);
                match acts.next() {
                    None | Some(Act::Forget) => drop(packet),
                    Some(Act::Settle(n)) => packet.settle(verdict(n)),
                    Some(Act::Resized(n, length)) => packet.settle_resized(verdict(n), length.into()),
                    Some(Act::Marked(bits, mask)) => packet.settle_marked(bits, mask),
                    Some(Act::Hold(drops)) => {
                        expected -= 1;
                        held.push((packet.hold(), if drops { Release::Drop } else { Release::Repeat }));
                    }
                    Some(Act::Scribble(byte)) => {
                        packet.room().fill(byte);
                        packet.settle(Verdict::Rewrite);
                    }
                }
            }
            socket.flush();
            got += drain(kernel);
        }
        assert_eq!(got, expected, "one verdict each");
        let count = held.len();
        got = 0;
        for (held, release) in held {
            socket.release(held, release);
            got += drain(kernel);
        }
        assert_eq!(got, count, "one verdict each that was held");
        assert_eq!(socket.faults().unsent, unsent);
    });
});
