//! The classic format: the original's `loaded.config` and `loaded.config6`, each key with its meaning there.
//!
//! It describes one service, named `classic`: VIP4 and VIP6, every protocol and port, each client (its whole
//! address) kept with its backend, every weight 1. Differences from the original, all deliberate: a client is
//! forgotten an hour after its last packet (there: never); FIRST_CORE, LAST_CORE and NS act here and not only in the
//! script; VIP4net is not taken for a VIP; what is malformed is refused, not ignored; failover is refused.
//!
//! Several files are one configuration. A key with one value may be repeated with the same value; NS, server4
//! and server6 add up; the keys of the script's interfaces belong to their file.

mod lines;

use super::draft::{Draft, DraftMember, DraftService};
use super::location::{At, Flaw, Mark, Source};
use super::value::{self, Network, address, address4, address6, number};
use super::{AFFINITY_TIMEOUT, CLASSIC_PREFIX6, MAGLEV_SEED, PREFIX4};
use lines::Entry;
use loaded_ipc::{Affinity, Protocol, Strategy};
use std::collections::HashMap;
use std::net::IpAddr;

/// The name of the only service.
const NAME: &str = "classic";

/// Longest time between two health checks, in seconds: a day.
const MAX_CYCLE: u32 = 86_400;

/// Longest name of a network interface: IFNAMSIZ less the final NUL, linux/if.h.
const MAX_NIC: usize = 15;

/// Everything a classic file can configure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Vip4,
    Vip4Net,
    Vip6,
    Vip6Net,
    Ns,
    FirstCore,
    LastCore,
    Rip4,
    Rip6,
    PublicNic,
    PrivateNic,
    PrivateGw,
    NfqLen,
    Server4,
    Server6,
    Strategy,
    Broadcast,
    PortAlive,
    CheckCycle,
    Failover,
}

/// How often a key may be given.
enum Repeat {
    /// One value in all files together.
    Once,
    /// One value in each file.
    OncePerFile,
    /// Each adds one.
    Many,
}

impl Key {
    const ALL: [(Self, &'static str); 20] = [
        (Self::Vip4, "VIP4"),
        (Self::Vip4Net, "VIP4net"),
        (Self::Vip6, "VIP6"),
        (Self::Vip6Net, "VIP6net"),
        (Self::Ns, "NS"),
        (Self::FirstCore, "FIRST_CORE"),
        (Self::LastCore, "LAST_CORE"),
        (Self::Rip4, "RIP4"),
        (Self::Rip6, "RIP6"),
        (Self::PublicNic, "public_NIC"),
        (Self::PrivateNic, "private_NIC"),
        (Self::PrivateGw, "private_GW"),
        (Self::NfqLen, "nfq_len"),
        (Self::Server4, "server4"),
        (Self::Server6, "server6"),
        (Self::Strategy, "strategy"),
        (Self::Broadcast, "broadcast"),
        (Self::PortAlive, "port_alive"),
        (Self::CheckCycle, "check_cycle"),
        (Self::Failover, "failover"),
    ];

    const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = Self::ALL[i].1;
            i += 1;
        }
        names
    };

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(key, _)| *key)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(key, _)| *key == self).map_or("", |(_, name)| name)
    }

    fn repeat(self) -> Repeat {
        match self {
            Self::Ns | Self::Server4 | Self::Server6 => Repeat::Many,
            Self::PublicNic | Self::PrivateNic | Self::PrivateGw => Repeat::OncePerFile,
            _ => Repeat::Once,
        }
    }
}

/// What the entries say, before it is put together.
#[derive(Default)]
struct Gathered {
    draft: Draft,
    vips: Vec<At<IpAddr>>,
    servers: Vec<At<IpAddr>>,
    networks: Vec<At<Network>>,
    first_core: Option<At<u16>>,
    last_core: Option<At<u16>>,
    strategy: Option<Strategy>,
    notes: Vec<Flaw>,
}

/// Reads all files as one configuration; beside it, notes about keys without effect.
pub(super) fn draft(sources: &[Source]) -> Result<(Draft, Vec<Flaw>), Flaw> {
    let mut gathered = Gathered::default();
    let mut given: HashMap<(Key, Option<usize>), At<&str>> = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        for entry in lines::entries(number, source.text())? {
            if !repeated(&mut given, &entry)? {
                gathered.add(&entry)?;
            }
        }
    }
    gathered.finish()
}

/// Was this said before? Saying something else is an error.
fn repeated<'t>(given: &mut HashMap<(Key, Option<usize>), At<&'t str>>, entry: &Entry<'t>) -> Result<bool, Flaw> {
    let scope = match entry.key.repeat() {
        Repeat::Many => return Ok(false),
        Repeat::Once => None,
        Repeat::OncePerFile => Some(entry.value.mark.source),
    };
    let first = *given.entry((entry.key, scope)).or_insert(entry.value);
    if first.value != entry.value.value {
        let (name, value) = (entry.key.name(), first.value);
        return Err(entry
            .value
            .flaw(format!("{name} has the value {value} already; leave one of them"))
            .see(first.mark));
    }
    Ok(first.mark != entry.value.mark)
}

