//! A running `loaded` in the balancer's namespace.

use super::lab::{Lab, Said, binary, bounded, eventually, said, shipped};
use super::ports;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);

/// A supervisor in the foreground. It is killed when dropped, and its log is shown if the test fails.
pub(crate) struct Loaded {
    child: Child,
    /// The supervisor's process id; after an upgrade no longer the child's.
    pid: AtomicU32,
    log: PathBuf,
    control: PathBuf,
}

/// What one worker has counted.
#[derive(Debug, PartialEq)]
pub(crate) struct Counted {
    /// Number of its queue.
    pub(crate) queue: u16,
    pub(crate) received: u64,
    /// Outcomes, faults and pressure that are not zero.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Counted {
    pub(crate) fn of(&self, label: &str) -> u64 {
        self.counts.get(label).copied().unwrap_or(0)
    }

    /// Sum over the outcomes, each packet having exactly one; faults between worker and kernel are no outcomes.
    pub(crate) fn outcomes(&self) -> u64 {
        let others = ["verdict_", "message_", "membership_", "flow_"];
        let is_outcome = |label: &str| others.iter().all(|other| !label.starts_with(other));
        self.counts.iter().filter(|(label, _)| is_outcome(label)).map(|(_, count)| count).sum()
    }
}

/// The classic configuration of both families, as it is shipped.
pub(crate) fn classic() -> Vec<String> {
    ["-c", &shipped("scripts/loaded.config"), "-c", &shipped("scripts/loaded.config6")].map(str::to_owned).to_vec()
}

impl Loaded {
    /// Starts it with the shipped classic configuration and waits until it serves.
    #[track_caller]
    pub(crate) fn classic(lab: &Lab) -> Self {
        Self::classic_with(lab, &[])
    }

    /// The same, with these words added to the command.
    #[track_caller]
    pub(crate) fn classic_with(lab: &Lab, words: &[&str]) -> Self {
        let mut arguments = match ports::change() {
            true => vec!["-c".to_owned(), lab.file("loaded.toml", &ports::instead_of_classic())],
            false => classic(),
        };
        arguments.extend(words.iter().map(|&word| word.to_owned()));
        Self::start(lab, &arguments)
    }

    /// Starts it with a TOML configuration and waits until it serves.
    #[track_caller]
    pub(crate) fn toml(lab: &Lab, text: &str) -> Self {
        Self::start(lab, &["-c".to_owned(), lab.file("loaded.toml", text)])
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, arguments: &[String]) -> Self {
        Self::spawn(lab, arguments).until_it_serves()
    }

