//! Results of checks: how long those that passed took, and why the others failed.

use loaded_ipc::Cause;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Upper bounds of the histogram, microseconds; the last bucket has none.
pub const BOUNDS: [u32; 12] =
    [500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];

/// The checks of one service, since the supervisor has begun, of which the prober has told: each that changed a state, and one
/// in five seconds for each backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckFigures {
    /// Checks that passed, by how long they took: within each of [`BOUNDS`] but not the one before, then longer ones.
    pub passed: [u64; BOUNDS.len() + 1],
    /// Microseconds that they took in all.
    pub passed_us: u64,
    /// Checks that failed, by cause.
    pub failed: BTreeMap<String, u64>,
}

impl CheckFigures {
    /// Notes a check that took so many microseconds.
    pub fn note(&mut self, cause: Cause, latency: u32) {
        if cause != Cause::Passed {
            let count = self.failed.entry(label(cause).to_owned()).or_default();
            *count = count.saturating_add(1);
            return;
        }
        let bucket = BOUNDS.iter().position(|bound| latency <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.passed.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.passed_us = self.passed_us.saturating_add(latency.into());
    }
}

/// A cause in a word: what a backend answers must not make labels.
fn label(cause: Cause) -> &'static str {
    match cause {
        Cause::Unchecked => "unchecked",
        Cause::Passed => "passed",
        Cause::NoEcho => "no_echo",
        Cause::ConnectTimeout => "connect_timeout",
        Cause::Refused => "refused",
        Cause::Unreachable => "unreachable",
        Cause::AnswerTimeout => "answer_timeout",
        Cause::Closed => "closed",
        Cause::Status(_) => "http_status",
        Cause::Rcode(_) => "dns_code",
        Cause::WrongAnswer => "wrong_answer",
        Cause::NotMade => "not_made",
    }
}
