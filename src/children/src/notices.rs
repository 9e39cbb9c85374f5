//! Tells a program of the operator's what has changed (key `notify`). The program has none of our rights, is not waited for, and is
//! ended with whatever it has started when its time is over. What it says goes nowhere; that it fails is a line in the log.
//!
//! However fast something changes, few programs run at once and few begin in a second. What waits is the last state of each thing: an
//! older one is replaced by it, and counted.

use loaded_config::plan::Plan;
use loaded_ipc::Destination;
use loaded_sandbox::Identity;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the program may run.
pub const NOTICE_LIMIT: Duration = Duration::from_secs(10);
/// Programs that run at once.
const AT_ONCE: usize = 2;
/// Time between two starts: five a second.
const BETWEEN: Duration = Duration::from_millis(200);
/// How often it is looked whether one has ended.
const LOOK: Duration = Duration::from_millis(100);
/// Things that wait: every backend that a plan can have, every service, the verdict and the configuration.
const MOST: usize = 4500;
/// Longest value in its environment, bytes.
const LONGEST: usize = 4096;

/// What a notice is about. Of each, the last state is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Whether clients are served.
    Verdict,
    /// The configuration in force.
    Configuration,
    /// A service.
    Service(String),
    /// A backend of a service.
    Backend(String, Destination),
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Notice {
    subject: Subject,
    state: String,
    cause: String,
    /// States before it that nobody was told of.
    skipped: u32,
}

/// A program that runs.
#[derive(Debug)]
struct Running {
    process: Child,
    subject: Subject,
    until: Instant,
}

/// What waits to be told, and who is being told.
#[derive(Debug)]
pub struct Notices {
    waiting: VecDeque<Notice>,
    running: Vec<Running>,
    next: Instant,
    /// The last failure, so that it is logged once.
    trouble: Option<String>,
}

impl Notices {
    /// Nothing waits yet.
    pub fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), running: Vec::new(), next: now, trouble: None }
    }

    /// Something has changed.
    pub fn add(&mut self, plan: &Plan, subject: Subject, state: &str, cause: &str) {
        if plan.notify.is_empty() {
            return;
        }
        let (state, cause) = (value(state), value(cause));
        if let Some(known) = self.waiting.iter_mut().find(|notice| notice.subject == subject) {
            (known.state, known.cause) = (state, cause);
            known.skipped = known.skipped.saturating_add(1);
        } else if self.waiting.len() < MOST {
            self.waiting.push_back(Notice { subject, state, cause, skipped: 0 });
        }
    }

    /// Pids of the programs.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.running.iter().map(|running| running.process.id())
    }

    /// When something is to be done.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let look = (!self.running.is_empty()).then(|| now + LOOK);
        let start = self.startable().map(|_| self.next);
        look.into_iter().chain(start).min()
    }

    /// Ends what has run for too long, and starts what may be started.
    pub fn go_on(&mut self, plan: &Plan, verdict: &str, now: Instant) {
        let mut told = Vec::new();
        self.running.retain_mut(|running| !running.is_over(now, &mut told));
        told.into_iter().for_each(|trouble| self.note(trouble));
        if plan.notify.is_empty() {
            self.waiting.clear();
            return;
        }
        let Some(place) = self.startable().filter(|_| now >= self.next) else { return };
        let Some(notice) = self.waiting.remove(place) else { return };
        self.next = now + BETWEEN;
        let Notice { subject, .. } = notice.clone();
        match start(plan, &notice, verdict) {
            Ok(process) => self.running.push(Running { process, subject, until: now + NOTICE_LIMIT }),
            Err(error) => self.note(Some(error)),
        }
    }

    /// The first that waits, unless too many run; two about one thing could end in the wrong order.
    fn startable(&self) -> Option<usize> {
        let is_told = |notice: &Notice| self.running.iter().any(|running| running.subject == notice.subject);
        if self.running.len() >= AT_ONCE {
            return None;
        }
        self.waiting.iter().position(|notice| !is_told(notice))
    }

    /// Logs a failure, unless the one before was the same.
    fn note(&mut self, trouble: Option<String>) {
        if let Some(text) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            log::warn!("notify: {text}");
        }
        self.trouble = trouble;
    }
}