    #[track_caller]
    pub(crate) fn until_it_serves(self) -> Self {
        let mut this = self;
        let end = std::time::Instant::now() + START;
        while !this.log().contains("loaded: serving:") && !this.log().contains("loaded: started, NOT SERVING:") {
            assert!(this.child.try_wait().unwrap().is_none(), "loaded ended while it started");
            assert!(std::time::Instant::now() < end, "loaded does not serve within {START:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        this
    }

    /// Starts it in the foreground and does not wait.
    pub(crate) fn spawn(lab: &Lab, arguments: &[String]) -> Self {
        Self::spawn_with(lab, |command| {
            command.arg("-D").args(arguments);
        })
    }

    /// The same, with what `add` adds to the command.
    pub(crate) fn spawn_with(lab: &Lab, add: impl FnOnce(&mut Command)) -> Self {
        Self::spawn_as(&binary(), lab, add)
    }

    /// The same, of another binary.
    pub(crate) fn spawn_as(binary: &Path, lab: &Lab, add: impl FnOnce(&mut Command)) -> Self {
        let count = fs::read_dir(lab.state()).unwrap().count();
        let log = lab.state().join(format!("loaded.{count}.log"));
        Self::spawn_at(binary, lab, (log, lab.state().join("control.sock")), add)
    }

    /// The same, with log and control socket at these places.
    pub(crate) fn spawn_at(
        binary: &Path,
        lab: &Lab,
        (log, control): (PathBuf, PathBuf),
        add: impl FnOnce(&mut Command),
    ) -> Self {
        Self::spawn_in("lb", binary, lab, (log, control), add)
    }

    /// The same, in the namespace of another balancer.
    pub(crate) fn spawn_in(
        who: &str,
        binary: &Path,
        lab: &Lab,
        (log, control): (PathBuf, PathBuf),
        add: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.namespace(who)]).arg(binary).args(["-U", "nobody"]);
        add(&mut command);
        // The run without the kernel path: `E2E_FAST=off`.
        let is_said = |word: &OsStr| {
            word == "--fast"
                || fs::read_to_string(word).is_ok_and(|text| text.lines().any(|line| line.starts_with("fast = ")))
        };
        if let Some(mode) = std::env::var_os("E2E_FAST").filter(|_| !command.get_args().any(is_said)) {
            command.arg("--fast").arg(mode);
        }
        command.arg("--control").arg(&control);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Self { pid: AtomicU32::new(child.id()), child, log, control }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// From now on another process is the supervisor.
    pub(crate) fn is_followed_by(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    /// Asks for an upgrade and waits for its end: the pid of the new supervisor, or why it was refused.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Result<u32, String> {
        let (before, old) = (self.log().len(), self.pid());
        let line = |word: &str| {
            let log = self.log();
            log[before..].lines().find_map(|line| Some(line.split_once(word)?.1.to_owned()))
        };
        let serves = || line("upgrade: pid ").filter(|line| line.contains(" serves"));
        let refused = || line("upgrade refused, everything stays as it is: ");
        self.signal(Signal::SIGUSR2);
        let ended = eventually(Duration::from_secs(40), || serves().is_some() || refused().is_some());
        assert!(ended, "the upgrade does not end: {}", &self.log()[before..]);
        match serves() {
            Some(line) => {
                let pid = line.split(' ').next().unwrap().parse().unwrap();
                assert!(eventually(Duration::from_secs(5), || !lives(old)), "the old supervisor is still alive");
                self.is_followed_by(pid);
                Ok(pid)
            }
            None => Err(refused().unwrap_or_default()),
        }
    }

    /// Asks for an upgrade: the pid of the new supervisor, which has started and does not serve yet.
    #[track_caller]
    pub(crate) fn begin_upgrade(&self) -> u32 {
        let before = self.log().len();
        let begun = || Some(self.log()[before..].split_once("started as pid ")?.1.split_once('\n')?.0.parse().unwrap());
        self.signal(Signal::SIGUSR2);
        assert!(eventually(Duration::from_secs(5), || begun().is_some()), "no upgrade begins: {}", self.log());
        begun().unwrap()
    }

    /// Process ids of its workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let is_worker = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "loaded-worker")
        };
        children(self.pid()).into_iter().filter(is_worker).collect()
    }

    /// Process id of its prober, while there is one.
    pub(crate) fn prober(&self) -> Option<u32> {
        let is_prober = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "loaded-prober")
        };
        children(self.pid()).into_iter().find(is_prober)
    }

    /// Runs `loaded WORDS…` against this instance.
    pub(crate) fn ask(&self, words: &[&str]) -> Said {
        let binary = binary();
        let control = ["--control", self.control.to_str().unwrap()];
        said(&bounded(&[&[binary.to_str().unwrap()], words, &control].concat()).output().unwrap())
    }

    /// The path of its control socket.
    pub(crate) fn control(&self) -> &Path {
        &self.control
    }

    /// The same, which must succeed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let said = self.ask(&[words, &["--json"]].concat());
        assert_eq!(said.code, Some(0), "loaded {words:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// What workers have concluded from packets, by the history: address, what became of it, cause.
    pub(crate) fn ejections(&self) -> Vec<String> {
        let history = self.json(&["history", "-n", "1000"]);
        let of_packets = history.as_array().unwrap().iter().filter(|event| event["by"] == "packets");
        of_packets.map(|event| format!("{} {} ({})", event["address"], event["what"], event["cause"])).collect()
    }

    /// A backend of a service in the status.
    #[track_caller]
    pub(crate) fn backend(&self, service: &str, address: IpAddr) -> Value {
        let status = self.status();
        let find = |list: &Value, key: &str, value: &str| {
            list.as_array().unwrap().iter().find(|entry| entry[key] == value).cloned()
        };
        let service = find(&status["services"], "name", service).unwrap_or_else(|| panic!("no {service} in {status}"));
        let address = address.to_string();
        find(&service["backends"], "address", &address).unwrap_or_else(|| panic!("no {address} in {service}"))
    }

    /// Reloads and waits for the end; whether it succeeded, and the text of the outcome.
    #[track_caller]
    pub(crate) fn reload(&self) -> (bool, String) {
        let ended = |log: &str| {
            log.lines()
                .filter(|line| {
                    line.contains("reload: generation")
                        || line.contains("reload refused")
                        || line.contains("reload: the configuration is the same")
                })
                .count()
        };
        let before = ended(&self.log());
        self.signal(Signal::SIGHUP);
        assert!(eventually(Duration::from_secs(20), || ended(&self.log()) > before), "the reload does not finish");
        let last = &self.status()["last_reload"];
        (last["ok"] == true, last["text"].as_str().unwrap().to_owned())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Ends it with a signal and waits.
    #[track_caller]
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = std::time::Instant::now() + END;
        loop {
            // One that followed is no child of ours: that its predecessor has ended well is all there is.
            if let Some(status) = self.child.try_wait().unwrap().filter(|_| !lives(self.pid())) {
                return status;
            }
            assert!(std::time::Instant::now() < end, "loaded is still alive {END:?} after it should have ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it in order.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        let status = self.end(Signal::SIGTERM);
        assert_eq!(status.code(), Some(0), "exit code after TERM");
    }

    /// The counters of all workers once they rise no more, for they are read while workers count.
    #[track_caller]
    pub(crate) fn counters(&self) -> Vec<Counted> {
        let mut last = self.report();
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(30));
            let next = self.report();
            if next == last {
                return next;
            }
            last = next;
        }
        panic!("the counters do not come to rest: {last:?}");
    }

    /// The counters that the supervisor logs on USR1.
    #[track_caller]
    fn report(&self) -> Vec<Counted> {
        let (before, workers) = (self.log().len(), self.workers().len());
        self.signal(Signal::SIGUSR1);
        // The last line may be seen while it is being written.
        let news = || {
            let log = self.log();
            let lines = log[before..].split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.filter(|line| line.contains(": received=")).map(counted).collect::<Vec<_>>()
        };
        assert!(eventually(Duration::from_secs(5), || news().len() >= workers), "no counters after USR1");
        news()
    }

    /// The sum over all workers of one counter.
    #[track_caller]
    pub(crate) fn count(&self, label: &str) -> u64 {
        self.counters().iter().map(|counted| counted.of(label)).sum()
    }

    /// Packets that status shows under these labels, among them those that the kernel path has sent on.
    #[track_caller]
    pub(crate) fn packets(&self, labels: &[&str]) -> u64 {
        let status = self.status();
        labels.iter().map(|label| status["packets"][label].as_u64().unwrap()).sum()
    }
}

/// "loaded: worker[0] core 0 queue 0: received=10 forwarded=6; kernel: …"
fn counted(line: &str) -> Counted {
    let (who, counts) = line.split_once(": received=").unwrap();
    let queue = who.rsplit(' ').next().unwrap().parse().unwrap();
    let counts = counts.split(';').next().unwrap();
    let (received, counts) = counts.split_once(' ').unwrap_or((counts, ""));
    let pair = |word: &str| {
        let (label, count) = word.split_once('=').unwrap();
        (label.to_owned(), count.parse().unwrap())
    };
    Counted { queue, received: received.parse().unwrap(), counts: counts.split_whitespace().map(pair).collect() }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // Ended already, or about to be.
        if self.pid() != self.child.id() && lives(self.pid()) {
            signal_to(self.pid(), Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- log of loaded\n{}\n---", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

pub(crate) fn signal_to(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

/// Whether this process exists and is no zombie.
pub(crate) fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Resident memory in kB, and open descriptors.
pub(crate) fn size(pid: u32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    (memory, fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}
