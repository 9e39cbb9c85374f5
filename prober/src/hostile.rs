//! For tests only (feature `hostile`): a hostile prober, in the real one's sandbox and with nothing but its links. The
//! path of the first HTTP check says what it does; without such a path it is honest.
//!
//! ```text
//!  /hostile/unknown   speaks of backends that do not exist, and of other generations
//!  /hostile/half      sends what is no message: halves, nothing, too much, random bytes
//!  /hostile/mutter    the same, but to the workers alone and for a second; then it is honest
//!  /hostile/flood     sends as many well-formed changes as it can, to supervisor and workers
//!  /hostile/drown     the same, but to the workers alone; the supervisor hears what it expects
//!  /hostile/silent    says nothing
//!  /hostile/alldown   says in good form that every backend is down
//! ```

use crate::check::{CheckPlan, Work};
use crate::clock::{self, SECOND};
use crate::membership::Writers;
use crate::random::Random;
use crate::target::Target;
use loaded_ipc::{BackendIndex, Cause, FromProber, LinkError, MAX_BACKEND_INDEX, MAX_FRAME, ProberSupervisorLink};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::unistd::write;
use std::os::fd::AsFd;

/// Frames to each worker between two looks at the clock.
const BURST: usize = 64;
/// Length of a membership message: fixed integers, little endian.
const MEMBERSHIP: usize = 8 + 2 + 1;

/// What a compromised prober holds.
#[derive(Debug)]
struct Hijacked<'a> {
    link: &'a ProberSupervisorLink,
    workers: &'a Writers,
    targets: &'a [Target],
    generation: u64,
}

/// Behaves as the path of the first HTTP check orders. Returns when that is over and honesty follows, or if there is no
/// such order.
///
/// The link has ended.
/// The link has ended.
pub(crate) fn play(
    plans: &[CheckPlan],
    link: &ProberSupervisorLink,
    workers: &Writers,
    targets: &[Target],
    generation: u64,
) -> Result<(), LinkError> {
    let request = plans.iter().find_map(|plan| match &plan.work {
        Work::Http { request, .. } => Some(request),
        _ => None,
    });
    let path = request.and_then(|request| request.split(|byte| *byte == b' ').nth(1));
    let hijacked = Hijacked { link, workers, targets, generation };
    match path.and_then(|path| path.strip_prefix(b"/hostile/")) {
        Some(b"unknown") => hijacked.unknown(),
        Some(b"half") => hijacked.half(),
        Some(b"mutter") => hijacked.mutter(SECOND),
        Some(b"flood") => hijacked.flood(true),
        Some(b"drown") => hijacked.flood(false),
        Some(b"silent") => loop {
            hijacked.wait(SECOND)?;
        },
        Some(b"alldown") => hijacked.all_down(),
        _ => Ok(()),
    }
}

