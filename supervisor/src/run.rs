//! The supervisor's life: check everything, have everything, start the workers, only then the rules; then watch.

use crate::config::{self, Overrides};
use crate::daemon::{self, PidFile};
use crate::memory::{Memory, random};
use crate::plan::Plan;
use crate::preflight::{available_cores, check_host, check_kernel};
use crate::rules::{Installed, Keys, RuleSet, Steering, Tools, clean_stale, queue_owner, queue_owners};
use crate::signals::Signals;
use crate::worker::{START_DEADLINE, Terms, Worker};
use crate::{Error, output, push, report};
use loaded_jail::proof::Expectation;
use loaded_jail::{CHROOT, Floor, Identity, Layer, Role, check_chroot_dir, trim_supervisor};
use loaded_queue::{Owner, OwnerError};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use sd_notify::NotifyState;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long packets that still wait may take to be answered once the rules are gone.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a worker may take to end once its link is closed: it looks every 50 ms.
const DISMISS_DEADLINE: Duration = Duration::from_secs(1);
/// Between looks at something that has no descriptor to wait on.
const PAUSE: Duration = Duration::from_millis(5);

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration files; empty: where they are usually found.
    pub config: Vec<PathBuf>,
    /// What overrides them.
    pub overrides: Overrides,
    /// This is the daemon that the starter has started.
    pub detached: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Whether a kernel without a layer of the sandbox is good enough.
    pub floor: Floor,
}

/// A running instance.
struct Supervisor {
    plan: Plan,
    terms: Terms,
    workers: Vec<Worker>,
    signals: Signals,
    generation: u64,
}

/// Loads the configuration, from where it usually is if no file is named.
///
/// # Errors
/// With file, line and column.
fn load(options: &Options) -> Result<config::Loaded, Error> {
    let paths = match options.config.as_slice() {
        [] => vec![config::find()?],
        named => named.to_vec(),
    };
    Ok(config::load(&paths, &options.overrides)?)
}

/// What `--check` does: the configuration, and what it names on this host. Needs no rights and changes nothing.
///
/// # Errors
/// What would keep an instance from serving, as far as it can be seen without being root.
pub fn check(options: &Options) -> Result<config::Loaded, Error> {
    let loaded = load(options)?;
    Identity::lookup(&loaded.plan.user)?;
    loaded.plan.check_cores(&available_cores()?)?;
    Ok(loaded)
}

/// Runs an instance until it is told to end.
///
/// # Errors
/// Everything that keeps it from serving. Nothing is then changed on the host.
pub fn run(options: &Options) -> Result<(), Error> {
    output::to_stderr();
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let starter = if options.detached { Some(daemon::take_starter()?) } else { None };
    let loaded = load(options)?;
    for note in &loaded.notes {
        log::info!("{note}");
    }
    let plan = loaded.plan;
    // Before the working directory changes.
    let pid_path = options.pid_file.as_deref().map(std::path::absolute).transpose();
    let pid_path = pid_path.map_err(|source| Error::Start { act: "find the pid file's directory", source })?;
    if options.detached {
        daemon::detach()?;
    }

    let identity = Identity::lookup(&plan.user)?;
    check_chroot_dir(Path::new(CHROOT))?;
    let cores = plan.check_cores(&available_cores()?)?;
    let tools = Tools::find()?;
    let level = check_kernel(options.floor)?;
    check_host(&plan)?;

    let pid_file = pid_path.as_deref().map(PidFile::write).transpose()?;
    let signals = Signals::new()?;
    let queues: Vec<u16> = cores.iter().map(|core| plan.queue_base + core).collect();
    // What a killed instance with our own queues has left stays until our rules replace it in one transaction: without
    // rules the local stack would answer clients, with resets.
    // Who is alive is asked after the rules are read: an instance binds its queues before it installs rules.
    let bound = |queue| queue_owners().map_or(true, |states| states.iter().any(|state| state.queue == queue));
    for note in clean_stale(&tools, |queue| queues.contains(&queue) || bound(queue))? {
        log::warn!("{note}");
    }
    let mut workers = Vec::with_capacity(cores.len());
    for ((position, &core), &queue) in (0..).zip(&cores).zip(&queues) {
        workers.push(Worker::new(position, core, open_queue(queue, plan.queue_len)?, Memory::new(&plan)?));
    }
    let rules = RuleSet::new(&plan, &queues, &Steering::new(&plan, steering_keys()?));
    trim_supervisor()?;

    let mut expected = Expectation::of(Role::Worker, &identity);
    expected.seccomp = level.has(Layer::Seccomp);
    let terms = Terms { identity, floor: options.floor, expected };
    let mut this = Supervisor { plan, terms, workers, signals, generation: 1 };
    this.start()?;
    let installed = Installed::install(&rules, &tools)?;
    for note in installed.notes() {
        log::warn!("{note}");
    }
    let (services, backends) = (this.plan.services.len(), this.plan.backends.len());
    log::info!("serving: {services} service(s), {backends} backend(s), {} worker(s)", this.workers.len());
    // The rules stand: whatever happens from here on, the way out is through `end`.
    let released = starter.map_or(Ok(()), |starter| {
        output::to_syslog();
        daemon::release(starter)
    });
    daemon::notify(NotifyState::Ready);
    let result = released.and_then(|()| this.serve());
    daemon::notify(NotifyState::Stopping);
    let end = this.end(installed);
    drop(pid_file);
    result.and(end)
}

