//! Performs the plan. Some acts go on beside others: a stopped worker, a drained or dead backend, a flood.

pub(crate) mod flood;
mod plan;

use crate::control::Control;
use crate::instance::Instance;
use crate::report::{Journal, Report};
use crate::rig::lab::{Lab, eventually};
use crate::rig::net::Family;
use crate::rig::wire::Sender;
use flood::Flood;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plan::{Act, Plan};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

/// How many addresses of `steady` may be drained and of `mortal` disabled, and how many hosts may die.
const DRAINED: usize = 4;
const DISABLED: usize = 4;
const MORTAL: usize = 3;
/// How long a backend's return is retried while no supervisor answers.
const ENABLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where acts are performed.
pub(crate) struct Stage<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    lab: &'env Lab,
    journal: &'env Journal,
    sender: Arc<Sender>,
    background: Vec<ScopedJoinHandle<'scope, ()>>,
    /// Backends that are dead at the moment.
    dead: Arc<Mutex<BTreeSet<usize>>>,
    /// Workers that were killed, or stopped long enough to be killed for it.
    deaths: u64,
    /// Number of the first source that no flood has used.
    spoofed: u32,
}

impl<'scope, 'env> Stage<'scope, 'env> {
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, lab: &'env Lab, journal: &'env Journal) -> Self {
        let sender = Arc::new(Sender::to_balancer(lab, "client", "eth0"));
        Self { scope, lab, journal, sender, background: Vec::new(), dead: Arc::default(), deaths: 0, spoofed: 1 }
    }

    /// Performs the acts of this seed until `end`, waits for those in the background, and returns how many workers they may
    /// have killed.
    pub(crate) fn perform(mut self, seed: u64, end: Instant, instance: &mut Instance<'_>, report: &mut Report) -> u64 {
        for (act, pause) in Plan::of(seed) {
            if Instant::now() >= end {
                break;
            }
            self.act(act, instance, report);
            self.background.retain(|thread| !thread.is_finished());
            sleep(pause);
        }
        for thread in self.background {
            thread.join().unwrap();
        }
        self.deaths
    }

    fn act(&mut self, act: Act, instance: &mut Instance<'_>, report: &mut Report) {
        match act {
            Act::KillWorker { which } => self.kill_worker(act, which, &instance.control),
            Act::StopWorker { which, seconds } => self.stop_worker(act, which, seconds, &instance.control),
            Act::KillProber => self.kill_prober(act, &instance.control),
            Act::KillSupervisor { rest } => self.kill_supervisor(act, rest, instance),
            Act::Upgrade => {
                self.journal.act(act.name(), &format!("of {}", instance.pid()));
                if let Err(problem) = instance.upgrade() {
                    report.verdict(false, &problem);
                }
            }
            Act::Reload { variant } => {
                self.journal.act(act.name(), &format!("to variant {variant}"));
                instance.reload(variant);
            }
            Act::Drain { backend, seconds } => {
                self.for_a_while(act, "steady", address(1, backend), &["--deadline", "1h"], seconds, &instance.control);
            }
            Act::Disable { backend, seconds } => {
                self.for_a_while(act, "mortal", address(4, backend), &[], seconds, &instance.control);
            }
            Act::KillBackend { backend, seconds } => self.kill_backend(act, backend, seconds),
            Act::Flood { kind, seconds } => self.flood(act, kind, seconds),
        }
    }

    fn background(&mut self, act: impl FnOnce() + Send + 'scope) {
        self.background.push(self.scope.spawn(act));
    }

    fn kill_worker(&mut self, act: Act, which: usize, control: &Control) {
        let Some(pid) = one_of(&control.serving("worker"), which) else { return };
        self.journal.act(act.name(), &pid.to_string());
        send(pid, Signal::SIGKILL);
        self.deaths += 1;
    }

    fn stop_worker(&mut self, act: Act, which: usize, seconds: u64, control: &Control) {
        let Some(pid) = one_of(&control.serving("worker"), which) else { return };
        self.journal.act(act.name(), &pid.to_string());
        send(pid, Signal::SIGSTOP);
        self.deaths += 1;
        self.background(move || {
            sleep(Duration::from_secs(seconds));
            send(pid, Signal::SIGCONT);
        });
    }

    fn kill_prober(&self, act: Act, control: &Control) {
        let Some(pid) = one_of(&control.serving("prober"), 0) else { return };
        self.journal.act(act.name(), &pid.to_string());
        send(pid, Signal::SIGKILL);
    }

    /// Waits for two workers first: flows of a dead worker are lost if the supervisor that keeps them dies, too.
    fn kill_supervisor(&self, act: Act, rest: Duration, instance: &mut Instance<'_>) {
        if !instance.has_two_workers() {
            return;
        }
        self.journal.act(act.name(), &instance.pid().to_string());
        instance.kill();
        sleep(rest);
        instance.start_again();
    }

    /// Drains or disables a backend in the background, and enables it again, retrying while no supervisor answers.
    fn for_a_while(
        &mut self,
        act: Act,
        service: &'static str,
        backend: IpAddr,
        more: &'static [&str],
        seconds: u64,
        control: &Control,
    ) {
        let (address, control) = (backend.to_string(), control.clone());
        self.journal.act(act.name(), &address);
        self.background(move || {
            let to =
                |verb, more: &[&str]| control.ask(&[&["backend", verb, &address, "--service", service], more].concat());
            to(act.name(), more);
            sleep(Duration::from_secs(seconds));
            // If it never succeeds, the backend is not enabled in the end, and that is checked.
            eventually(ENABLE_TIMEOUT, || to("enable", &[]).code == Some(0));
        });
    }

    fn kill_backend(&mut self, act: Act, backend: usize, seconds: u64) {
        let host = format!("b{}", 4 + backend);
        if !self.dead.lock().unwrap().insert(backend) {
            return;
        }
        self.journal.act(act.name(), &host);
        self.lab.kill_web(&host);
        let (lab, dead) = (self.lab, Arc::clone(&self.dead));
        self.background(move || {
            sleep(Duration::from_secs(seconds));
            lab.start_web(&host);
            dead.lock().unwrap().remove(&backend);
        });
    }

    fn flood(&mut self, act: Act, kind: plan::Kind, seconds: u64) {
        self.journal.act(act.name(), &format!("{kind:?} for {seconds} s"));
        let flood = Flood { kind, first: self.spoofed, length: Duration::from_secs(seconds) };
        self.spoofed += flood.most();
        let sender = Arc::clone(&self.sender);
        self.background(move || flood.send(&sender));
    }
}

/// The n-th of four addresses: IPv4 and IPv6 of backend `first`, then of the next one.
fn address(first: u16, n: usize) -> IpAddr {
    let n = u16::try_from(n).unwrap();
    Family::BOTH[usize::from(n % 2)].backend(first + n / 2)
}

fn one_of(pids: &[u32], which: usize) -> Option<u32> {
    pids.get(which % pids.len().max(1)).copied()
}

/// It may have ended meanwhile.
fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}
