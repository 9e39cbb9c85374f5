//! Settings of this host (sysctl) that stand in the way of packets and that `host = "set"` lets this instance write: those that
//! a condition names as its cure, of interfaces in use. What they were before is remembered, by the journal too, and put back
//! at the end. A value that somebody else has written meanwhile is his.

use crate::problem::{Problem, SETTINGS, Setting, sysctl_name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A setting is written no more in this period if somebody else has changed it so often, for two programs must not take turns;
/// nor after it was refused.
const OFTEN: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// IPv4's switch for all interfaces, and how the switch of one ends.
const FORWARDS: &str = "ipv4/ip_forward";
const FORWARDING4: (&str, &str) = ("ipv4/conf/", "/forwarding");

/// A setting that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenSetting {
    /// Its path below /proc/sys/net.
    pub key: String,
    /// What it was before.
    pub old: i64,
    /// What was written.
    pub value: i64,
    /// For forwarding of one interface: ip_forward at that time. Whoever turns it on later wants every interface to forward.
    #[serde(default)]
    whole: Option<i64>,
}

/// What was written, and what could not be.
#[derive(Debug)]
pub struct HostSettings {
    root: PathBuf,
    /// In the order of writing.
    written: Vec<WrittenSetting>,
    /// Why these are not as they should be.
    refused: BTreeMap<Setting, String>,
    /// When each was written of late.
    recent: BTreeMap<String, VecDeque<Instant>>,
}

impl HostSettings {
    /// Those of this host; nothing is written yet.
    pub fn of_this_host() -> Self {
        Self::below(PathBuf::from(SETTINGS))
    }

    fn below(root: PathBuf) -> Self {
        Self { root, written: Vec::new(), refused: BTreeMap::new(), recent: BTreeMap::new() }
    }

    /// What was written, in that order.
    pub fn written(&self) -> &[WrittenSetting] {
        &self.written
    }

    /// What the supervisor before has written is this one's to put back.
    pub fn inherit(&mut self, before: &[WrittenSetting]) {
        let own = std::mem::take(&mut self.written);
        let is_own = |other: &&WrittenSetting| own.iter().any(|one| one.key == other.key);
        self.written = before.iter().filter(|other| !is_own(other)).cloned().collect();
        self.written.extend(own);
    }

    /// Notes what these problems need and the host has not: it is to be recorded, and then written by [`Self::write`].
    pub fn note(&mut self, problems: &[Problem], now: Instant) -> Vec<Setting> {
        let mut wanted: Vec<Setting> = Vec::new();
        for setting in problems.iter().flat_map(|problem| &problem.settings) {
            if !wanted.contains(setting) {
                wanted.push(setting.clone());
            }
        }
        self.refused.retain(|setting, _| wanted.contains(setting));
        wanted.retain(|setting| self.note_one(setting, now));
        wanted
    }

    /// Whether it is to be written.
    fn note_one(&mut self, setting: &Setting, now: Instant) -> bool {
        let Some(old) = self.read(&setting.key).filter(|old| *old != setting.value) else { return false };
        let recent = self.recent.entry(setting.key.clone()).or_default();
        recent.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if self.refused.contains_key(setting) && !recent.is_empty() {
            return false;
        }
        if recent.len() >= OFTEN {
            let why = format!("another program has set it to {old} {OFTEN} times within {WINDOW:?}; stop it");
            self.refuse(setting, why);
            return false;
        }
        recent.push_back(now);
        let whole = is_of_one(&setting.key).then(|| self.read(FORWARDS)).flatten();
        self.written.retain(|known| known.key != setting.key);
        self.written.push(WrittenSetting { key: setting.key.clone(), old, value: setting.value, whole });
        true
    }

    /// Writes what was noted. Returns each that was written, in words.
    pub fn write(&mut self, noted: &[Setting]) -> Vec<String> {
        let mut done = Vec::new();
        for setting in noted {
            let old = self.written.iter().find(|known| known.key == setting.key).map_or(0, |known| known.old);
            match fs::write(self.root.join(&setting.key), format!("{}\n", setting.value)) {
                Ok(()) => {
                    self.refused.remove(setting);
                    let text = format!("{setting} (was {old})");
                    log::info!("host: set {text}");
                    done.push(text);
                }
                Err(error) => {
                    self.written.retain(|known| known.key != setting.key);
                    self.refuse(setting, reason(&error));
                }
            }
        }
        done
    }

    fn refuse(&mut self, setting: &Setting, why: String) {
        if self.refused.get(setting) != Some(&why) {
            log::error!("host: {setting} cannot be set: {why}");
            self.refused.insert(setting.clone(), why);
        }
    }

    /// What could not be written and why, in words.
    pub fn refused(&self) -> impl Iterator<Item = String> {
        self.refused.iter().map(|(setting, why)| format!("host = \"set\": {setting} cannot be set: {why}"))
    }

    /// Puts back what was written, the last first. `others`: queue bases of instances here that go on, and may need it; then it
    /// stays. Returns what became of each, in words.
    pub fn put_back(&mut self, others: &[u16]) -> Vec<String> {
        self.refused.clear();
        let written = std::mem::take(&mut self.written);
        written.into_iter().rev().filter_map(|one| self.put_one_back(&one, others)).collect()
    }

    fn put_one_back(&self, one: &WrittenSetting, others: &[u16]) -> Option<String> {
        let WrittenSetting { key, old, value, whole } = one;
        let name = sysctl_name(key);
        // Gone with its interface, or somebody has put it back already.
        let now = self.read(key).filter(|now| now != old)?;
        if now != *value {
            log::warn!("host: {name} stays {now}: somebody has changed it since {value} was set here");
            return Some(format!("{name} stays {now}"));
        }
        if let Some(other) = others.first() {
            log::warn!(
                "host: {name} stays {value}, for the instance LOADED-{other} may need it; to put it back once that has ended: \
                 sysctl -w {name}={old}"
            );
            return Some(format!("{name} stays {value}"));
        }
        if whole.is_some() && *whole != self.read(FORWARDS) {
            log::warn!("host: {name} stays {value}: net.ipv4.ip_forward was changed since, which wants it so");
            return Some(format!("{name} stays {value}"));
        }
        match fs::write(self.root.join(key), format!("{old}\n")) {
            Ok(()) => {
                log::info!("host: put back {name}={old}");
                Some(format!("{name}={old} put back"))
            }
            Err(error) => {
                log::error!("host: {name} stays {value}: {}", reason(&error));
                Some(format!("{name} stays {value}"))
            }
        }
    }

    /// `None`: there is no such setting.
    fn read(&self, key: &str) -> Option<i64> {
        fs::read_to_string(self.root.join(key)).ok()?.trim().parse().ok()
    }
}

/// A start that has failed leaves the host as it was. What a supervisor before has written is inherited when a start has
/// succeeded, and an instance that has ended or has given way has nothing left here.
impl Drop for HostSettings {
    fn drop(&mut self) {
        self.put_back(&[]);
    }
}

/// Whether it is the switch of one interface for forwarding IPv4.
fn is_of_one(key: &str) -> bool {
    let (first, last) = FORWARDING4;
    key.starts_with(first) && key.ends_with(last)
}

/// Why a setting cannot be written, and what then.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            format!("{error}: set it outside the container, or in the unit write ProtectKernelTunables=no")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
