//! The control socket of the instance, whichever process is its supervisor at the moment.

use crate::rig::lab::{Lab, Said, binary, eventually, said};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Seconds after which a question is given up.
const ASK_SECONDS: &str = "10";
/// The services whose backends are drained, disabled and killed.
const TROUBLED: [&str; 2] = ["steady", "mortal"];

/// The control socket.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) path: PathBuf,
}

impl Control {
    pub(crate) fn of(lab: &Lab) -> Self {
        Self { path: lab.state().join("control.sock") }
    }

    /// Runs `loaded WORDS…` against this instance.
    pub(crate) fn ask(&self, words: &[&str]) -> Said {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", ASK_SECONDS]).arg(binary()).args(words).arg("--control").arg(&self.path);
        said(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// `None` while nobody answers.
    pub(crate) fn status(&self) -> Option<Status> {
        serde_json::from_str(&self.ask(&["status", "--json"]).out).ok().map(Status)
    }

    /// Waits until the status satisfies `is_so`; `false` if it does not within `limit`.
    pub(crate) fn comes_to(&self, limit: Duration, is_so: impl Fn(&Status) -> bool) -> bool {
        eventually(limit, || self.status().is_some_and(|status| is_so(&status)))
    }

    /// Serving processes of a role; none while nobody answers.
    pub(crate) fn serving(&self, role: &str) -> Vec<u32> {
        self.status().map_or_else(Vec::new, |status| status.serving(role))
    }
}

/// The answer to `loaded status --json`.
pub(crate) struct Status(Value);

impl Status {
    /// Pids of the serving processes of a role.
    pub(crate) fn serving(&self, role: &str) -> Vec<u32> {
        let processes =
            list(&self.0["processes"]).filter(|process| process["role"] == role && process["serving"] == true);
        processes.filter_map(|process| u32::try_from(process["pid"].as_u64()?).ok().filter(|pid| *pid > 0)).collect()
    }

    pub(crate) fn has_two_workers(&self) -> bool {
        self.serving("worker").len() == 2
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.has_two_workers() && self.serving("supervisor").len() == 1 && self.serving("prober").len() == 1
    }

    /// It has the first configuration, and every backend of the troubled services is up and enabled.
    pub(crate) fn is_recovered(&self) -> bool {
        let services: Vec<_> =
            list(&self.0["services"]).filter(|service| TROUBLED.iter().any(|name| service["name"] == *name)).collect();
        let is_well = |backend: &Value| backend["state"] == "up" && backend["admin"] == "enabled";
        let of = |name: &str| services.iter().find(|service| service["name"] == name);
        services.len() == TROUBLED.len()
            && of("mortal").is_some_and(|service| list(&service["backends"]).count() == 6)
            && services.iter().all(|service| list(&service["backends"]).all(is_well))
    }

    /// No removed service or backend is still draining.
    pub(crate) fn has_no_departure(&self) -> bool {
        let stays = |entry: &Value| entry["state"] != "leaving";
        list(&self.0["services"]).all(|service| stays(service) && list(&service["backends"]).all(stays))
    }

    pub(crate) fn generation(&self) -> u64 {
        number(&self.0["generation"])
    }

    pub(crate) fn flows(&self) -> u64 {
        list(&self.0["services"]).flat_map(|service| list(&service["backends"])).map(|b| number(&b["flows"])).sum()
    }

    /// Packets without a verdict, in all queues.
    pub(crate) fn waiting(&self) -> u64 {
        self.queues("waiting")
    }

    pub(crate) fn received(&self) -> u64 {
        self.queues("received")
    }

    /// Packets dropped by full queues or sockets.
    pub(crate) fn dropped(&self) -> u64 {
        self.queues("dropped_full") + self.queues("dropped_socket")
    }

    fn queues(&self, key: &str) -> u64 {
        list(&self.0["queues"]).map(|queue| number(&queue[key])).sum()
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap_or_else(|| panic!("{value}: not a list")).iter()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value}: not a number"))
}