impl Hijacked<'_> {
    fn unknown(&self) -> Result<(), LinkError> {
        for backend in [0, 1, 7, 4095, MAX_BACKEND_INDEX - 1, MAX_BACKEND_INDEX, u16::MAX].map(BackendIndex) {
            let known = self.targets.iter().any(|target| target.backend == backend);
            let generations = [0, 1, self.generation + 1, self.generation << 32, u64::MAX];
            let generations = generations.into_iter().filter(|generation| *generation != self.generation);
            for generation in generations.chain((!known).then_some(self.generation)) {
                self.tell(&frame(generation, backend, false));
            }
        }
        self.wait(SECOND / 10)?;
        let cause = Cause::Refused;
        // Too many messages in one life would count as a flood.
        let backend = BackendIndex(if clock::now().is_multiple_of(2) { MAX_BACKEND_INDEX - 1 } else { u16::MAX });
        self.linger(|| self.link.send(&FromProber::Changed { backend, up: false, cause, latency: 0 }))
    }

    fn half(&self) -> Result<(), LinkError> {
        self.mutter(SECOND / 10)?;
        let strange = [0xff; 2 * MAX_FRAME];
        let length = [0, 1, 3, 9, MAX_FRAME, 2 * MAX_FRAME][usize::try_from(clock::now() % 6).unwrap_or(0)];
        self.linger(|| match write(self.link, &strange[..length]) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        })
    }

    /// Sends malformed messages to every worker.
    fn mutter(&self, duration: u64) -> Result<(), LinkError> {
        let end = clock::now() + duration;
        let good = frame(self.generation, self.targets.first().map_or(BackendIndex(0), |target| target.backend), false);
        let mut long = [0; 2 * MAX_FRAME];
        long[..MEMBERSHIP].copy_from_slice(&good);
        let mut random = Random::new(end);
        while clock::now() < end {
            for length in 0..MEMBERSHIP {
                self.tell(&good[..length]);
            }
            for length in [MEMBERSHIP + 1, MAX_FRAME, MAX_FRAME + 1, 2 * MAX_FRAME] {
                self.tell(&long[..length]);
            }
            // A boolean that is neither true nor false.
            let mut strange = good;
            strange[MEMBERSHIP - 1] = 2;
            self.tell(&strange);
            // Fixed, not random: generation and backend must not happen to exist.
            let noise: [u8; 10] = std::array::from_fn(|_| random.next().to_le_bytes()[0]);
            self.tell(&noise);
            self.wait(SECOND / 100)?;
        }
        Ok(())
    }

    /// Sends well-formed changes, up and down, as often as there is room. Once a second it reports itself alive, and in
    /// the place of a latency how many frames it tried to send in that second.
    fn flood(&self, supervisor: bool) -> Result<(), LinkError> {
        let Some(first) = self.targets.first() else { return Ok(()) };
        let (mut up, mut sent, mut second) = (first.health.up(), 0, clock::now());
        loop {
            up = !up;
            for target in self.targets {
                let frame = frame(self.generation, target.backend, up);
                for _ in 0..BURST / self.targets.len().clamp(1, BURST) {
                    sent += self.tell(&frame);
                }
            }
            if supervisor {
                let cause = if up { Cause::Passed } else { Cause::Refused };
                let word = FromProber::Changed { backend: first.backend, up, cause, latency: 0 };
                self.say(&word)?;
            }
            if clock::now() >= second + SECOND {
                second = clock::now();
                self.say(&FromProber::Alive { late: 0, delay: 0 })?;
                // More than two timeouts would be an impossible latency.
                let latency = std::mem::take(&mut sent).min(1_000_000);
                self.say(&FromProber::Measured { backend: first.backend, cause: Cause::Passed, latency })?;
            }
        }
    }

    fn all_down(&self) -> Result<(), LinkError> {
        for target in self.targets.iter().filter(|target| target.reported != Some(false)) {
            let cause = Cause::Refused;
            self.say(&FromProber::Changed { backend: target.backend, up: false, cause, latency: 0 })?;
        }
        loop {
            for target in self.targets {
                self.tell(&frame(self.generation, target.backend, false));
            }
            self.say(&FromProber::Alive { late: 0, delay: 0 })?;
            self.wait(SECOND)?;
        }
    }

    /// Sends to every worker; what has no room is lost. Returns how many sends were tried.
    fn tell(&self, frame: &[u8]) -> u32 {
        self.workers.all.iter().map(|writer| write(&writer.link, frame)).fold(0, |count, _| count + 1)
    }

    fn say(&self, word: &FromProber) -> Result<(), LinkError> {
        match self.link.send(word) {
            Err(LinkError::Full) => Ok(()),
            other => other,
        }
    }

    /// Repeats `say` for as long as it is left alive.
    fn linger(&self, say: impl Fn() -> Result<(), LinkError>) -> Result<(), LinkError> {
        loop {
            say()?;
            self.wait(SECOND)?;
        }
    }

    /// Microseconds; less when the link ends.
    fn wait(&self, time: u64) -> Result<(), LinkError> {
        let mut link = [PollFd::new(self.link.as_fd(), PollFlags::empty())];
        match ppoll(&mut link, Some(clock::timespec(time)), None) {
            Ok(0) | Err(Errno::EINTR) => Ok(()),
            Ok(_) => Err(LinkError::Closed),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn frame(generation: u64, backend: BackendIndex, up: bool) -> [u8; MEMBERSHIP] {
    let mut frame = [0; MEMBERSHIP];
    frame[..8].copy_from_slice(&generation.to_le_bytes());
    frame[8..10].copy_from_slice(&backend.0.to_le_bytes());
    frame[10] = u8::from(up);
    frame
}