impl Running {
    /// Whether it has ended, or is ended now; how goes into `told`, `None` if well.
    fn is_over(&mut self, now: Instant, told: &mut Vec<Option<String>>) -> bool {
        let has_ended = self.has_ended();
        if !has_ended && now < self.until {
            return false;
        }
        // Also what it has left behind. Until somebody has waited for it, its number means nobody else.
        self.kill();
        let status = self.process.wait();
        told.push(match status {
            _ if !has_ended => Some(format!("the program has run for {} s and was killed", NOTICE_LIMIT.as_secs())),
            Ok(status) => (!status.success()).then(|| format!("the program has failed: {status}")),
            Err(error) => Some(format!("wait for the program: {error}")),
        });
        true
    }

    /// Looks without waiting for it, so that it stays what it is.
    fn has_ended(&self) -> bool {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(self.pid()), look).map_or(true, |status| status.pid().is_some())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Its whole process group: it leads one, as it leads its session.
    fn kill(&self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
    }
}

/// Starts this binary again, which becomes the program (`src/notice.rs`).
fn start(plan: &Plan, notice: &Notice, verdict: &str) -> Result<Child, String> {
    let user = plan.notify_account();
    let Identity { uid, gid, name } = Identity::lookup(user).map_err(|error| error.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("loaded").args(["--role", "notice", &uid.to_string(), &gid.to_string(), &name]).args(&plan.notify);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(notice.environment()).env("LOADED_VERDICT", verdict).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("start {}: {error}", plan.notify.first().map_or("", String::as_str)))
}

impl Notice {
    fn environment(&self) -> Vec<(&'static str, String)> {
        let about = match &self.subject {
            Subject::Verdict => vec![("LOADED_EVENT", "verdict".to_owned())],
            Subject::Configuration => vec![("LOADED_EVENT", "configuration".to_owned())],
            Subject::Service(name) => vec![("LOADED_EVENT", "service".to_owned()), ("LOADED_SERVICE", name.clone())],
            Subject::Backend(name, backend) => vec![
                ("LOADED_EVENT", "backend".to_owned()),
                ("LOADED_SERVICE", name.clone()),
                ("LOADED_BACKEND", backend.to_string()),
            ],
        };
        let what = [
            ("LOADED_STATE", self.state.clone()),
            ("LOADED_CAUSE", self.cause.clone()),
            ("LOADED_SKIPPED", self.skipped.to_string()),
        ];
        about.into_iter().chain(what).collect()
    }
}

/// A text as a value: one line, of bounded length.
fn value(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain[..plain.floor_char_boundary(LONGEST)].to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn backend(n: u8) -> Subject {
        Subject::Backend("web".to_owned(), Destination { address: [198, 51, 100, n].into(), port: None })
    }

    #[test]
    fn the_last_state_of_each_thing_waits_and_the_others_are_counted() {
        let plan = Plan { notify: vec!["/bin/true".to_owned()], ..Plan::empty() };
        let mut notices = Notices::new(Instant::now());
        for state in ["down", "up", "down"] {
            notices.add(&plan, backend(1), state, "because\nof it");
        }
        notices.add(&plan, Subject::Verdict, "serving", &"x".repeat(2 * LONGEST));
        let waiting: Vec<_> = notices.waiting.iter().map(|n| (n.state.as_str(), n.skipped, n.cause.len())).collect();
        assert_eq!(waiting, [("down", 2, 13), ("serving", 0, LONGEST)]);
        let environment = notices.waiting[0].environment();
        assert!(environment.contains(&("LOADED_BACKEND", "198.51.100.1".to_owned())), "{environment:?}");
        assert!(environment.contains(&("LOADED_CAUSE", "because of it".to_owned())), "{environment:?}");
        notices.add(&Plan::empty(), backend(2), "up", "");
        assert_eq!(notices.waiting.len(), 2, "nobody is to be told");
        for n in 0..u16::MAX {
            let at = Destination { address: [10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]].into(), port: None };
            notices.add(&plan, Subject::Backend("web".to_owned(), at), "up", "");
            if n > 5000 {
                break;
            }
        }
        assert_eq!(notices.waiting.len(), MOST, "what waits is bounded");
    }
}
