//! What passes: connections that have ceased to come though the backends answer, replies that do not come back, and replies of
//! connections that have begun elsewhere. Something is wrong then that does not show on this host: at a router, at the backends, in a
//! filter that nobody sees, or between several balancers that serve at once.
//!
//! All are told, and no matter of the verdict: clients may have gone home, and whoever sends to a VIP can send what no backend
//! answers.

use std::fmt;
use std::time::Duration;

/// Length of the periods that are compared.
pub(in crate::instance) const PERIOD: Duration = Duration::from_secs(5);
/// So many connections begin in a period of a service that is in steady use: one a second.
const IN_USE: u64 = 5;
/// So many such periods in a row, five minutes, make it steady.
const STEADY: u32 = 60;
/// So many periods without any connection after that are told: half a minute. What seems to come at random at a rate of one a
/// second pauses so long once in 10^13 times.
const PAUSE: u32 = 6;
/// After so many, ten minutes, clients have gone home.
const GONE: u32 = 120;
/// So many connections in each of [`UNANSWERED`] periods without a single packet from a backend are told, and so many orphans: a client
/// or two may be odd, and what a failover leaves behind is over by then.
const MANY: u64 = 20;
const UNANSWERED: u32 = 2;
/// So many periods with fewer, a minute, end it.
const CALM: u32 = 12;

/// What has passed, of one service and family, since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::instance) struct Passed {
    /// Flows that have begun.
    pub(in crate::instance) begun: u64,
    /// Packets that backends have sent through this host; `None`: they need not (mode "dsr").
    pub(in crate::instance) replies: Option<u64>,
}

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::instance) enum Oddity {
    /// A steady stream of connections has ceased.
    Stopped,
    /// Connections begin, and no backend's packet comes back.
    Unanswered,
}

/// Backends' packets that were dropped because their connections are not known here.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::instance) struct OrphanTrend {
    /// `None`: before the first look.
    last: Option<u64>,
    periods: u32,
    /// Quiet periods since many came.
    quiet: u32,
}

impl OrphanTrend {
    /// Notes how many there are by now; to be called once in a period.
    pub(in crate::instance) fn note(&mut self, dropped: u64) {
        let more = self.last.replace(dropped).map_or(0, |last| dropped.saturating_sub(last));
        match more >= MANY {
            true => (self.periods, self.quiet) = (self.periods.saturating_add(1), 0),
            false if self.are_many() && self.quiet < CALM => self.quiet += 1,
            false => (self.periods, self.quiet) = (0, 0),
        }
    }

    /// Whether they come and come, or did within the last minute: bursts are told once.
    pub(in crate::instance) fn are_many(&self) -> bool {
        self.periods >= UNANSWERED
    }
}

/// The trend of one service and family, or of one backend.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::instance) struct Trend {
    /// `None`: before the first look. Counters outlive a supervisor.
    last: Option<Passed>,
    steady: u32,
    pause: u32,
    unanswered: u32,
}

impl Trend {
    /// Notes what has passed by now; to be called once in a period.
    pub(in crate::instance) fn note(&mut self, passed: Passed) {
        let Some(last) = self.last.replace(passed) else { return };
        // A backend has left, with its figures.
        let Some(begun) = passed.begun.checked_sub(last.begun) else { return };
        match begun {
            0 if self.steady >= STEADY && self.pause < GONE => self.pause += 1,
            IN_USE.. => (self.steady, self.pause) = (self.steady.saturating_add(1), 0),
            _ => (self.steady, self.pause) = (0, 0),
        }
        let answered = passed.replies.zip(last.replies).is_none_or(|(now, before)| now != before);
        match begun {
            _ if answered => self.unanswered = 0,
            MANY.. => self.unanswered = self.unanswered.saturating_add(1),
            // Too few to say anything.
            1.. => {}
            0 => self.unanswered = 0,
        }
    }

