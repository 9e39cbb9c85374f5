//! One process of the exporter, from its start to its end.

use crate::child::{Child, ChildSpec, printable};
use crate::heartbeat::Heartbeat;
use loaded_ipc::{Document, FromExporter, MAX_LARGE_FRAME, ToExporter};
use std::time::{Duration, Instant};

/// An exporter that is silent for this long hangs: it sends a sign of life every five seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// Messages a second that are allowed: three documents, each asked for again as soon as it has come.
pub(super) const MOST_TALK: u32 = 100;

pub(super) type ExporterChild = Child<FromExporter, ToExporter, { MAX_LARGE_FRAME + 1 }>;

#[derive(Debug)]
pub(super) struct ExporterProcess {
    pub(super) child: ExporterChild,
    pub(super) is_serving: bool,
    pub(super) heartbeat: Heartbeat,
    /// What it has asked for.
    pub(super) wanted: [bool; Document::ALL.len()],
    pub(super) stopped: bool,
}

impl ExporterProcess {
    pub(super) fn deadline(&self) -> Instant {
        if self.is_serving { self.heartbeat.deadline() } else { self.child.deadline() }
    }

    pub(super) fn talk(&mut self, spec: &ChildSpec) -> Result<(), String> {
        self.child.flush()?;
        let now = Instant::now();
        for _ in 0..MOST_TALK {
            let Some(message) = self.child.hear()? else { break };
            self.heartbeat.note(now)?;
            self.take(message, spec)?;
        }
        match self.deadline() <= now {
            false => Ok(()),
            true if self.is_serving => Err(self.heartbeat.silent()),
            true => Err("not ready in time".to_owned()),
        }
    }

    fn take(&mut self, message: FromExporter, spec: &ChildSpec) -> Result<(), String> {
        match message {
            FromExporter::Failed(text) => self.child.note_reason(&text)?,
            FromExporter::Prepared if !self.is_serving && self.child.was_told() => {
                self.child.prove(spec)?;
                self.child.tell(ToExporter::Go);
                self.child.flush()?;
                self.is_serving = true;
            }
            FromExporter::Wanted(document) if self.is_serving => self.wanted[document as usize] = true,
            FromExporter::Alive if self.is_serving => {}
            message => return Err(printable(&format!("said {message:?} out of turn"))),
        }
        Ok(())
    }
}

/// The reason that the exporter gives for its end.
pub(super) fn reason(message: FromExporter) -> Option<String> {
    match message {
        FromExporter::Failed(text) => Some(text),
        _ => None,
    }
}
