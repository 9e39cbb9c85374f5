//! Sweeps networks for nodes that may become backends, and remembers who answered so that none is reported too often.

use crate::clock::{MILLISECOND, SECOND};
use crate::ping::Pings;
use crate::random::Random;
use loaded_ipc::ServiceIndex;
use std::net::IpAddr;

/// Maximum number of addresses remembered.
const MAX_DISCOVERED: usize = 256;

/// A network to sweep for nodes of one service.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(crate) service: ServiceIndex,
    /// Where requests go.
    pub(crate) to: IpAddr,
    /// Our address to send from; unspecified: any.
    pub(crate) from: IpAddr,
    /// The index of the interface to send from; 0: as routed.
    pub(crate) interface: u32,
    /// Only answers from this prefix count.
    pub(crate) network: IpAddr,
    pub(crate) prefix: u8,
    /// Milliseconds from one sweep to the next.
    pub(crate) interval: u32,
}

impl Sweep {
    /// What is wrong with the configured values, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let Self { to, from, network, prefix, interval, .. } = self;
        let v4 = to.is_ipv4();
        if network.is_ipv4() != v4 || *prefix > if v4 { 32 } else { 128 } {
            return Some("the prefix to sweep is not one of its address family");
        }
        if self.directed() && from.is_ipv4() != v4 {
            return Some("a sweep is sent from an address of the other family");
        }
        (!(100..=86_400_000).contains(interval)).then_some("a discovery interval is out of range")
    }

    fn directed(&self) -> bool {
        !self.from.is_unspecified() || self.interface != 0
    }

    fn interval(&self) -> u64 {
        u64::from(self.interval) * MILLISECOND
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (address, network, width) = match (address, self.network) {
            (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
            _ => return false,
        };
        (address ^ network).checked_shr(width - u32::from(self.prefix).min(width)).unwrap_or(0) == 0
    }
}

/// All sweeps, and the nodes that answered.
#[derive(Debug)]
pub(crate) struct Discovery {
    rounds: Vec<Round>,
    seen: Vec<Discovered>,
}

#[derive(Debug)]
struct Round {
    sweep: Sweep,
    due: u64,
    /// The token of the last request; its answers carry it.
    token: Option<u64>,
}

#[derive(Debug)]
struct Discovered {
    service: ServiceIndex,
    address: IpAddr,
    /// When it may be reported again, microseconds.
    until: u64,
    /// Whether the supervisor has still to be told of it.
    owed: bool,
}

impl Discovery {
    pub(crate) fn new(rounds: Vec<Sweep>) -> Self {
        let rounds = rounds.into_iter().map(|sweep| Round { sweep, due: u64::MAX, token: None }).collect();
        Self { rounds, seen: Vec::with_capacity(MAX_DISCOVERED) }
    }

    /// Schedules the first sweeps: within a second, but not all at once.
    pub(crate) fn begin(&mut self, now: u64, random: &mut Random) {
        for round in &mut self.rounds {
            round.due = now + random.below(round.sweep.interval().min(SECOND));
        }
    }

    /// When the next sweep is due, microseconds.
    pub(crate) fn next(&self) -> Option<u64> {
        self.rounds.iter().map(|round| round.due).min()
    }

    /// Sends what is due. What the kernel refuses now goes out again in the next round.
    pub(crate) fn send(&mut self, now: u64, pings: &mut Pings, random: &mut Random) {
        for round in self.rounds.iter_mut().filter(|round| round.due <= now) {
            round.due = now + round.sweep.interval();
            let token = random.next();
            let sent = match (round.sweep.to, round.sweep.from) {
                (IpAddr::V6(to), IpAddr::V6(from)) if round.sweep.directed() => {
                    pings.send_from(from, round.sweep.interface, to, token)
                }
                (to, _) => pings.send(to, token),
            };
            if sent.is_ok() {
                round.token = Some(token);
            }
        }
    }

