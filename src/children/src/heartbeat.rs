//! How often a child that talks of its own accord is heard: neither too seldom nor too often.

use std::time::{Duration, Instant};

/// The window in which messages are counted.
const SECOND: Duration = Duration::from_secs(1);

/// What was heard of a child, and when.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// When it was last heard.
    last: Instant,
    /// Start of this second, and the messages since.
    second: (Instant, u32),
    /// More messages a second than this are an attack.
    most: u32,
    /// One that is silent for this long hangs.
    silence: Duration,
}

impl Heartbeat {
    pub(super) fn new(most: u32, silence: Duration) -> Self {
        let now = Instant::now();
        Self { last: now, second: (now, 0), most, silence }
    }

    /// It has said something.
    ///
    /// # Errors
    /// If it says too much.
    pub(super) fn note(&mut self, now: Instant) -> Result<(), String> {
        self.last = now;
        if now.duration_since(self.second.0) >= SECOND {
            self.second = (now, 0);
        }
        self.second.1 += 1;
        if self.second.1 > self.most {
            return Err(format!("more than {} messages in a second", self.most));
        }
        Ok(())
    }

    /// Its silence begins anew: it was kept from talking.
    pub(super) fn restart(&mut self) {
        self.last = Instant::now();
    }

    /// When it must have been heard again.
    pub(super) fn deadline(&self) -> Instant {
        self.last + self.silence
    }

    /// What it has done wrong if it is not.
    pub(super) fn silent(&self) -> String {
        format!("silent for {:?}", self.silence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_in_a_second_and_too_little_are_told() {
        let mut heartbeat = Heartbeat::new(3, Duration::from_secs(5));
        let begin = heartbeat.last;
        for _ in 0..3 {
            assert_eq!(heartbeat.note(begin), Ok(()));
        }
        assert_eq!(heartbeat.note(begin + SECOND / 2), Err("more than 3 messages in a second".to_owned()));
        assert_eq!(heartbeat.note(begin + SECOND), Ok(()), "another second");
        assert_eq!(heartbeat.deadline(), begin + SECOND + Duration::from_secs(5));
        assert_eq!(heartbeat.silent(), "silent for 5s");
    }
}
