//! What every format becomes: services as `loaded.toml` has them, not yet compared with each other, and notes.

use crate::position::Position;
use loaded_config::plan::Discover;
use loaded_ipc::{Affinity, Mode, PortRange, Protocol, Strategy};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Seconds that a client stays with its backend, as `affinity` takes them.
pub(crate) const AFFINITY: RangeInclusive<u32> = 1..=loaded_config::plan::MAX_TIMEOUT;
/// Milliseconds between two checks.
pub(crate) const INTERVAL: RangeInclusive<u32> = 100..=86_400_000;
/// Milliseconds until a check has failed.
pub(crate) const TIMEOUT: RangeInclusive<u32> = 10..=60_000;

/// A whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    /// Where it comes from.
    pub(crate) origin: String,
    /// Keys of the top level, with their values as TOML.
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) services: Vec<Service>,
    /// What belongs to no service.
    pub(crate) notes: Vec<Note>,
}

/// Something that the reader of the output should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) at: Position,
    /// What stands there.
    pub(crate) said: String,
    /// Why it is not in the output, or differs.
    pub(crate) why: String,
    /// It is not in the output, and a client or an operator may miss it.
    pub(crate) lost: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) at: Position,
    /// Any text; the output makes a name of it.
    pub(crate) name: String,
    pub(crate) vips: Vec<IpAddr>,
    pub(crate) protocol: Protocol,
    /// Empty is every port.
    pub(crate) ports: Vec<PortRange>,
    pub(crate) mode: Mode,
    pub(crate) strategy: Strategy,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) check: Option<Check>,
    pub(crate) passive: Judgement,
    /// Flows of a backend that is down stay with it.
    pub(crate) keeps_flows: bool,
    /// Seconds that a flow may be idle.
    pub(crate) idle: Option<u32>,
    pub(crate) discover: Option<Discover>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) notes: Vec<Note>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) at: Position,
    pub(crate) address: IpAddr,
    /// `None`: the port that the packet came to.
    pub(crate) port: Option<u16>,
    /// 0: it gets nothing. May be more than `loaded` takes.
    pub(crate) weight: u32,
    pub(crate) backup: bool,
}

/// A check of a service's backends. `None` is the default of `loaded`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) kind: Kind,
    pub(crate) port: Option<u16>,
    /// Milliseconds.
    pub(crate) interval: Option<u32>,
    /// Milliseconds.
    pub(crate) timeout: Option<u32>,
    pub(crate) rise: Option<u8>,
    pub(crate) fall: Option<u8>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Icmp,
    Tcp,
    IcmpTcp,
    Http { path: String, host: Option<String>, status: Option<(u16, u16)> },
    Dns { name: String },
}

/// Whether workers judge backends by how they answer connection attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The default of `loaded`.
    Unsaid,
    Off,
    On {
        fails: Option<u8>,
        /// Milliseconds.
        timeout: Option<u32>,
        /// Seconds.
        hold: Option<u32>,
        port: Option<u16>,
    },
}

impl Model {
    /// Notes on the whole and on each service.
    pub(crate) fn all_notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter().chain(self.services.iter().flat_map(|service| &service.notes))
    }
}

impl Note {
    /// Something that is not in the output.
    pub(crate) fn lost(at: &Position, said: impl Into<String>, why: impl Into<String>) -> Self {
        Self { at: at.clone(), said: said.into(), why: why.into(), lost: true }
    }

    /// Something worth knowing of what is in the output, or that needs no counterpart.
    pub(crate) fn remark(at: &Position, said: impl Into<String>, why: impl Into<String>) -> Self {
        Self { lost: false, ..Self::lost(at, said, why) }
    }

    /// `file:line:column: what: why`.
    pub(crate) fn line(&self) -> String {
        format!("{}: {}: {}", self.at, clipped(&self.said), self.why)
    }
}

impl Service {
    /// A service without backends, with the defaults of `loaded` but for affinity, which none of the other balancers has
    /// unless told to.
    pub(crate) fn new(at: &Position, name: String, protocol: Protocol) -> Self {
        Self {
            at: at.clone(),
            name,
            vips: Vec::new(),
            protocol,
            ports: Vec::new(),
            mode: Mode::Nat,
            strategy: Strategy::RoundRobin,
            affinity: None,
            check: None,
            passive: Judgement::Unsaid,
            keeps_flows: false,
            idle: None,
            discover: None,
            backends: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Its name, of the letters that `loaded` allows.
    pub(crate) fn clean_name(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        // Short enough for a number behind it.
        let name: String = self.name.chars().map(plain).take(56).collect();
        if name.is_empty() { "service".to_owned() } else { name }
    }
}

/// A text of somebody else's, short enough for one line.
pub(crate) fn clipped(text: &str) -> String {
    const MOST: usize = 100;
    let mut clipped: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        clipped.push('…');
    }
    clipped
}

/// Decimal digits within a range.
pub(crate) fn number<T: std::str::FromStr + PartialOrd>(text: &str, range: &RangeInclusive<T>) -> Option<T> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|value| range.contains(value))
}

/// The range of one port.
pub(crate) fn one_port(port: u16) -> PortRange {
    PortRange { low: port, high: port }
}

/// `80` or `8000-8010`.
pub(crate) fn ports(text: &str) -> Option<PortRange> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let port = |text| number(text, &(1..=u16::MAX));
    Some(PortRange { low: port(low)?, high: port(high)? }).filter(|range| range.low <= range.high)
}
