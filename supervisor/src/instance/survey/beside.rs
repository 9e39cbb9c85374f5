//! Clients in the network of the backends. In mode "nat" a backend answers them on the link, under its own address, and they
//! reset what they have not asked for; unless it has a route to them through this host. Workers count the SYNs that such
//! clients send again because nothing has come back. They blame no backend for it.

use super::alarm::Alarm;
use crate::children::Children;
use crate::roster::Roster;
use loaded_config::network::Network;
use loaded_host::OwnNetworks;
use loaded_ipc::{BackendCounter, BackendIndex, RECEIVED};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long such clients are told of after the last such SYN. Log and history have no more than one line in this time and
/// network: whoever forges such packets must not fill them.
const LASTS: Duration = Duration::from_secs(600);
/// So many backends are named.
const NAMED: usize = 4;

/// Time between two looks at the counters.
const EVERY: Duration = Duration::from_secs(2);

/// Where such clients were seen.
#[derive(Debug, Default)]
pub(in crate::instance) struct ClientsBeside {
    due: Option<Instant>,
    /// Packets that workers have received: without one more, none was counted.
    received: Alarm,
    /// `None`: not yet looked at. Counters outlive a supervisor.
    counted: Option<BTreeMap<BackendIndex, u64>>,
    seen: BTreeMap<Network, Seen>,
}

/// Of one network: when such a client was last seen, and what is told of it.
#[derive(Debug)]
struct Seen {
    at: Instant,
    text: String,
}

impl ClientsBeside {
    /// Looks at the counters, if that is due. Returns what is news.
    pub(in crate::instance) fn look(&mut self, children: &Children, roster: &Roster, now: Instant) -> Vec<String> {
        if self.due.is_some_and(|due| due > now) {
            return Vec::new();
        }
        self.due = Some(now + EVERY);
        if !self.received.rings(children.sum(RECEIVED)) {
            return self.note(std::iter::empty(), now);
        }
        let count = |index| children.count(index, BackendCounter::Beside);
        let all = roster.backends().map(|(index, backend)| (index, backend.address, count(index)));
        let rising = self.rising(all.filter(|(_, _, count)| *count > 0).collect());
        let networks = if rising.is_empty() { OwnNetworks::default() } else { OwnNetworks::read() };
        let found: BTreeSet<_> = rising.into_iter().filter_map(|address| networks.around(address)).collect();
        let found = found.into_iter().map(|network| {
            let inside =
                roster.backends().map(|(_, backend)| backend.address).filter(|address| network.contains(*address));
            (network, inside.collect())
        });
        self.note(found, now)
    }

    /// The backends whose counters are higher than at the last look. Those of a worker that has ended are in its successor's.
    fn rising(&mut self, counts: Vec<(BackendIndex, IpAddr, u64)>) -> Vec<IpAddr> {
        let counted = counts.iter().map(|(index, _, count)| (*index, *count)).collect();
        let Some(before) = self.counted.replace(counted) else { return Vec::new() };
        let is_higher = |index, count: u64| before.get(index).is_none_or(|before| count > *before);
        counts.iter().filter(|(index, _, count)| is_higher(index, *count)).map(|(_, address, _)| *address).collect()
    }

    fn note(&mut self, found: impl Iterator<Item = (Network, BTreeSet<IpAddr>)>, now: Instant) -> Vec<String> {
        self.seen.retain(|_, seen| now.saturating_duration_since(seen.at) < LASTS);
        let news = found.filter_map(|(network, backends)| {
            let seen = Seen { at: now, text: text(network, &backends) };
            let text = seen.text.clone();
            self.seen.insert(network, seen).is_none().then_some(text)
        });
        news.collect()
    }

    /// What to tell, and of which family.
    pub(in crate::instance) fn told(&self) -> impl Iterator<Item = (u8, String)> {
        self.seen.iter().map(|(network, seen)| (if network.is_ipv4() { 4 } else { 6 }, seen.text.clone()))
    }
}

fn text(network: Network, backends: &BTreeSet<IpAddr>) -> String {
    let mut names: Vec<_> = backends.iter().take(NAMED).map(ToString::to_string).collect();
    if backends.len() > NAMED {
        names.push(format!("{} more", backends.len() - NAMED));
    }
    format!(
        "clients in {network} get no answer: they share the network of backends {}, whose replies to them do not pass here; use \
         mode = \"dsr\", or give each backend a route to these clients through this host (ip route add CLIENT via THIS_HOST)",
        names.join(", ")
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    const NOBODY: [IpAddr; 0] = [];

    fn address(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    #[test]
    fn only_a_counter_that_rises_is_news() {
        let mut beside = ClientsBeside::default();
        let counts = |counts: &[u64]| -> Vec<_> {
            (0_u16..)
                .zip(counts)
                .map(|(n, count)| (BackendIndex(n), address(u8::try_from(n).unwrap()), *count))
                .collect()
        };
        assert_eq!(beside.rising(counts(&[])), NOBODY);
        assert_eq!(beside.rising(counts(&[1, 5])), [address(0), address(1)]);
        assert_eq!(beside.rising(counts(&[1, 6])), [address(1)]);
        assert_eq!(beside.rising(counts(&[0, 6])), NOBODY, "counted anew");
        assert_eq!(ClientsBeside::default().rising(counts(&[7])), NOBODY, "of a supervisor before this one");
    }

    #[test]
    fn a_network_is_told_of_once_and_as_long_as_its_clients_try() {
        let network = Network::parse("198.51.100.0/24").unwrap();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut beside = ClientsBeside::default();
        let found = |last: &[u8]| [(network, last.iter().map(|last| address(*last)).collect())].into_iter();
        let news = beside.note(found(&[11, 12]), begin);
        assert!(news.len() == 1 && news[0].starts_with("clients in 198.51.100.0/24 get no answer"), "{news:?}");
        assert_eq!(beside.note(found(&[11, 12]), at(599)), [""; 0]);
        beside.note(std::iter::empty(), at(1198));
        let told: Vec<_> = beside.told().collect();
        assert!(told.len() == 1 && told[0].1.contains("backends 198.51.100.11, 198.51.100.12, whose"), "{told:?}");
        beside.note(std::iter::empty(), at(1199));
        assert_eq!(beside.told().count(), 0);
    }
}
