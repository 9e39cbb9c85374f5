//! The worker's end of the link from the prober: active checks report backends up or down. The messages may be hostile,
//! since the prober talks to strangers. Nothing it can send ends a worker, makes it allocate, or takes more than a fixed part
//! of its time from the packets.

use crate::decide::Decider;
use crate::time::Now;
use loaded_ipc::{Fault, LinkError, MAX_FRAME, Membership, MembershipReader, decode};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::read;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Maximum number of messages read in one poll.
const MESSAGES: usize = 32;
/// After a poll that brought something the link rests this many times as long as the poll took: in a flood of messages,
/// packets still get four fifths of the time.
const REST: u32 = 4;
/// Bytes of a [`Membership`] on the link: fixed integers, little endian. One of this length with a valid `bool` at its end
/// always decodes; a decoding error would allocate its text.
const LENGTH: usize = 8 + 2 + 1;

/// How long the link rests after a poll of nothing but empty messages: it may have ended, which looks the same (unix(7)), or
/// a hostile prober sends them and its successor will not.
const PAUSE: Duration = Duration::from_millis(100);

/// The link.
#[derive(Debug)]
pub(crate) struct Inbox {
    link: OwnedFd,
    generation: u64,
    /// When it may be polled again.
    rests_until: Duration,
}

impl Inbox {
    /// Takes over the link and makes this end non-blocking.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub(crate) fn new(link: OwnedFd, generation: u64) -> Result<Self, LinkError> {
        let link = MembershipReader::from_fd(link);
        link.set_nonblocking()?;
        Ok(Self { link: link.into(), generation, rests_until: Duration::ZERO })
    }

    /// Reads what has come and tells the decider. A message that makes no sense is counted and has no other effect.
    pub(crate) fn poll(&mut self, decider: &mut Decider, now: Now) {
        let begin = clock();
        if begin < self.rests_until {
            return;
        }
        let (mut empty, mut others) = (0, 0);
        for _ in 0..MESSAGES {
            // One byte more than a frame may have: a longer message is cut by the kernel and would look whole.
            let mut frame = [0; MAX_FRAME + 1];
            match read(&self.link, &mut frame) {
                Ok(0) => empty += 1,
                Ok(length) => {
                    others += 1;
                    if self.apply(&frame[..length], decider, now).is_none() {
                        decider.counters().add(Fault::MembershipStrange.index(), 1);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if empty == MESSAGES {
            self.rests_until = clock() + PAUSE;
        } else if others > 0 {
            let end = clock();
            self.rests_until = end + end.saturating_sub(begin) * REST;
        }
    }

    /// `None` if the message makes no sense.
    fn apply(&self, frame: &[u8], decider: &mut Decider, now: Now) -> Option<()> {
        let plausible = frame.len() == LENGTH && frame.last().is_some_and(|up| *up <= 1);
        let Membership { generation, backend, up } = plausible.then(|| decode(frame).ok())??;
        match generation {
            // From before this worker: its indices have another meaning.
            older if older < self.generation => Some(()),
            ours if ours == self.generation => decider.set_up(backend, up, now).ok(),
            _ => None,
        }
    }
}

fn clock() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::example;
    use loaded_ipc::{BackendCounter, BackendIndex, MembershipWriter, View};
    use nix::unistd::write;
    use std::os::fd::AsFd;

    const NOW: Now = Now { seconds: 1000, millis: 1_000_000 };
    const KNOWN: BackendIndex = BackendIndex(5);

    /// The prober's end, the worker's end, and a decider of generation 7 that knows backend 5.
    fn pair() -> (MembershipWriter, Inbox, Decider) {
        let (prober, worker) = MembershipWriter::pair().expect("pair");
        (prober, Inbox::new(worker.into(), 7).expect("inbox"), example(NOW))
    }

    fn strange(decider: &Decider) -> u64 {
        decider.counters().get(Fault::MembershipStrange.index()).expect("a counter")
    }

    fn is_up(decider: &Decider) -> bool {
        let word = decider.counters().get(BackendCounter::View.index(KNOWN)).expect("a counter");
        View::from_word(word).expect("a view").up
    }

    #[test]
    fn the_prober_sets_backends_up_and_down() {
        let (prober, mut inbox, mut decider) = pair();
        for up in [false, true, true, false] {
            prober.send(&Membership { generation: 7, backend: KNOWN, up }).expect("send");
            inbox.rests_until = Duration::ZERO;
            inbox.poll(&mut decider, NOW);
            assert_eq!(is_up(&decider), up);
        }
        assert_eq!(strange(&decider), 0);
    }

    #[test]
    fn messages_without_sense_are_counted_and_ignored() {
        let (prober, mut inbox, mut decider) = pair();
        let down = |generation, backend| Membership { generation, backend, up: false };
        // Of an older generation: ignored, and no fault.
        prober.send(&down(6, KNOWN)).expect("send");
        prober.send(&down(8, KNOWN)).expect("send");
        for backend in [0, 4, 6, 8191, 65535] {
            prober.send(&down(7, BackendIndex(backend))).expect("send");
        }
        let mut whole = [7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2];
        for frame in [&whole[..], &whole[..10], &[], &[0; 512], &[0; 3000]] {
            write(prober.as_fd(), frame).expect("write");
        }
        inbox.poll(&mut decider, NOW);
        assert!(is_up(&decider));
        assert_eq!(strange(&decider), 1 + 5 + 4, "an empty message looks like the end of the link, and is no fault");
        whole[10] = 0;
        inbox.rests_until = Duration::ZERO;
        write(prober.as_fd(), &whole).expect("write");
        inbox.poll(&mut decider, NOW);
        assert!(!is_up(&decider), "whatever came before");
    }

    #[test]
    fn a_flood_of_messages_is_read_in_small_parts_with_rests() {
        let (prober, mut inbox, mut decider) = pair();
        prober.set_nonblocking().expect("nonblocking");
        let unknown = Membership { generation: 7, backend: BackendIndex(1), up: true };
        let (mut sent, mut polls) = (0, 0);
        for _ in 0..2000 {
            while prober.send(&unknown).is_ok() {
                sent += 1;
            }
            let before = (strange(&decider), inbox.rests_until);
            inbox.poll(&mut decider, NOW);
            let read = strange(&decider) - before.0;
            assert!(read <= MESSAGES as u64);
            polls += u64::from(read > 0);
            // Without a pause between them, most polls fall into a rest.
            assert_eq!(read > 0, inbox.rests_until > before.1);
        }
        assert!(sent > 0 && polls > 0 && polls < 1500, "{polls} of 2000 polls");
        assert!(is_up(&decider));
    }

    #[test]
    fn a_closed_link_is_quiet() {
        let (prober, mut inbox, mut decider) = pair();
        prober.send(&Membership { generation: 7, backend: KNOWN, up: false }).expect("send");
        drop(prober);
        inbox.poll(&mut decider, NOW);
        assert!(!is_up(&decider), "what was said before it closed counts");
        inbox.rests_until = Duration::ZERO;
        inbox.poll(&mut decider, NOW);
        assert!(inbox.rests_until > clock(), "it is not polled again and again");
        assert_eq!(strange(&decider), 0);
    }

    #[test]
    fn a_message_is_as_long_as_expected() {
        let mut frame = [0; MAX_FRAME];
        let (prober, worker) = MembershipWriter::pair().expect("pair");
        let last = Membership { generation: u64::MAX, backend: BackendIndex(u16::MAX), up: true };
        prober.send(&last).expect("send");
        assert_eq!(read(&worker, &mut frame), Ok(LENGTH));
        assert_eq!(frame[LENGTH - 1], 1);
    }
}
