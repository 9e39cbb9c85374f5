//! What the self-test found, as a table.

use loaded_sandbox::selftest::Observed;
use loaded_sandbox::{KernelSupport, attempt};
use std::fmt;

/// One line of the table.
#[derive(Debug)]
pub struct ResultRow {
    /// What was tried, or looked at.
    pub name: String,
    /// What must come of it.
    pub expected: String,
    /// What came of it.
    pub seen: String,
    /// Whether that is the same.
    pub good: bool,
}

/// What the self-test found.
#[derive(Debug)]
pub struct Findings {
    pub(super) support: KernelSupport,
    pub(super) rows: Vec<ResultRow>,
    /// What changed outside, in detail.
    pub(super) changes: Vec<String>,
    pub(super) seconds: f32,
}

impl ResultRow {
    pub(super) fn of((attempt, seen): (attempt::Attempt, Observed)) -> Self {
        let name = match attempt.expect {
            attempt::Expect::Survives => format!("allowed: {}", attempt.name),
            _ => attempt.name.to_owned(),
        };
        Self { name, expected: attempt.expect.to_string(), seen: seen.to_string(), good: seen.is(attempt.expect) }
    }
}

impl Findings {
    /// What is not as it must be.
    pub fn red(&self) -> impl Iterator<Item = &ResultRow> {
        self.rows.iter().filter(|row| !row.good)
    }

    /// What an attempt changed outside, a line each.
    #[must_use]
    pub fn changes(&self) -> &[String] {
        &self.changes
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "layers of this kernel\n{}", self.support)?;
        writeln!(f, "{:<54} {:<18} seen", "attempt", "expected")?;
        for ResultRow { name, expected, seen, good } in &self.rows {
            writeln!(f, "{name:<54} {expected:<18} {seen:<18} {}", if *good { "ok" } else { "RED" })?;
        }
        for change in &self.changes {
            writeln!(f, "changed outside: {change}")?;
        }
        let (red, rows) = (self.red().count(), self.rows.len());
        let word = if red == 0 { "green" } else { "RED" };
        writeln!(f, "{word}: {rows} checks, {red} red, {:.1} s", self.seconds)
    }
}
