//! A draft: what the files say, each value well-formed and with its location, but not yet compared with any other.
//! Both formats produce one; [`super::check`] turns it into the plan.

use super::check_kind::DraftKind;
use super::location::At;
use super::mistake::Unread;
use super::{CHECK_INTERVAL, CHECK_TIMEOUT, FALL, JITTER, PASSIVE_FAILS, PASSIVE_HOLD, PASSIVE_TIMEOUT, RISE};
use crate::network::Network;
use crate::plan::{Fast, HostPolicy, LogLevel, MetricsAddress};
use loaded_ipc::{Affinity, Mode, OnFailure, Policy, PortRange, Protocol, Quota, Strategy, Unserved};
use std::net::IpAddr;

/// Everything the files say. `None` means the default.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) unread: Unread,
    pub(super) user: Option<String>,
    pub(super) cores: Option<At<(u16, u16)>>,
    pub(super) queue_base: Option<u16>,
    pub(super) queue_len: Option<u32>,
    pub(super) flows: Option<u32>,
    pub(super) clients: Option<u32>,
    pub(super) quota: Option<Quota>,
    pub(super) unserved: Option<Unserved>,
    pub(super) on_failure: DraftFailures,
    pub(super) nameservers: Vec<At<IpAddr>>,
    /// Other addresses of this host (private_GW); no backend or VIP may be one of them.
    pub(super) gateways: Vec<At<IpAddr>>,
    pub(super) drain: Option<u32>,
    pub(super) stop_hold: Option<u32>,
    pub(super) defragment: Option<bool>,
    pub(super) linger: Option<bool>,
    pub(super) fast: Option<Fast>,
    pub(super) host: Option<HostPolicy>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) metrics: Option<At<MetricsAddress>>,
    pub(super) monitor_group: Option<String>,
    pub(super) notify: Vec<String>,
    pub(super) notify_user: Option<String>,
    pub(super) services: Vec<DraftService>,
}

/// The table `on_failure`, as written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DraftFailures {
    pub(super) no_worker: Option<At<OnFailure>>,
    pub(super) queue_full: Option<At<OnFailure>>,
    /// Must equal `queue_full` if given: the kernel has one flag for both.
    pub(super) receive_overrun: Option<At<OnFailure>>,
    pub(super) parse_error: Option<At<OnFailure>>,
}

/// One service as written.
#[derive(Debug, Clone)]
pub(super) struct DraftService {
    pub(super) unread: Unread,
    pub(super) name: At<String>,
    pub(super) vips: Vec<At<IpAddr>>,
    pub(super) protocol: Protocol,
    /// Empty is every port.
    pub(super) ports: Vec<At<PortRange>>,
    /// The port of backends that name none.
    pub(super) port: Option<At<u16>>,
    pub(super) mode: Mode,
    pub(super) strategy: Strategy,
    pub(super) affinity: Option<Affinity>,
    /// Without its part `passive`, which the next field becomes.
    pub(super) policy: Policy,
    pub(super) passive: Judgement,
    pub(super) check: Option<At<DraftCheck>>,
    pub(super) discover: Option<At<DraftDiscover>>,
    pub(super) members: Vec<DraftMember>,
}

/// One backend of a service as written.
#[derive(Debug, Clone)]
pub(super) struct DraftMember {
    pub(super) address: At<IpAddr>,
    pub(super) port: Option<At<u16>>,
    pub(super) weight: u16,
    pub(super) backup: bool,
}

/// Whether workers judge backends by the packets they see.
#[derive(Debug, Clone, Copy)]
pub(super) enum Judgement {
    /// Not said: judge if there is a check, and a port to judge by.
    Unsaid,
    Off,
    On(At<DraftPassive>),
}

/// The table `passive`, as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct DraftPassive {
    pub(super) fails: u8,
    /// Milliseconds.
    pub(super) timeout: u32,
    /// Seconds.
    pub(super) hold: u32,
    pub(super) port: Option<At<u16>>,
}

/// A check as written.
#[derive(Debug, Clone)]
pub(super) struct DraftCheck {
    pub(super) kind: DraftKind,
    /// `None`: the service's, or the kind's own.
    pub(super) port: Option<u16>,
    pub(super) pace: Pace,
}

/// How often, how long, how many. Complete: nothing in it depends on the service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) interval: u32,
    pub(super) interval_down: u32,
    pub(super) timeout: u32,
    pub(super) jitter: u8,
    pub(super) rise: u8,
    pub(super) fall: u8,
}

/// A search for backends as written.
#[derive(Debug, Clone)]
pub(super) struct DraftDiscover {
    pub(super) places: Vec<DraftPlace>,
    pub(super) limit: u16,
    /// Milliseconds.
    pub(super) interval: u32,
}

/// One network of it.
#[derive(Debug, Clone)]
pub(super) struct DraftPlace {
    pub(super) network: At<Network>,
    /// `None`: the network's broadcast address, or ff02::1.
    pub(super) to: Option<At<IpAddr>>,
    pub(super) interface: Option<String>,
}

impl DraftService {
    /// Whether all of these keys could be read, or were not written.
    pub(super) fn knows(&self, keys: &[&str]) -> bool {
        self.unread.spares(keys)
    }

    /// The port that packets to a backend get, and where it was written; `None`: they keep the one they came to.
    pub(super) fn port_of(&self, member: &DraftMember) -> Option<At<u16>> {
        member.port.or(self.port)
    }

    /// The ports that packets to its backends get, of those that discovery finds too.
    pub(super) fn backend_ports(&self) -> impl Iterator<Item = Option<u16>> {
        let found = self.discover.iter().map(|_| self.port);
        self.members.iter().map(|member| self.port_of(member)).chain(found).map(|port| port.map(|port| port.value))
    }
}

/// Passive checks with every default.
pub(super) const PASSIVE: DraftPassive =
    DraftPassive { fails: PASSIVE_FAILS, timeout: PASSIVE_TIMEOUT, hold: PASSIVE_HOLD, port: None };

impl Pace {
    /// Checks every `interval` milliseconds, whatever the backend's state, and all else by default.
    pub(super) fn every(interval: u32) -> Self {
        let timeout = interval.min(CHECK_TIMEOUT);
        Self { interval, interval_down: interval, timeout, jitter: JITTER, rise: RISE, fall: FALL }
    }
}

impl DraftCheck {
    /// The check of a service that asks for none when all are to be checked (`-f`).
    pub(super) fn ping() -> Self {
        Self { kind: DraftKind::Icmp, port: None, pace: Pace::every(CHECK_INTERVAL) }
    }
}
