//! The lab as a value: up while the value lives, taken down when it is dropped, also by a panic.

use super::gate::Pass;
use super::net::Family;
use super::ports;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Names of the backends.
pub(crate) const BACKENDS: [&str; 3] = ["b1", "b2", "b3"];
/// Seconds after which a command is killed: more than any of ours takes.
const COMMAND_SECONDS: &str = "150";

/// A lab of three backends.
pub(crate) struct Lab {
    name: String,
    // Given back last, when the lab is down.
    pass: Arc<Pass>,
}

/// What a command has printed and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Lab {
    /// For a test that does not measure: other labs are up at the same time. A test that measures uses
    /// `machine::measured`, `paired` or `timed`. `None`, after saying so, without root, unless LOADED_CI demands it.
    pub(crate) fn up() -> Option<Self> {
        Self::may_be().then(|| Self::of(Pass::shared()))
    }

    /// A second lab for the same test, which has one already.
    pub(crate) fn another(&self) -> Self {
        Self::begin(Arc::clone(&self.pass))
    }

    /// Whether there can be a lab; says so if not. With LOADED_CI it is a failure.
    pub(super) fn may_be() -> bool {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("LOADED_CI").is_none(), "LOADED_CI is set and this is not root");
            println!("skipped: the lab needs root");
            return false;
        }
        assert!(binary().is_file(), "{} is missing: cargo build --release, or set LOADED_BIN", binary().display());
        true
    }

    /// Builds it with the permission of the gate.
    pub(super) fn of(pass: Pass) -> Self {
        Self::begin(Arc::new(pass))
    }

    fn begin(pass: Arc<Pass>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("e2e{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::built(name, BACKENDS.len(), pass)
    }

    /// For a test that has the machine alone: a lab of this name, with this many backends.
    #[allow(dead_code, reason = "the soak uses it")]
    pub(crate) fn named(name: &str, backends: usize) -> Option<Self> {
        Self::may_be().then(|| Self::built(name.to_owned(), backends, Arc::new(Pass::alone())))
    }

    fn built(name: String, backends: usize, pass: Arc<Pass>) -> Self {
        let lab = Self { name, pass };
        let said = lab.script(&["up", &backends.to_string()]);
        assert_eq!(said.code, Some(0), "scripts/lab up: {}", said.err);
        lab
    }

    fn script(&self, words: &[&str]) -> Said {
        let lab = shipped("scripts/lab");
        let mut command = bounded(&[&[lab.as_str()], words].concat());
        let output = command.env("LAB", &self.name).env("LAB_STATE", self.state()).output();
        said(&output.unwrap())
    }

    /// The lab's directory, for its logs and for files of the tests.
    pub(crate) fn state(&self) -> PathBuf {
        Path::new("/run/loaded-lab").join(&self.name)
    }

    /// Names of its backends.
    pub(super) fn backends(&self) -> Vec<String> {
        let name = |n: usize| format!("b{n}");
        (1..).map(name).take_while(|who| Path::new("/run/netns").join(self.namespace(who)).exists()).collect()
    }

    /// Writes a file into that directory and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.state().join(name);
        match ports::change() && name.ends_with(".toml") {
            true => fs::write(&path, ports::changed(self, text)).unwrap(),
            false => fs::write(&path, text).unwrap(),
        }
        path.to_str().unwrap().to_owned()
    }

    /// Name of a network namespace.
    pub(crate) fn namespace(&self, who: &str) -> String {
        format!("{}-{who}", self.name)
    }

    /// Runs a command in a namespace.
    pub(crate) fn exec(&self, who: &str, words: &[&str]) -> Said {
        let namespace = self.namespace(who);
        let words = [&["ip", "netns", "exec", &namespace], words].concat();
        said(&bounded(&words).output().unwrap())
    }

    /// Runs a shell script in a namespace; it must succeed. Returns what it prints.
    #[track_caller]
    pub(crate) fn sh(&self, who: &str, script: &str) -> String {
        let said = self.exec(who, &["bash", "-o", "pipefail", "-c", script]);
        assert_eq!(said.code, Some(0), "{who}: {script}: {}{}", said.out, said.err);
        said.out
    }

    /// Runs a function of ours in a namespace, on a thread of its own.
    #[track_caller]
    pub(crate) fn within<T: Send>(&self, who: &str, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(self.namespace(who))).unwrap();
        let inside = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Kills a backend's nginx as a crash would: all of its processes, at once.
    #[track_caller]
    pub(crate) fn kill_web(&self, who: &str) {
        let pid = fs::read_to_string(self.pid_file(who)).unwrap().trim().to_owned();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        for pid in std::iter::once(pid.as_str()).chain(children.split_whitespace()) {
            kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    }

    /// Starts it again, as scripts/lab does, and waits until it listens.
    #[track_caller]
    pub(crate) fn start_web(&self, who: &str) {
        let (namespace, prefix) = (self.namespace(who), self.state().join(who));
        let conf = prefix.join("nginx.conf");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace, "nginx", "-e", "stderr", "-p"]).arg(&prefix).arg("-c").arg(&conf);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        fs::write(self.pid_file(who), child.id().to_string()).unwrap();
        std::thread::spawn(move || drop(child.wait()));
        let listens = || self.sh(who, "ss -Hnlt 'sport = :80' | wc -l").trim().parse::<u32>().unwrap() >= 2;
        assert!(eventually(Duration::from_secs(5), listens), "nginx of {who} does not listen");
    }

    fn pid_file(&self, who: &str) -> PathBuf {
        self.state().join(format!("{who}-nginx.pid"))
    }

    /// Lines of a backend's access log: "CLIENT PORT URI STATUS".
    pub(crate) fn access_log(&self, backend: &str) -> Vec<String> {
        let text = fs::read_to_string(self.state().join(backend).join("access.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Packets without a verdict, in all queues of the balancer.
    pub(crate) fn waiting(&self) -> u32 {
        let queues = self.queues();
        let column = |line: &str| line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap();
        queues.lines().map(column).sum()
    }

    /// The kernel's list of queues in the balancer; no text where no queue was ever bound.
    pub(crate) fn queues(&self) -> String {
        let list = "/proc/thread-self/net/netfilter/nfnetlink_queue";
        self.within("lb", || fs::read_to_string(list).unwrap_or_default())
    }

    /// All rules of the balancer as the three programs show them, without counters and comments.
    pub(crate) fn rules(&self) -> String {
        let text = self.sh("lb", "iptables-save && ip6tables-save && nft -s list ruleset");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let said = self.script(&["down"]);
        if said.code != Some(0) {
            let problem = format!("scripts/lab down: {}", said.err);
            assert!(std::thread::panicking(), "{problem}");
            eprintln!("{problem}");
        }
    }
}

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the workspace.
pub(crate) fn shipped(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("LOADED_BIN").map_or_else(|| root().join("target/release/loaded"), PathBuf::from)
}

/// The test build of the program: hostile prober and workers, another table layout. `scripts/test double` makes it.
pub(crate) fn double() -> Option<PathBuf> {
    let default = || root().join("target/double/debug/loaded");
    let path = std::env::var_os("LOADED_DOUBLE").map_or_else(default, PathBuf::from);
    if !path.is_file() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "{} is missing: scripts/test double", path.display());
        println!("skipped: {} is missing", path.display());
        return None;
    }
    Some(path)
}

