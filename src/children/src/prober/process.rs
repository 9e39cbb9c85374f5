//! One process of the prober, from its start to its end, and what it says.

use crate::child::{Child, ChildSpec, printable};
use crate::heartbeat::Heartbeat;
use loaded_ipc::{BackendIndex, Cause, FromProber, ServiceIndex, ToProber};
use loaded_roster::{Impossible, Roster};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// A prober that is silent for this long hangs: it sends a heartbeat every second.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Messages heard at a time; the rest wait.
const HEARD_AT_ONCE: u32 = 256;

#[derive(Debug)]
pub(super) struct ProberProcess {
    pub(super) child: Child<FromProber, ToProber>,
    pub(super) generation: u64,
    pub(super) stage: ProberStage,
    pub(super) heartbeat: Heartbeat,
    /// We have ended it, so that another one starts at once.
    pub(super) stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProberStage {
    /// Seals itself and takes its configuration.
    Preparing,
    Probing,
}

/// What the prober's messages have brought.
#[derive(Debug, Default)]
pub struct ProberNews {
    /// Backends that went up or down.
    pub changed: Vec<BackendIndex>,
    /// Nodes that have answered a search for new backends.
    pub found: Vec<(ServiceIndex, IpAddr)>,
    /// Checks that began late, and by how many milliseconds the latest did.
    pub(super) late: (u32, u32),
    /// Results of checks: which backend's, what came of it, and how many microseconds it took.
    pub(super) results: Vec<(BackendIndex, Cause, u32)>,
}

impl ProberProcess {
    pub(super) fn deadline(&self) -> Instant {
        if self.stage == ProberStage::Probing { self.heartbeat.deadline() } else { self.child.deadline() }
    }

    pub(super) fn talk(&mut self, spec: &ChildSpec, roster: &mut Roster, news: &mut ProberNews) -> Result<(), String> {
        self.child.flush()?;
        let now = Instant::now();
        for _ in 0..HEARD_AT_ONCE {
            let Some(message) = self.child.hear()? else { break };
            self.heartbeat.note(now)?;
            self.take(message, spec, roster, news, now)?;
        }
        match self.deadline() <= now {
            false => Ok(()),
            true if self.stage == ProberStage::Probing => Err(self.heartbeat.silent()),
            true => Err("not ready in time".to_owned()),
        }
    }

    fn take(
        &mut self,
        message: FromProber,
        spec: &ChildSpec,
        roster: &mut Roster,
        news: &mut ProberNews,
        now: Instant,
    ) -> Result<(), String> {
        match (message, self.stage) {
            (FromProber::Failed(text), _) => self.child.note_reason(&text)?,
            (FromProber::Prepared { generation }, ProberStage::Preparing)
                if generation == self.generation && self.child.was_told() =>
            {
                self.child.prove(spec)?;
                self.child.tell(ToProber::Go);
                self.child.flush()?;
                self.stage = ProberStage::Probing;
            }
            (FromProber::Alive { late, delay }, ProberStage::Probing) => {
                news.late = (news.late.0.saturating_add(late), news.late.1.max(delay));
            }
            (FromProber::Seen { service, address }, ProberStage::Probing) => {
                if roster.service(service).is_none_or(|entry| entry.service.discover.is_none()) {
                    return Err("has found a node for a service without discovery".to_owned());
                }
                news.found.push((service, address));
            }
            (said @ (FromProber::Changed { .. } | FromProber::Measured { .. }), ProberStage::Probing) => {
                let changed = roster.judge(&said, now).map_err(|error: Impossible| error.to_string())?;
                news.changed.extend(changed);
                if let FromProber::Changed { backend, cause, latency, .. }
                | FromProber::Measured { backend, cause, latency } = said
                {
                    news.results.push((backend, cause, latency));
                }
            }
            (message, _) => return Err(printable(&format!("said {message:?} out of turn"))),
        }
        Ok(())
    }
}

/// The reason that the prober gives for its end.
pub(super) fn reason(message: FromProber) -> Option<String> {
    match message {
        FromProber::Failed(text) => Some(text),
        _ => None,
    }
}
