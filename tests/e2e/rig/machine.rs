//! How much of the machine others used while a test measured. A test that fails then is repeated and says so, whatever
//! becomes of it; what it asserts stays as strict as it is.

use super::gate::Pass;
use super::lab::Lab;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// How often a test is tried from which others took the machine.
const ATTEMPTS: u32 = 4;
/// If others use more than this many percent of all cores, they have taken the machine.
const MOST: f64 = 10.0;
/// How long a repetition waits for a quiet machine, and how long it must be quiet.
const QUIET_WAIT: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(1);

/// Runs a test that measures times but hardly uses the machine, beside others of its kind. If it fails there, it is
/// repeated with the machine to itself, and only that counts.
#[track_caller]
pub(crate) fn timed(test: impl Fn(&Lab)) {
    beside_others(Pass::timed, test);
}

/// The same for a test that loads the machine for a part of its time, beside one other.
#[track_caller]
pub(crate) fn paired(test: impl Fn(&Lab)) {
    beside_others(Pass::paired, test);
}

#[track_caller]
fn beside_others(wait: impl Fn() -> Pass, test: impl Fn(&Lab)) {
    let Some(pass) = Lab::may_be().then(wait) else { return };
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&Lab::of(pass)))) else { return };
    announce(format_args!("failed beside others, repeated alone: {}", first_line(panic.as_ref())));
    measured(test);
}

/// Runs a test that measures time or capacity, or loads the machine, while no other lab is up. If it fails although
/// nobody else used the machine, it fails; if others did, it is repeated, `ATTEMPTS` times in all.
#[track_caller]
pub(crate) fn measured(test: impl Fn(&Lab)) {
    for attempt in 1.. {
        let Some((pass, others)) = Lab::may_be().then(|| (Pass::alone(), Others::now())) else { return };
        // What the test holds, its lab too, it gives back while it unwinds.
        let run = || test(&Lab::of(pass));
        let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else {
            if attempt > 1 {
                announce(format_args!("passed in try {attempt} of at most {ATTEMPTS}"));
            }
            return;
        };
        let share = others.share() * 100.0;
        let why = first_line(panic.as_ref());
        announce(format_args!("try {attempt} failed while others had {share:.0} % of the machine: {why}"));
        if share <= MOST || attempt == ATTEMPTS {
            announce(format_args!("failed after {attempt} of at most {ATTEMPTS} tries"));
            resume_unwind(panic);
        }
        wait_for_quiet();
    }
}

/// Packets dropped between interfaces by a full backlog of a core (netdev_max_backlog), since the machine started: second column, in
/// hexadecimal.
pub(crate) fn without_room() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    table.lines().map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()).sum()
}

/// Says what has become of the running test, for the list at the end of `scripts/test`. Not with println!, whose output is
/// not shown of a test that passes in the end.
fn announce(what: std::fmt::Arguments<'_>) {
    let thread = std::thread::current();
    let line = format!("REPEATED: {}: {what}\n", thread.name().unwrap_or("?"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// How a panic's message begins.
fn first_line(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.and_then(|text| text.lines().next()).unwrap_or("?")
}

/// Waits until others leave the machine alone, or for as long as it has patience.
fn wait_for_quiet() {
    let end = Instant::now() + QUIET_WAIT;
    loop {
        let others = Others::now();
        std::thread::sleep(QUIET);
        if others.share() * 100.0 <= MOST || Instant::now() > end {
            return;
        }
    }
}

/// The first process, which adopts orphans.
const INIT: u32 = 1;
/// PF_KTHREAD (include/linux/sched.h). Threads of the kernel work for the test's packets too: ksoftirqd under a flood.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// All processes at the moment before a test starts its own, and the time stolen by other virtual machines.
struct Others {
    at: Instant,
    processes: BTreeMap<u32, Process>,
    stolen: u64,
}

/// Of /proc/PID/stat (proc(5)).
struct Process {
    parent: u32,
    is_kernels: bool,
    started: u64,
    /// Clock ticks, its own and those of children that have ended.
    used: u64,
}

impl Others {
    fn now() -> Self {
        Self { at: Instant::now(), processes: processes(), stolen: stolen() }
    }

    /// The part of all cores used since by processes that existed then, their children, and other virtual machines.
    fn share(&self) -> f64 {
        let now = processes();
        let stays = |pid: u32| match (self.processes.get(&pid), now.get(&pid)) {
            (Some(then), Some(process)) => then.started == process.started,
            _ => false,
        };
        let ours = lineage(&now);
        let is_other = |pid: u32, process: &Process| !ours.contains(&pid) && !process.is_kernels;
        // Who has ended meanwhile is in its parent's sum; one that adopts orphans has those of the test as well, and is
        // left out.
        let is_counted =
            |pid: u32, process: &Process| is_other(pid, process) && (stays(pid) || !ours.contains(&process.parent));
        let then = self.processes.iter().filter(|(pid, process)| is_counted(**pid, process));
        let then: u64 = then.map(|(_, process)| process.used).sum();
        let comes_from_another = |pid: u32| stays(pid) || is_descendant(pid, &now, &ours, &stays);
        let others = now.iter().filter(|(pid, process)| is_other(**pid, process) && comes_from_another(**pid));
        let used: u64 = others.map(|(_, process)| process.used).sum();
        let used = used.saturating_sub(then) + stolen().saturating_sub(self.stolen);
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap().unwrap();
        let cores = std::thread::available_parallelism().unwrap().get();
        used as f64 / per_second as f64 / self.at.elapsed().as_secs_f64() / cores as f64
    }
}

/// This process and all that it descends from. Any of these may adopt the test's orphans (PR_SET_CHILD_SUBREAPER, as a
/// service manager of a user's session does); init always may.
fn lineage(now: &BTreeMap<u32, Process>) -> BTreeSet<u32> {
    let mut ours = BTreeSet::from([INIT]);
    let mut pid = std::process::id();
    while ours.insert(pid)
        && let Some(process) = now.get(&pid)
    {
        pid = process.parent;
    }
    ours
}

/// Whether it descends from a process that existed before and is not of our lineage.
fn is_descendant(
    mut pid: u32,
    now: &BTreeMap<u32, Process>,
    ours: &BTreeSet<u32>,
    known: &impl Fn(u32) -> bool,
) -> bool {
    while let Some(process) = now.get(&pid) {
        pid = process.parent;
        if ours.contains(&pid) {
            return false;
        }
        if known(pid) {
            return true;
        }
    }
    false
}

fn processes() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(pid)?))).collect()
}

/// `None` once it has ended.
fn process(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything. What follows is field 3, the state.
    let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |n: usize| fields[n - 3].parse::<u64>().ok();
    let used = (14..=17).map(number).sum::<Option<u64>>()?;
    let is_kernels = number(9)? & KERNEL_THREAD != 0;
    Some(Process { parent: u32::try_from(number(4)?).ok()?, is_kernels, started: number(22)?, used })
}

/// Clock ticks that the hypervisor gave to other virtual machines, over all cores.
fn stolen() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let steal = text.lines().next().and_then(|line| line.split_whitespace().nth(8));
    steal.and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}
