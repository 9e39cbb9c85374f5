//! Samples the instance's processes and its status until the soak is over.

pub(crate) mod accounts;
pub(crate) mod rest;

use crate::control::{Control, Status};
use crate::report::Journal;
use crate::rig::lab::Lab;
use crate::rig::loaded::children;
use crate::traffic::Counts;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

pub(crate) const ROLES: [&str; 3] = ["supervisor", "worker", "prober"];
/// Process names of the roles.
const NAMES: [&str; 3] = ["loaded", "loaded-worker", "loaded-prober"];
/// Samples of a long soak; a short one is sampled each second.
const LOOKS: u32 = 500;

/// One sample of one process. Sizes are in kB.
pub(crate) struct Process {
    /// Seconds since the soak began.
    pub(crate) at: f64,
    pub(crate) role: &'static str,
    pub(crate) pid: u32,
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
    pub(crate) shared: u64,
    pub(crate) files: u64,
}

/// One sample of the status.
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) generation: u64,
    pub(crate) waiting: u64,
    pub(crate) received: u64,
    pub(crate) flows: u64,
    /// Answers that clients' requests have had.
    pub(crate) answers: u64,
    pub(crate) dropped: u64,
}

/// All samples.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) processes: Vec<Process>,
    pub(crate) samples: Vec<Sample>,
    /// Every process that was ever seen.
    pub(crate) known: BTreeSet<u32>,
}

/// Takes the samples.
pub(crate) struct Sampler<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) journal: &'a Journal,
    pub(crate) counts: &'a Counts,
    /// Where processes.tsv and samples.tsv go.
    pub(crate) out: &'a Path,
}

impl Sampler<'_> {
    /// Samples a soak of this length until `over` is set.
    pub(crate) fn look(&self, length: Duration, over: &AtomicBool) -> Samples {
        let namespace = self.balancer();
        let control = Control::of(self.lab);
        let interval = (length / LOOKS).max(Duration::from_secs(1)).as_secs_f64();
        let create = |name| File::create(self.out.join(name)).unwrap();
        let (mut processes, mut samples) = (create("processes.tsv"), create("samples.tsv"));
        let mut all = Samples::default();
        let mut due = self.journal.now();
        while !over.load(Relaxed) {
            let at = self.journal.now();
            for process in look(&mut all.known, namespace, at) {
                writeln!(processes, "{process}").unwrap();
                all.processes.push(process);
            }
            match control.status() {
                Some(status) => {
                    let sample = Sample::of(&status, at, self.counts.answers.load(Relaxed));
                    writeln!(samples, "{sample}").unwrap();
                    all.samples.push(sample);
                }
                // There is nobody to ask.
                None => writeln!(samples, "{at:.2}\t-").unwrap(),
            }
            // A look that is too late is left out.
            while due <= self.journal.now() {
                due += interval;
            }
            self.sleep_until(due, over);
        }
        all
    }

    fn sleep_until(&self, due: f64, over: &AtomicBool) {
        while self.journal.now() < due && !over.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The balancer's network namespace, where supervisors are.
    fn balancer(&self) -> u64 {
        fs::metadata(Path::new("/run/netns").join(self.lab.namespace("lb"))).unwrap().ino()
    }
}

/// Samples supervisors in the balancer's namespace, their children, and children of earlier ones: workers live in namespaces
/// of their own and outlive their supervisor.
fn look(known: &mut BTreeSet<u32>, namespace: u64, at: f64) -> Vec<Process> {
    let alive: BTreeMap<u32, &'static str> = pids().filter_map(|pid| Some((pid, role_of(pid)?))).collect();
    for (&pid, &role) in &alive {
        let is_ours = || fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|entry| entry.ino() == namespace);
        if role == "supervisor" && is_ours() {
            known.insert(pid);
            known.extend(children(pid).into_iter().filter(|pid| alive.contains_key(pid)));
        }
    }
    let ours = alive.iter().filter(|(pid, _)| known.contains(pid));
    ours.filter_map(|(&pid, &role)| process(at, role, pid)).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Role of a process by its name; `None` if it is not one of loaded's.
pub(crate) fn role_of(pid: u32) -> Option<&'static str> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    NAMES.iter().position(|known| *known == name.trim_end()).map(|n| ROLES[n])
}

/// `None` if the process is ending.
fn process(at: f64, role: &'static str, pid: u32) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let size = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (resident, anonymous, shared) = (size("VmRSS")?, size("RssAnon")?, size("RssShmem")?);
    let files = u64::try_from(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).unwrap();
    Some(Process { at, role, pid, resident, anonymous, shared, files })
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, role, pid, resident, anonymous, shared, files } = self;
        write!(f, "{at:.2}\t{role}\t{pid}\t{resident}\t{anonymous}\t{shared}\t{files}")
    }
}

impl Sample {
    fn of(status: &Status, at: f64, answers: u64) -> Self {
        Self {
            at,
            generation: status.generation(),
            waiting: status.waiting(),
            received: status.received(),
            flows: status.flows(),
            answers,
            dropped: status.dropped(),
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, generation, waiting, received, flows, answers, dropped } = self;
        write!(f, "{at:.2}\t{generation}\t{waiting}\t{received}\t{flows}\t{answers}\t{dropped}")
    }
}