impl Gathered {
    fn add(&mut self, entry: &Entry<'_>) -> Result<(), Flaw> {
        let text = &entry.value;
        match entry.key {
            Key::Vip4 => self.vips.push(text.read(|text| address4(text).map(IpAddr::from))?),
            Key::Vip6 => self.vips.push(text.read(|text| address6(text).map(IpAddr::from))?),
            Key::Server4 => self.servers.push(text.read(|text| address4(text).map(IpAddr::from))?),
            Key::Server6 => self.servers.push(text.read(|text| address6(text).map(IpAddr::from))?),
            Key::Ns => self.draft.nameservers.push(text.read(|text| address(text))?),
            Key::Rip4 => self.networks.push(text.read(|text| network(text, true))?),
            Key::Rip6 => self.networks.push(text.read(|text| network(text, false))?),
            Key::PrivateGw => self.draft.gateways.push(text.read(|text| gateway(text))?),
            Key::FirstCore => self.first_core = Some(text.read(|text| number(text, 0..=u16::MAX))?),
            Key::LastCore => self.last_core = Some(text.read(|text| number(text, 0..=u16::MAX))?),
            Key::NfqLen => self.draft.queue_len = Some(text.read(|text| number(text, value::QUEUE_LEN))?.value),
            Key::Strategy => self.strategy = Some(text.read(|text| strategy(text))?.value),
            Key::Vip4Net => drop(text.read(|text| number::<u8>(text, 1..=32))?),
            Key::Vip6Net => drop(text.read(|text| number::<u8>(text, 1..=128))?),
            Key::PublicNic | Key::PrivateNic => text.read(|text| nic(text)).map(drop)?,
            Key::Broadcast => self.inactive(entry, text.read(|text| address4(text)).map(drop))?,
            Key::PortAlive => self.inactive(entry, text.read(|text| number(text, 1..=u16::MAX)).map(drop))?,
            Key::CheckCycle => self.inactive(entry, text.read(|text| number(text, 1..=MAX_CYCLE)).map(drop))?,
            Key::Failover => text.read(|text| failover(text)).map(drop)?,
        }
        Ok(())
    }

    /// A well-formed value that only matters with failover.
    fn inactive(&mut self, entry: &Entry<'_>, checked: Result<(), Flaw>) -> Result<(), Flaw> {
        self.notes.push(
            entry.value.flaw(format!("{} has no effect: health checks are not part of this version", entry.key.name())),
        );
        checked
    }

    fn finish(mut self) -> Result<(Draft, Vec<Flaw>), Flaw> {
        let Some(first) = self.vips.first() else {
            let start = Mark { source: 0, offset: 0 };
            return Err(start.flaw("there is neither VIP4 nor VIP6; write VIP4=address on a line of its own"));
        };
        let name = first.with(NAME.to_owned());
        for server in &self.servers {
            let outside = |network: &&At<Network>| {
                network.value.is_ipv4() == server.value.is_ipv4() && !network.value.contains(server.value)
            };
            if let Some(network) = self.networks.iter().find(outside) {
                let text = format!("backend {} is outside of the network {}", server.value, network.value);
                return Err(server.flaw(text).see(network.mark));
            }
        }
        self.draft.cores = cores(self.first_core, self.last_core)?;
        self.draft.services.push(DraftService {
            name,
            vips: self.vips,
            protocol: Protocol::Any,
            ports: Vec::new(),
            strategy: self.strategy.unwrap_or(Strategy::RoundRobin),
            affinity: Some(Affinity { prefix4: PREFIX4, prefix6: CLASSIC_PREFIX6, timeout: AFFINITY_TIMEOUT }),
            members: self.servers.into_iter().map(|address| DraftMember { address, weight: 1 }).collect(),
        });
        Ok((self.draft, self.notes))
    }
}

fn cores(first: Option<At<u16>>, last: Option<At<u16>>) -> Result<Option<At<(u16, u16)>>, Flaw> {
    match (first, last) {
        (None, None) => Ok(None),
        (Some(first), None) => Err(first.flaw("FIRST_CORE needs LAST_CORE beside it")),
        (None, Some(last)) => Err(last.flaw("LAST_CORE needs FIRST_CORE beside it")),
        (Some(first), Some(last)) if first.value > last.value => {
            Err(last.flaw(format!("LAST_CORE {} is below FIRST_CORE {}", last.value, first.value)).see(first.mark))
        }
        (Some(first), Some(last)) => Ok(Some(last.with((first.value, last.value)))),
    }
}

fn network(text: &str, ipv4: bool) -> Result<Network, String> {
    let network = Network::parse(text)?;
    match (network.is_ipv4(), ipv4) {
        (false, true) => Err(format!("{text} is an IPv6 network; it belongs to RIP6")),
        (true, false) => Err(format!("{text} is an IPv4 network; it belongs to RIP4")),
        _ => Ok(network),
    }
}

fn gateway(text: &str) -> Result<IpAddr, String> {
    Network::split(text).map(|(address, _)| address)
}

fn strategy(text: &str) -> Result<Strategy, String> {
    match text {
        "rr" => Ok(Strategy::RoundRobin),
        "weighted" => Ok(Strategy::Weighted),
        "maglev" => Ok(Strategy::Maglev { seed: MAGLEV_SEED }),
        _ => Err(format!("there is no strategy {text:?}; write rr, weighted or maglev")),
    }
}

/// A name that the kernel's dev_valid_name would take, without what the shell would not pass on.
fn nic(text: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@');
    match !text.starts_with(['-', '.']) && text.len() <= MAX_NIC && text.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!("{text:?} is not the name of an interface")),
    }
}

fn failover(text: &str) -> Result<(), String> {
    match text {
        "0" => Ok(()),
        "" | "1" => Err("health checks and failover are not part of this version; remove failover".to_owned()),
        _ => Err(format!("failover={text} is neither failover=0 nor failover=1")),
    }
}