    /// Handles an echo reply that belongs to no check.
    pub(crate) fn hear(&mut self, address: IpAddr, token: u64, now: u64) {
        let Some(Round { sweep, .. }) = self.rounds.iter().find(|round| round.token == Some(token)) else { return };
        if !sweep.contains(address) || address == sweep.from {
            return;
        }
        let (service, until) = (sweep.service, now + sweep.interval());
        let news = Discovered { service, address, until, owed: true };
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.service == service && seen.address == address) {
            if seen.until <= now {
                *seen = news;
            }
        } else if self.seen.len() < MAX_DISCOVERED {
            self.seen.push(news);
        } else if let Some(seen) = self.seen.iter_mut().find(|seen| seen.until <= now && !seen.owed) {
            *seen = news;
        }
    }

    /// Reports nodes not yet reported, until `tell` returns false: there was no room.
    pub(crate) fn tell<E>(&mut self, mut tell: impl FnMut(ServiceIndex, IpAddr) -> Result<bool, E>) -> Result<(), E> {
        for seen in self.seen.iter_mut().filter(|seen| seen.owed) {
            if !tell(seen.service, seen.address)? {
                break;
            }
            seen.owed = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    const TOKEN: u64 = 5;

    fn sweep(network: &str, prefix: u8) -> Sweep {
        let network: IpAddr = network.parse().expect("address");
        let from = if network.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0u16; 8]) };
        Sweep { service: ServiceIndex(3), to: network, from, interface: 0, network, prefix, interval: 1000 }
    }

    fn sweeping(sweep: Sweep) -> Discovery {
        let mut discovery = Discovery::new(vec![sweep]);
        discovery.rounds[0].token = Some(TOKEN);
        discovery
    }

    fn told(discovery: &mut Discovery) -> Vec<IpAddr> {
        let mut all = Vec::new();
        let done: Result<(), Infallible> = discovery.tell(|_, address| {
            all.push(address);
            Ok(true)
        });
        done.expect("cannot fail");
        all
    }

    fn node(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn prefixes_contain_what_they_should() {
        for (network, prefix, inside, outside) in [
            ("10.1.2.0", 24, "10.1.2.255", "10.1.3.0"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.2"),
            ("2001:db8::", 64, "2001:db8::ffff:0:0:1", "2001:db8:0:1::"),
            ("2001:db8::1", 128, "2001:db8::1", "2001:db8::2"),
            ("10.0.0.0", 8, "10.255.0.1", "::ffff:10.255.0.1"),
        ] {
            assert!(sweep(network, prefix).contains(inside.parse().expect("address")), "{inside}");
            assert!(!sweep(network, prefix).contains(outside.parse().expect("address")), "{outside}");
        }
        assert!(sweep("0.0.0.0", 0).contains(node(1)) && sweep("::", 0).contains("2001:db8::1".parse().expect("v6")));
        assert!(sweep("10.0.0.0", 33).fault().is_some());
    }

    #[test]
    fn an_address_is_reported_once_an_interval() {
        let mut discovery = sweeping(sweep("10.0.0.0", 8));
        for _ in 0..3 {
            discovery.hear(node(1), TOKEN, 0);
        }
        discovery.hear(node(2), TOKEN + 1, 0);
        discovery.hear("192.0.2.1".parse().expect("v4"), TOKEN, 0);
        assert_eq!(told(&mut discovery), [node(1)]);
        discovery.hear(node(1), TOKEN, 999_999);
        assert!(told(&mut discovery).is_empty());
        discovery.hear(node(1), TOKEN, 1_000_000);
        assert_eq!(told(&mut discovery), [node(1)]);
    }

    #[test]
    fn a_flood_of_addresses_fills_what_there_is_and_no_more() {
        let mut discovery = sweeping(sweep("10.0.0.0", 8));
        let room = discovery.seen.capacity();
        for n in 0..100_000 {
            discovery.hear(node(n), TOKEN, 0);
        }
        assert_eq!(told(&mut discovery).len(), MAX_DISCOVERED);
        for n in 0..100_000 {
            discovery.hear(node(500_000 + n), TOKEN, 1_000_000);
        }
        assert_eq!(told(&mut discovery).len(), MAX_DISCOVERED, "the old ones make room after an interval");
        assert_eq!(discovery.seen.capacity(), room);
    }

    #[test]
    fn what_could_not_be_said_is_said_later() {
        let mut discovery = sweeping(sweep("10.0.0.0", 8));
        discovery.hear(node(1), TOKEN, 0);
        let refused: Result<(), Infallible> = discovery.tell(|_, _| Ok(false));
        refused.expect("cannot fail");
        assert_eq!(told(&mut discovery), [node(1)]);
        assert!(told(&mut discovery).is_empty());
    }
}
