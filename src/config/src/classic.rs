//! The classic format: the original's `loaded.config` and `loaded.config6`, each key with its meaning there.
//!
//! It describes one service, named `classic`: VIP4 and VIP6, every protocol and port, each client (its whole
//! address) kept with its backend, every weight 1. Differences from the original, all deliberate: a client is
//! forgotten an hour after its last packet (there: never); FIRST_CORE, LAST_CORE and NS act here and not only in the
//! script; VIP4net is not taken for a VIP; what is malformed is refused, not ignored; when no backend is up, new
//! clients are refused (there: sent to the last server of the file). Those of failover are named in `failover`.
//!
//! Several files are one configuration. A key with one value may be repeated with the same value; NS, server4
//! and server6 add up; broadcast has one value for each family; the script's interfaces belong to their file.

mod failover;
mod key;
mod lines;

use super::address::{address, address4, address6};
use super::draft::{Draft, DraftMember, DraftService, Judgement};
use super::location::{At, Flaw, Mark, Source};
use super::mistake::{Mistakes, Unread};
use super::value::{self, number};
use super::{AFFINITY_TIMEOUT, CLASSIC_PREFIX6, MAGLEV_SEED, MODE, PREFIX4};
use crate::network::Network;
use crate::plan::QUEUE_LENS;
use failover::Failover;
use key::{Key, Occurrence};
use lines::Entry;
use loaded_ipc::{Affinity, Policy, Protocol, Strategy};
use std::collections::HashMap;
use std::net::IpAddr;

/// The name of the only service.
const NAME: &str = "classic";

/// Longest time between two health checks, in seconds: a day.
const MAX_CYCLE: u32 = 86_400;

/// What the entries say, before it is put together.
#[derive(Default)]
struct Gathered {
    draft: Draft,
    vips: Vec<At<IpAddr>>,
    servers: Vec<At<IpAddr>>,
    first_core: Option<At<u16>>,
    last_core: Option<At<u16>>,
    strategy: Option<Strategy>,
    failover: Failover,
    /// Keys that were written, but cannot be read.
    unread: Vec<Key>,
}

/// Reads all files as one configuration, and tells what cannot be read; beside it, notes about keys without effect. `failover`
/// is the option `-f`.
pub(super) fn draft(sources: &[Source], failover: bool, mistakes: &Mistakes) -> (Draft, Vec<Flaw>) {
    let mut gathered = Gathered::default();
    let mut given: HashMap<(Key, Option<usize>), At<&str>> = HashMap::new();
    for (number, source) in sources.iter().enumerate() {
        for entry in lines::entries(number, source.text()) {
            let (key, read) = match &entry {
                Ok(entry) => (Some(entry.key), gathered.add_once(&mut given, entry)),
                Err(miss) => (miss.key, Err(miss.flaw.clone())),
            };
            if mistakes.take(read).is_none() {
                gathered.unread.extend(key);
            }
        }
    }
    gathered.failover.wanted |= failover;
    gathered.finish(mistakes)
}

/// Whether the entry repeats an earlier one. A different value is an error.
fn repeated<'t>(given: &mut HashMap<(Key, Option<usize>), At<&'t str>>, entry: &Entry<'t>) -> Result<bool, Flaw> {
    let scope = match entry.key.occurrence() {
        Occurrence::Many => return Ok(false),
        Occurrence::Once => None,
        Occurrence::OncePerFile => Some(entry.value.mark.source),
        Occurrence::OncePerFamily => Some(usize::from(entry.value.value.contains(':'))),
    };
    let first = *given.entry((entry.key, scope)).or_insert(entry.value);
    // The bare word `failover` is failover=1.
    let written = |value: &At<&'t str>| if value.value.is_empty() { "1" } else { value.value };
    if written(&first) != written(&entry.value) {
        let (name, value) = (entry.key.name(), written(&first));
        return Err(entry
            .value
            .flaw(format!("{name} is {value} already; all files form one configuration, so give it one value"))
            .see(first.mark));
    }
    Ok(first.mark != entry.value.mark)
}