    pub(in crate::instance) fn oddity(&self) -> Option<Oddity> {
        match () {
            () if self.unanswered >= UNANSWERED => Some(Oddity::Unanswered),
            () if self.pause >= PAUSE => Some(Oddity::Stopped),
            () => None,
        }
    }
}

impl Oddity {
    /// The name of the condition.
    pub(in crate::instance) fn name(self) -> &'static str {
        match self {
            Self::Stopped => "traffic_stopped",
            Self::Unanswered => "no_replies",
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => {
                "no connection has begun for half a minute, after one a second or more for five minutes, and backends are up: look \
                 whether clients reach this host"
            }
            Self::Unanswered => {
                "connections go on to backends, and not one packet of theirs has come back through this host for ten seconds: look \
                 whether they route their replies through it, and whether anything but netfilter drops them here (tc, XDP, IPsec)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told after each period with so many connections and replies.
    fn told(periods: &[(u64, Option<u64>)]) -> Vec<Option<Oddity>> {
        let mut passed = Passed { begun: 1000, replies: periods.first().and_then(|(_, replies)| replies.map(|_| 7)) };
        let mut trend = Trend::default();
        trend.note(passed);
        let told = periods.iter().map(|(begun, replies)| {
            passed.begun += begun;
            passed.replies = passed.replies.zip(*replies).map(|(before, more)| before + more);
            trend.note(passed);
            trend.oddity()
        });
        told.collect()
    }

    #[test]
    fn a_stream_of_connections_that_stops_is_told_until_clients_have_gone_home_or_come_back() {
        let steady = [(5, Some(50)); 60];
        let after = |more: &[(u64, Option<u64>)]| told(&[&steady[..], more].concat()).split_off(60);
        let pause = after(&[(0, Some(0)); 121]);
        assert!(
            pause[..5].iter().all(Option::is_none) && pause[5..120].iter().all(|told| *told == Some(Oddity::Stopped))
        );
        assert_eq!(pause[120], None, "gone home");
        let back = after(&[[(0, Some(0)); 8].as_slice(), &[(1, Some(1))]].concat());
        assert_eq!(back[7..], [Some(Oddity::Stopped), None]);
        assert!(
            told(&[[(5, None); 59].as_slice(), &[(0, None); 60]].concat()).iter().all(Option::is_none),
            "too short"
        );
        assert!(told(&[[(4, None); 90].as_slice(), &[(0, None); 60]].concat()).iter().all(Option::is_none), "too few");
    }

    #[test]
    fn connections_without_any_reply_are_told_until_one_comes() {
        let many = (20, Some(0));
        let expected =
            [None, Some(Oddity::Unanswered), Some(Oddity::Unanswered), None, None, Some(Oddity::Unanswered), None];
        assert_eq!(told(&[many, many, (1, Some(0)), (20, Some(1)), many, many, (0, Some(0))]), expected);
        assert!(told(&[(19, Some(0)); 9]).iter().all(Option::is_none), "too few");
        assert!(told(&[(99, None); 9]).iter().all(Option::is_none), "replies take another way");
    }

    #[test]
    fn orphans_are_told_while_many_come() {
        let mut orphans = OrphanTrend::default();
        let mut told = |all: &[u64]| -> Vec<_> {
            let each = all.iter().map(|dropped| {
                orphans.note(*dropped);
                orphans.are_many()
            });
            each.collect()
        };
        assert_eq!(told(&[5000, 5020, 5040, 5059, 5079]), [false, false, true, true, true]);
        assert_eq!(told(&[5080; 13]), [[true; 12].as_slice(), &[false]].concat(), "a minute after the last of them");
        assert_eq!(told(&[0, 20, 39]), [false; 3]);
    }

    #[test]
    fn a_backend_that_leaves_takes_its_figures_with_it() {
        let mut trend = Trend::default();
        for (begun, replies) in [(50, 9), (20, 4), (20, 4)] {
            trend.note(Passed { begun, replies: Some(replies) });
        }
        assert_eq!(trend.oddity(), None);
    }
}
