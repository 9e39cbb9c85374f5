//! The most recent changes of membership, to explain last night's incident.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Number of events kept: about 200 kB.
pub const HISTORY: usize = 1000;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: milliseconds since 1970.
    pub at: u64,
    /// Name of the service; `None`: the whole instance.
    pub service: Option<String>,
    /// The backend; `None`: the whole service.
    pub address: Option<IpAddr>,
    /// Its port, if its packets get one.
    #[serde(default)]
    pub port: Option<u16>,
    /// From what to what: `up -> down`.
    pub what: String,
    /// Why: `connection refused`.
    pub cause: String,
    /// Who saw it or asked for it.
    pub by: By,
}

/// Who caused a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The prober's checks.
    Check,
    /// What a worker saw in its packets, or in the tables that it took over.
    Packets,
    /// A person, through the control socket.
    Operator,
    /// A reload of the configuration.
    Reload,
    /// Discovery.
    Discovery,
    /// The kernel: a process was killed by its sandbox, or something of ours on this host was removed.
    Kernel,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Check => "check",
            Self::Packets => "packets",
            Self::Operator => "operator",
            Self::Reload => "reload",
            Self::Discovery => "discovery",
            Self::Kernel => "kernel",
        })
    }
}

/// The last [`HISTORY`] events.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History(VecDeque<Event>);

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; if there are too many, the oldest one reported by a child goes first. A hostile child may talk for
    /// hours, and must not push out what the kernel and the operator did.
    pub fn push(&mut self, event: Event) {
        if self.0.len() == HISTORY {
            let said = |event: &Event| matches!(event.by, By::Check | By::Packets | By::Discovery);
            self.0.remove(self.0.iter().position(said).unwrap_or(0));
        }
        self.0.push_back(event);
    }

    /// The last `n` (or fewer, if there are not so many), oldest first.
    #[must_use]
    pub fn last(&self, n: usize) -> Vec<Event> {
        self.0.iter().skip(self.0.len().saturating_sub(n)).cloned().collect()
    }
}

/// A time as [`Event::at`] has it; 0 for one before 1970.
#[must_use]
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn event(at: u64) -> Event {
        let address = "198.51.100.11".parse().ok();
        let (service, what, cause) = (Some("web".to_owned()), "up -> down".to_owned(), "no answer to ping".to_owned());
        Event { at, service, address, port: None, what, cause, by: By::Check }
    }

    #[test]
    fn the_last_thousand_are_kept_in_order() {
        let mut history = History::new();
        assert_eq!(history.last(5), []);
        for at in 0..2500 {
            history.push(event(at));
        }
        let times = |n| history.last(n).iter().map(|event| event.at).collect::<Vec<_>>();
        assert_eq!(times(3), [2497, 2498, 2499]);
        assert!(times(0).is_empty());
        assert_eq!(times(usize::MAX), (1500..2500).collect::<Vec<_>>());
    }

    #[test]
    fn what_children_say_washes_nothing_else_away() {
        let mut history = History::new();
        history.push(Event { by: By::Kernel, ..event(0) });
        (1..5000).for_each(|at| history.push(event(at)));
        let kept = history.last(usize::MAX);
        assert_eq!((kept.len(), kept[0].at, kept[1].at), (HISTORY, 0, 4001));
        (0..5000).for_each(|at| history.push(Event { by: By::Operator, ..event(at) }));
        assert_eq!(history.last(usize::MAX)[0].at, 4000);
    }

    #[test]
    fn times_are_milliseconds_since_1970() {
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_micros(1_234_567)), 1234);
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }
}
