//! The journal of acts, and the verdicts.

pub(crate) mod picture;
pub(crate) mod trend;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// The acts and their times.
pub(crate) struct Journal {
    began: Instant,
    acts: Mutex<(File, Vec<(f64, &'static str)>)>,
}

impl Journal {
    /// Also writes events.tsv in `out`.
    pub(crate) fn begin(out: &Path) -> Self {
        let file = File::create(out.join("events.tsv")).unwrap();
        Self { began: Instant::now(), acts: Mutex::new((file, Vec::new())) }
    }

    /// Seconds since the soak began.
    pub(crate) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn act(&self, name: &'static str, more: &str) {
        let now = self.now();
        let mut acts = self.acts.lock().unwrap();
        writeln!(acts.0, "{now:.2}\t{name}\t{more}").unwrap();
        acts.1.push((now, name));
        println!("{now:6.0} s  {name} {more}");
    }

    pub(crate) fn acts(&self) -> Vec<(f64, &'static str)> {
        self.acts.lock().unwrap().1.clone()
    }

    /// "NAME COUNT" of each act.
    pub(crate) fn counts(&self) -> String {
        let mut counts = BTreeMap::<_, usize>::new();
        for (_, name) in self.acts() {
            *counts.entry(name).or_default() += 1;
        }
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// The verdicts, each printed as it is reached.
#[derive(Default)]
pub(crate) struct Report {
    failed: Vec<String>,
}

impl Report {
    pub(crate) fn verdict(&mut self, holds: bool, text: &str) {
        println!("   {:<4}  {text}", if holds { "ok" } else { "FAIL" });
        if !holds {
            self.failed.push(text.to_owned());
        }
    }

    /// Adds what was seen if it does not hold.
    pub(crate) fn expect(&mut self, holds: bool, text: &str, seen: impl FnOnce() -> String) {
        if holds {
            self.verdict(true, text);
        } else {
            self.verdict(false, &format!("{text}: {}", seen()));
        }
    }

    /// The same for a result.
    pub(crate) fn check(&mut self, text: &str, result: Result<(), String>) {
        self.expect(result.is_ok(), text, || result.clone().err().unwrap_or_default());
    }

    /// What did not hold, in order.
    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }
}
