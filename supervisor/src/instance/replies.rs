//! Replies that the rules refuse: packets in a backend's name that come by another interface than the route to the backend
//! leads through. Checks stay green while these are lost, so nothing else would show why clients get no answer.

use loaded_netfilter::refused_replies_text;
use std::time::{Duration, Instant};

/// Time between two looks. Where iptables is the legacy one each of them runs programs that list all rules.
const EVERY: Duration = Duration::from_secs(5);
/// After a look that takes long the next one waits this many times as long.
const REST: u32 = 500;
/// How long a rise is told of after the last one. Log and history have no more than one line in this time: whoever forges such
/// packets must not fill them.
const LASTS: Duration = Duration::from_secs(600);

/// What was refused of late.
#[derive(Debug)]
pub(super) struct RefusedReplies {
    due: Instant,
    /// As the rules counted it last; they begin at 0 whenever they are written.
    counted: u64,
    total: u64,
    /// When the number was last seen to rise, and when that was last told.
    rose: Option<Instant>,
    told: Option<Instant>,
}

impl RefusedReplies {
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + EVERY, counted: 0, total: 0, rose: None, told: None }
    }

    /// All that were refused since this supervisor has begun.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// What to tell while some were refused of late.
    pub(super) fn recent(&self, now: Instant) -> Option<String> {
        is_recent(self.rose, now).then(|| refused_replies_text(self.total))
    }

    /// Whether to look again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// A look that began at `now` is over.
    pub(super) fn rest(&mut self, now: Instant) {
        self.due = now + EVERY.max(now.elapsed() * REST);
    }

    /// Notes what the rules have counted; what to tell, if this is news.
    pub(super) fn note(&mut self, counted: u64, now: Instant) -> Option<String> {
        let before = std::mem::replace(&mut self.counted, counted);
        let more = if counted < before { counted } else { counted - before };
        if more == 0 {
            return None;
        }
        self.total = self.total.saturating_add(more);
        self.rose = Some(now);
        if is_recent(self.told, now) {
            return None;
        }
        self.told = Some(now);
        Some(refused_replies_text(self.total))
    }
}

fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < LASTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_is_told_once_in_a_while_and_rules_that_are_written_anew_count_from_zero() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut replies = RefusedReplies::new(begin);
        assert_eq!((replies.note(0, at(10)), replies.recent(at(10))), (None, None));
        assert!(replies.note(7, at(20)).is_some_and(|text| text.starts_with("7 packets ")));
        assert_eq!(replies.note(9, at(30)), None, "told already");
        assert_eq!((replies.note(9, at(40)), replies.total()), (None, 9));
        // Written anew: three more.
        assert_eq!((replies.note(3, at(50)), replies.total()), (None, 12));
        assert!(replies.recent(at(649)).is_some_and(|text| text.starts_with("12 packets ")));
        assert_eq!(replies.recent(at(650)), None);
        assert!(replies.note(4, at(700)).is_some_and(|text| text.starts_with("13 packets ")));
    }
}
