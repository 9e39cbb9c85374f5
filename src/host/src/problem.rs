//! A problem with this host's configuration.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where the settings of the network are.
pub const SETTINGS: &str = "/proc/sys/net";

/// How serious a problem is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing would be balanced.
    Fatal,
    /// No instance can start so. One that runs goes on, and lacks something.
    NoStart,
    /// Some packets are lost.
    Impairing,
    /// Something may not work.
    Warning,
    /// It cannot be told whether something does not work.
    Unknown,
}

/// Something on this host that keeps packets from being balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was looked at, in one word.
    pub kind: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// The service it is about; `None`: every one.
    pub service: Option<String>,
    /// 4 or 6: the family whose packets it is about; `None`: both, or one that is not known.
    pub family: Option<u8>,
    /// What is wrong, and what it causes.
    pub text: String,
    /// The command that mends it, if there is one.
    pub mend: Option<String>,
    /// The settings of interfaces in use that mend it, if these alone do and nobody else is harmed.
    pub settings: Vec<Setting>,
}

/// A setting of this host's network, and the value that is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Its path below /proc/sys/net: `ipv4/conf/eth1/accept_local`.
    pub key: String,
    /// The value.
    pub value: i64,
}

impl Setting {
    /// Where it is read and written.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(SETTINGS).join(&self.key)
    }

    /// One of an interface, or of `all`.
    pub(crate) fn of(family: u8, interface: &str, setting: &str, value: i64) -> Self {
        Self { key: format!("ipv{family}/conf/{interface}/{setting}"), value }
    }
}

/// The name of a setting as sysctl(8) expects it: with slashes if an interface has a dot in its name.
#[must_use]
pub fn sysctl_name(key: &str) -> String {
    let path = format!("net/{key}");
    if path.contains('.') { path } else { path.replace('/', ".") }
}

impl fmt::Display for Setting {
    /// As sysctl(8) expects it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", sysctl_name(&self.key), self.value)
    }
}

impl fmt::Display for Problem {
    /// The text and the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.mend.iter().try_for_each(|mend| write!(f, ": {mend}"))
    }
}

impl Problem {
    /// A problem of both families and every service.
    #[must_use]
    pub fn new(kind: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self { kind, severity, service: None, family: None, text: text.into(), mend: None, settings: Vec::new() }
    }

    /// The same, of one family.
    #[must_use]
    pub fn of_family(self, family: u8) -> Self {
        Self { family: Some(family), ..self }
    }

    /// The same, mended by these settings.
    #[must_use]
    pub(crate) fn mended_by_setting(self, settings: impl IntoIterator<Item = Setting>) -> Self {
        let settings: Vec<_> = settings.into_iter().collect();
        let all: Vec<_> = settings.iter().map(ToString::to_string).collect();
        self.mended_by(format!("sysctl -w {}", all.join(" "))).settable(settings)
    }

    /// The same, which these settings would mend too.
    #[must_use]
    pub(crate) fn settable(self, settings: impl IntoIterator<Item = Setting>) -> Self {
        Self { settings: settings.into_iter().collect(), ..self }
    }

    /// The same, with the command that mends it.
    #[must_use]
    pub fn mended_by(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_the_name_that_sysctl_knows() {
        assert_eq!(Setting::of(4, "eth1", "rp_filter", 2).to_string(), "net.ipv4.conf.eth1.rp_filter=2");
        assert_eq!(Setting::of(6, "eth1.7", "forwarding", 1).to_string(), "net/ipv6/conf/eth1.7/forwarding=1");
    }
}