impl Supervisor {
    /// Starts every worker and waits until all are jailed, proven and configured.
    fn start(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.workers.iter().all(Worker::is_ready) {
            self.launch()?;
            self.turn(deadline)?;
            if let Some(death) = self.bury().into_iter().next() {
                return Err(Error::WorkerFailed(death));
            }
            if self.signals.take_end() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::WorkerFailed(format!("not ready within {START_DEADLINE:?}")));
            }
        }
        Ok(())
    }

    /// Watches until told to end.
    fn serve(&mut self) -> Result<(), Error> {
        loop {
            // A machine that is short of something for a moment must not cost the workers that run.
            if let Err(error) = self.launch() {
                log::error!("{error}; to be tried again");
            }
            self.turn(Instant::now() + Duration::from_secs(3600))?;
            for death in self.bury() {
                log::error!("{death}");
            }
            if self.signals.take_reload() {
                log::warn!("HUP: reloading is not part of this version; the configuration stays as it is");
            }
            if self.signals.take_upgrade() {
                log::warn!("USR2: taking over by a new binary is not part of this version");
            }
            if self.signals.take_report() {
                self.report();
            }
            if self.signals.take_end() {
                return Ok(());
            }
        }
    }

    /// Starts every worker that is due. The error is the first.
    fn launch(&mut self) -> Result<(), Error> {
        let (plan, generation) = (&self.plan, self.generation);
        let mut first = Ok(());
        for worker in &mut self.workers {
            let (position, queue) = (worker.position, worker.owner.queue());
            first = first.and(worker.start(&self.terms, || push::messages(plan, generation, position, queue)));
        }
        first
    }

    /// Waits for something to happen, but not beyond `until`, and deals with the links.
    fn turn(&mut self, until: Instant) -> Result<(), Error> {
        let next = self.workers.iter().filter_map(Worker::due).fold(until, Instant::min);
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for (link, sending) in self.workers.iter().filter_map(Worker::link) {
            let out = if sending { PollFlags::POLLOUT } else { PollFlags::empty() };
            wanted.push(PollFd::new(link.as_fd(), PollFlags::POLLIN | out));
        }
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut wanted, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::Start { act: "wait for workers", source: errno.into() }),
        }
        drop(wanted);
        self.signals.drain();
        for worker in &mut self.workers {
            worker.talk(&self.terms);
        }
        Ok(())
    }

    /// Collects workers that have ended, and says how.
    fn bury(&mut self) -> Vec<String> {
        let mut deaths = Vec::new();
        for worker in &mut self.workers {
            if let Some(death) = worker.reap(last_waiting) {
                deaths.push(format!("{}: {death}", worker.name()));
            }
        }
        deaths
    }

    fn report(&self) {
        let queues = queue_owners().unwrap_or_default();
        for worker in &self.workers {
            let queue = queues.iter().find(|state| state.queue == worker.owner.queue());
            log::info!("{}", report::line(worker, queue));
        }
    }

    /// Takes the rules out, lets the workers answer what still waits, and ends them.
    fn end(mut self, mut installed: Installed) -> Result<(), Error> {
        let removed = installed.remove();
        if !self.drain() {
            log::warn!("packets still wait in our queues after {DRAIN_DEADLINE:?}; they are dropped");
        }
        self.report();
        let mut leaving: Vec<_> = self.workers.iter_mut().filter_map(Worker::dismiss).collect();
        let deadline = Instant::now() + DISMISS_DEADLINE;
        for process in &mut leaving {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
            if matches!(process.try_wait(), Ok(None)) {
                // Its death is certain then, and waiting short.
                let _ = process.kill();
            }
            match process.wait() {
                Ok(status) if status.success() => {}
                Ok(status) => log::error!("worker with pid {}: {status} at its dismissal", process.id()),
                Err(error) => log::error!("wait for pid {}: {error}", process.id()),
            }
        }
        // The queues go before the last of the hooks: unregistering a hook flushes every queue that still is.
        drop(self.workers);
        for note in installed.tidy() {
            log::warn!("{note}");
        }
        log::info!("ended");
        Ok(removed?)
    }

    fn drain(&self) -> bool {
        let ours: Vec<u16> = self.workers.iter().map(|worker| worker.owner.queue()).collect();
        let deadline = Instant::now() + DRAIN_DEADLINE;
        loop {
            let waiting = queue_owners()
                .is_ok_and(|queues| queues.iter().any(|state| ours.contains(&state.queue) && state.waiting > 0));
            if !waiting {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Fresh at every start: nobody can choose addresses that all meet one worker.
fn steering_keys() -> Result<Keys, Error> {
    let mut words = [0; 6];
    for word in &mut words {
        *word = u32::from_ne_bytes(random()?);
    }
    Ok(Keys::new(words))
}

/// Id of the packet queued last, if any waits.
fn last_waiting(queue: u16) -> Option<u32> {
    let states = queue_owners().ok()?;
    states.into_iter().find(|state| state.queue == queue && state.waiting > 0).map(|state| state.last_id)
}

fn open_queue(queue: u16, max_len: u32) -> Result<Owner, Error> {
    Owner::open(queue, max_len).map_err(|error| match error {
        OwnerError::Refused(queue) => match queue_owner(queue) {
            Ok(Some(owner)) => Error::QueueBusy { queue, owner },
            _ => Error::Queue(error),
        },
        other => Error::Queue(other),
    })
}