impl Gathered {
    fn add_once<'t>(
        &mut self,
        given: &mut HashMap<(Key, Option<usize>), At<&'t str>>,
        entry: &Entry<'t>,
    ) -> Result<(), Flaw> {
        if repeated(given, entry)? { Ok(()) } else { self.add(entry) }
    }

    fn add(&mut self, entry: &Entry<'_>) -> Result<(), Flaw> {
        let text = &entry.value;
        match entry.key {
            Key::Vip4 => self.vips.push(text.read(|text| address4(text).map(IpAddr::from))?),
            Key::Vip6 => self.vips.push(text.read(|text| address6(text).map(IpAddr::from))?),
            Key::Server4 => self.servers.push(text.read(|text| address4(text).map(IpAddr::from))?),
            Key::Server6 => self.servers.push(text.read(|text| address6(text).map(IpAddr::from))?),
            Key::Ns => self.draft.nameservers.push(text.read(|text| address(text))?),
            Key::Rip4 => self.failover.networks.push(text.read(|text| network(text, true))?),
            Key::Rip6 => self.failover.networks.push(text.read(|text| network(text, false))?),
            Key::PrivateGw => {
                let (address, network) = text.read(|text| gateway(text))?.value;
                self.draft.gateways.push(text.with(address));
                self.failover.private.push(text.with(network));
            }
            Key::FirstCore => self.first_core = Some(text.read(|text| number(text, 0..=u16::MAX))?),
            Key::LastCore => self.last_core = Some(text.read(|text| number(text, 0..=u16::MAX))?),
            Key::NfqLen => self.draft.queue_len = Some(text.read(|text| number(text, QUEUE_LENS))?.value),
            Key::Strategy => self.strategy = Some(text.read(|text| value::strategy(text, MAGLEV_SEED))?.value),
            Key::Vip4Net => drop(text.read(|text| number::<u8>(text, 1..=32))?),
            Key::Vip6Net => drop(text.read(|text| number::<u8>(text, 1..=128))?),
            Key::PublicNic => text.read(|text| value::interface(text)).map(drop)?,
            Key::PrivateNic => {
                let name = text.read(|text| value::interface(text))?.value;
                self.failover.interfaces.insert(text.mark.source, name);
            }
            Key::Broadcast => self.failover.broadcasts.push(text.read(|text| failover::broadcast(text))?),
            Key::PortAlive => self.failover.port_alive = Some(text.read(|text| number(text, 1..=u16::MAX))?),
            Key::CheckCycle => self.failover.check_cycle = Some(text.read(|text| number(text, 1..=MAX_CYCLE))?),
            Key::Failover => self.failover.wanted = text.read(|text| failover::wanted(text))?.value,
        }
        Ok(())
    }

    fn finish(mut self, mistakes: &Mistakes) -> (Draft, Vec<Flaw>) {
        let unread = Unread(self.unread.iter().filter_map(|key| key.of_service()).collect());
        if self.vips.is_empty() && unread.spares(&["vip"]) {
            let text = "there is neither VIP4 nor VIP6; write VIP4=address on a line of its own";
            mistakes.add(Mark::START.flaw(text));
            return (Draft { unread: Unread(vec!["service"]), ..self.draft }, Vec::new());
        }
        let name = At { value: NAME.to_owned(), mark: self.vips.first().map_or(Mark::START, |vip| vip.mark) };
        for server in &self.servers {
            let outside = |network: &&At<Network>| {
                network.value.is_ipv4() == server.value.is_ipv4() && !network.value.contains(server.value)
            };
            if let Some(network) = self.failover.networks.iter().find(outside) {
                let text = format!("backend {} is outside of the network {}", server.value, network.value);
                mistakes.add(server.flaw(text).see(network.mark));
            }
        }
        if !self.unread.iter().any(|key| matches!(key, Key::FirstCore | Key::LastCore)) {
            self.draft.cores = mistakes.take(cores(self.first_core, self.last_core)).flatten();
        }
        let mut service = DraftService {
            name,
            vips: self.vips,
            protocol: Protocol::Any,
            ports: Vec::new(),
            port: None,
            strategy: self.strategy.unwrap_or(Strategy::RoundRobin),
            affinity: Some(Affinity { prefix4: PREFIX4, prefix6: CLASSIC_PREFIX6, timeout: AFFINITY_TIMEOUT }),
            mode: MODE,
            // Every port is served, and a backend opens connections of its own from any.
            policy: Policy { adopt: false, ..Policy::STANDARD },
            passive: Judgement::Off,
            check: None,
            discover: None,
            members: self.servers.into_iter().map(member).collect(),
            unread,
        };
        let notes = if self.failover.wanted {
            self.failover.apply(&mut service, mistakes);
            Vec::new()
        } else {
            self.failover.notes()
        };
        self.draft.services.push(service);
        (self.draft, notes)
    }
}

fn cores(first: Option<At<u16>>, last: Option<At<u16>>) -> Result<Option<At<(u16, u16)>>, Flaw> {
    match (first, last) {
        (None, None) => Ok(None),
        (Some(first), None) => Err(first.flaw("FIRST_CORE needs LAST_CORE too")),
        (None, Some(last)) => Err(last.flaw("LAST_CORE needs FIRST_CORE too")),
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

fn member(address: At<IpAddr>) -> DraftMember {
    DraftMember { address, port: None, weight: 1, backup: false }
}

/// An address and the network it is in.
fn gateway(text: &str) -> Result<(IpAddr, Network), String> {
    let (address, length) = Network::split(text)?;
    let network = Network::around(address, length).ok_or_else(|| format!("{text:?} is in no network"))?;
    Ok((address, network))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::key::Key;
    use std::collections::BTreeSet;

    #[test]
    fn the_manual_page_has_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/man/loaded.config.5");
        let page = std::fs::read_to_string(path).unwrap();
        let keys: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect();
        assert_eq!(keys, Key::NAMES.into());
    }
}