/// Installs a program by another process: what this one has open for writing, children of other tests inherit for a moment,
/// and it cannot be executed then (ETXTBSY).
#[track_caller]
pub(crate) fn install(program: &Path, to: &Path) {
    let status = Command::new("install").args(["-m", "755"]).args([program, to]).status().unwrap();
    assert!(status.success(), "install {} {}", program.display(), to.display());
}

/// Installs a script with this text.
#[track_caller]
pub(crate) fn install_script(text: &str, to: &Path) {
    let script = to.with_extension("text");
    fs::write(&script, text).unwrap();
    install(&script, to);
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")))
}

/// How often tests of several balancers run, each time in a lab of its own (`E2E_TAKEOVERS`).
pub(crate) fn takeovers(one: impl Fn()) {
    for round in 1..=setting("E2E_TAKEOVERS", 1) {
        one();
        println!("round {round}: kept");
    }
}

/// A command that is killed if it takes too long.
pub(crate) fn bounded(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", COMMAND_SECONDS]).args(words).stdin(std::process::Stdio::null());
    command
}

pub(crate) fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Waits until `is_so`; `false` if that takes longer than `limit`.
pub(crate) fn eventually(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// More VIPs for the balancer: 101, 102 and 103 of both families.
pub(crate) fn more_vips(lab: &Lab) {
    let namespace = lab.namespace("lb");
    for n in 101..=103 {
        for (address, flag) in [(Family::V4.client(n), "/24"), (Family::V6.client(n), "/64")] {
            let words = ["ip", "-n", &namespace, "address", "add", &format!("{address}{flag}"), "dev", "eth0", "nodad"];
            let words = if address.is_ipv4() { &words[..8] } else { &words };
            assert_eq!(lab.exec("lb", words).code, Some(0), "{address}");
        }
    }
}

/// netfilter's base chains with their handles: a chain made anew has another handle.
pub(crate) fn base_chains(lab: &Lab) -> Vec<String> {
    let text = lab.sh("lb", "nft -a list ruleset");
    let mut chains = Vec::new();
    let (mut table, mut chain) = ("", "");
    for line in text.lines().map(str::trim) {
        match line.split_whitespace().next() {
            Some("table") => table = line,
            Some("chain") => chain = line,
            Some("type") => chains.push(format!("{table} {chain}")),
            _ => {}
        }
    }
    chains.sort();
    chains
}
