//! What the exporter shows, made when it asks for it.

use crate::children::exporter::Made;
use crate::instance::Instance;
use loaded_control::{InstanceVerdict, metrics, page};
use loaded_ipc::Document;
use std::time::Instant;

impl Instance {
    /// Hears the exporter, and makes one document that it has asked for.
    pub(in crate::instance) fn serve_exporter(&mut self) {
        self.children.exporter.talk(&self.children.specs.exporter);
        let begun = Instant::now();
        let Some(document) = self.children.exporter.wanted(begun) else { return };
        let text = match document {
            Document::Metrics => metrics::open_metrics(&self.status()),
            Document::Status => {
                let status = self.status();
                page::render(&status, &self.operator.live.frame(begun, &status))
            }
            Document::Health => self.health_in_words(),
        };
        let serves = self.survey.health.verdict != InstanceVerdict::NotServing;
        self.children.exporter.send(document, Made { text, serves }, begun.elapsed());
    }

    /// The verdict and its causes, a line each.
    fn health_in_words(&self) -> String {
        let health = &self.survey.health;
        let verdict = match health.verdict {
            InstanceVerdict::Serving => "serving",
            InstanceVerdict::Impaired => "impaired",
            InstanceVerdict::NotServing => "not serving",
        };
        health.causes().fold(format!("{verdict}\n"), |text, cause| text + &cause.replace('\n', " ") + "\n")
    }
}
