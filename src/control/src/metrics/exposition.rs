//! Writes metric families and samples in both text formats.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

/// The text so far.
pub(super) struct Page {
    pub(super) text: String,
    pub(super) format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    OpenMetrics,
}

#[derive(Clone, Copy)]
pub(super) enum MetricKind {
    Gauge,
    Counter,
    Histogram,
}

/// Samples of one name must follow one another, and none may appear twice: Prometheus would refuse the whole page.
pub(super) struct MetricFamily<'a> {
    out: &'a mut String,
    name: &'static str,
    seen: BTreeSet<String>,
}

impl Page {
    pub(super) fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) -> MetricFamily<'_> {
        let word = match kind {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
        };
        // In OpenMetrics the suffix belongs to a counter's samples, not to its name.
        let family = match (self.format, kind) {
            (Format::OpenMetrics, MetricKind::Counter) => name.trim_end_matches("_total"),
            _ => name,
        };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {word}");
        MetricFamily { out: &mut self.text, name, seen: BTreeSet::new() }
    }
}

impl MetricFamily<'_> {
    pub(super) fn one(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample whose name has a suffix.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let each: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if each.is_empty() { String::new() } else { format!("{{{}}}", each.join(",")) };
        let sample = format!("{}{suffix}{labels}", self.name);
        if !self.seen.contains(&sample) {
            let _ = writeln!(self.out, "{sample} {value}");
            self.seen.insert(sample);
        }
    }
}

/// A label's value: backslash, quote and newline are escaped, as the format demands; other control characters go.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
