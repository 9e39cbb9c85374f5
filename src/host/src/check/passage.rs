//! Whether the kernel passes requests on to backends and replies on to clients, whatever keeps it from that. Asked last: it says
//! that something is wrong, where other checks say what.

use super::departure::named;
use super::{Host, host};
use crate::passage::Passage;
use crate::problem::{Problem, Severity};
use loaded_config::network::Network;
use loaded_config::plan::Plan;
use loaded_ipc::Mode;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// So many backends of a service and family the kernel is asked for, and so many questions in all, of some 4 µs each.
const BACKENDS: usize = 32;
const QUESTIONS: usize = 1000;
/// So many addresses of a network are looked at, from each end, for one that a client may have.
const TRIED: u128 = 64;
/// Two root name servers of each family, A and K: addresses that nobody has a reason to refuse.
const FAR4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 41, 0, 4), Ipv4Addr::new(193, 0, 14, 129)];
const FAR6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30), Ipv6Addr::new(0x2001, 0x7fd, 0, 0, 0, 0, 0, 1)];

/// Two addresses that clients may have, and the interface that leads to both. A host may refuse one address for good reasons, not its
/// neighbour too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Clients<'a> {
    by: &'a str,
    like: [IpAddr; 2],
}

/// The kernel's answers, each asked for once.
struct Answers<'h> {
    passes: &'h dyn Fn(Passage<'_>) -> bool,
    known: BTreeMap<(IpAddr, IpAddr, String), bool>,
}

impl Answers<'_> {
    /// Whether a packet passes, or it would be one question too many.
    fn passes(&mut self, passage: Passage<'_>) -> bool {
        let Passage { from, to, by } = passage;
        let may_ask = self.known.len() < QUESTIONS;
        match self.known.entry((from, to, by.to_owned())) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(unknown) if may_ask => *unknown.insert((self.passes)(passage)),
            Entry::Vacant(_) => true,
        }
    }
}

impl Host<'_> {
    /// What the kernel would drop on its way through this host, of families in which nothing that was `found` explains it.
    pub(super) fn passages(&self, plan: &Plan, found: &[Problem]) -> Vec<Problem> {
        let is_explained = |family| {
            let harms = |problem: &&Problem| problem.severity <= Severity::Impairing;
            found.iter().filter(harms).any(|problem| problem.family.is_none_or(|of| of == family))
        };
        let mut answers = Answers { passes: self.passes, known: BTreeMap::new() };
        let mut problems = Vec::new();
        for family in [4, 6].into_iter().filter(|family| !is_explained(*family)) {
            let is_of = |address: &IpAddr| address.is_ipv4() == (family == 4);
            // Of each service by itself: what belongs to two may be kept apart.
            for service in plan.services.iter().filter(|service| service.mode == Mode::Nat) {
                let vips: Vec<_> = service.vips.iter().copied().filter(is_of).collect();
                let backends = service.backends.iter().map(|backend| backend.address).filter(is_of);
                let backends: Vec<_> = backends.take(BACKENDS).collect();
                for vip in &vips {
                    for clients in self.clients(*vip, &vips, &backends) {
                        problems.extend(self.reply(family, &clients, (*vip, &backends), &mut answers));
                        problems.extend(self.request(family, &clients, &backends, &mut answers));
                    }
                }
            }
        }
        // The first of each direction and family: the others have the same cause as a rule.
        let mut said = BTreeSet::new();
        problems.retain(|(direction, problem)| said.insert((*direction, problem.family)));
        problems.into_iter().map(|(_, problem)| problem).collect()
    }

    fn request(
        &self,
        family: u8,
        clients: &Clients<'_>,
        backends: &[IpAddr],
        answers: &mut Answers<'_>,
    ) -> Option<(Direction, Problem)> {
        let by = clients.by;
        let mut is_refused =
            |to: IpAddr| clients.like.iter().all(|from| !answers.passes(Passage { from: *from, to, by }));
        let refused: Vec<_> = backends.iter().copied().filter(|backend| is_refused(*backend)).collect();
        let (first, from) = (refused.first()?, clients.like[0]);
        let text = format!(
            "this kernel passes no packet on from clients such as {from}, by {by}, to backend {}: a rule, a route or the reverse path \
             filter refuses it; to see it",
            named(&refused)
        );
        Some((Direction::Request, refusal(family, text, (*first, from, by))))
    }

    fn reply(
        &self,
        family: u8,
        clients: &Clients<'_>,
        (from, backends): (IpAddr, &[IpAddr]),
        answers: &mut Answers<'_>,
    ) -> Option<(Direction, Problem)> {
        let behind: BTreeSet<_> = backends.iter().filter_map(|backend| self.networks.towards(*backend)).collect();
        let mut is_refused = |by: &str| clients.like.iter().all(|to| !answers.passes(Passage { from, to: *to, by }));
        let by = behind.into_iter().find(|by| is_refused(by))?;
        let to = clients.like[0];
        let text = format!(
            "this kernel passes no reply on from {from}, by {by}, to clients such as {to}: a rule, a route or the reverse path filter \
             refuses it; to see it"
        );
        Some((Direction::Reply, refusal(family, text, (to, from, by))))
    }

    /// Clients of a VIP: of its own network, from both of its ends, and from far away; but for those that the main table sends another
    /// way. By a second uplink nobody need come.
    fn clients(&self, vip: IpAddr, vips: &[IpAddr], backends: &[IpAddr]) -> Vec<Clients<'_>> {
        let is_local = |address: IpAddr| matches!(address, IpAddr::V4(v4) if self.locals.contains(&v4));
        let is_client = |address: &IpAddr| {
            !self.own.contains(address) && !is_local(*address) && !vips.contains(address) && !backends.contains(address)
        };
        // A route that throws half of a network away may take the VIP along.
        let link = self.networks.interface(vip).or_else(|| self.links.holder(vip));
        let near = link.zip((self.network_around)(vip)).into_iter().flat_map(|(by, network)| {
            let ends = [hosts(network, true), hosts(network, false)].map(|ends| ends.into_iter().filter(is_client));
            ends.into_iter().filter_map(move |mut end| Some((by, [end.next()?, end.next()?])))
        });
        let far = if vip.is_ipv4() { FAR4.map(IpAddr::from) } else { FAR6.map(IpAddr::from) };
        let from_far = self.networks.towards(far[0]).map(|by| (by, far));
        let comes_by = |client: IpAddr, by: &str| match self.networks.towards(client) {
            Some(way) => way == by,
            None => self.networks.refuses(client),
        };
        let is_expected = |(by, like): &(&str, [IpAddr; 2])| like.iter().all(|client| comes_by(*client, by));
        near.chain(from_far).filter(is_expected).map(|(by, like)| Clients { by, like }).collect()
    }
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Request,
    Reply,
}

fn refusal(family: u8, text: String, (to, from, by): (IpAddr, IpAddr, &str)) -> Problem {
    let see = format!("ip route get {to} from {from} iif {by}");
    host(Severity::Impairing, text).of_family(family).mended_by(see)
}

/// Addresses of a network from one of its ends, without the very first and last.
fn hosts(network: Network, from_first: bool) -> Vec<IpAddr> {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let address = |bits: u128| match network.is_ipv4() {
        true => u32::try_from(bits).ok().map(|bits| Ipv4Addr::from_bits(bits).into()),
        false => Some(Ipv6Addr::from_bits(bits).into()),
    };
    let (first, last) = (bits(network.first()), bits(network.last()));
    let count = (last - first).saturating_sub(1).min(TRIED);
    (1..=count).filter_map(|n| address(if from_first { first + n } else { last - n })).collect()
}

#[cfg(all(test, target_endian = "little"))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::connected::ConnectedNetworks;
    use crate::fixture::{ROUTES, plan};
    use crate::links::Links;
    use crate::route::parse_routes;
    use loaded_ipc::Protocol;
    use std::cell::Cell;

    const VIP: &str = "192.0.2.100";
    const BACKENDS: [&str; 2] = ["198.51.100.11", "198.51.100.12"];

    /// What is said where these passages are refused, and after what.
    fn said(refuses: &dyn Fn(Passage<'_>) -> bool, found: &[Problem]) -> Vec<String> {
        said_with(ROUTES, refuses, found)
    }

    fn said_with(routes: &str, refuses: &dyn Fn(Passage<'_>) -> bool, found: &[Problem]) -> Vec<String> {
        let host = Host {
            routes: parse_routes(routes),
            locals: BTreeSet::new(),
            networks: ConnectedNetworks::parse(routes, ""),
            links: Links { holders: [(VIP.parse().unwrap(), "eth0".to_owned())].into(), ..Links::default() },
            own: [VIP.parse().unwrap(), "192.0.2.1".parse().unwrap()].into(),
            sysctl: &|_| None,
            leads_out: &|_| true,
            reaches: &|_| true,
            passes: &|passage| !refuses(passage),
            network_around: &|address| Network::around(address, 24),
            is_bridge_port: &|_| false,
        };
        host.passages(&plan(&[VIP], &BACKENDS, Protocol::Any, &[]), found).iter().map(ToString::to_string).collect()
    }

    fn is(address: IpAddr, text: &str) -> bool {
        address == text.parse::<IpAddr>().unwrap()
    }

    #[test]
    fn what_the_kernel_passes_on_is_no_problem_and_a_single_client_may_be_refused() {
        assert_eq!(said(&|_| false, &[]), [""; 0]);
        assert_eq!(said(&|passage| is(passage.from, "192.0.2.2"), &[]), [""; 0]);
    }

    #[test]
    fn requests_that_are_refused_are_named_with_their_backends() {
        let found = said(&|passage| passage.by == "eth0" && is(passage.to, BACKENDS[1]), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("by eth0, to backend 198.51.100.12: a rule, a route or"), "{found:?}");
        assert!(found[0].ends_with("iif eth0") && found[0].contains(": ip route get 198.51.100.12 from "), "{found:?}");
    }

    #[test]
    fn replies_that_are_refused_are_named_whichever_clients_they_are_for() {
        for (client, other) in
            [("192.0.2.2", "192.0.2.3"), ("192.0.2.254", "192.0.2.253"), ("198.41.0.4", "193.0.14.129")]
        {
            let found = said(&|passage| is(passage.to, client) || is(passage.to, other), &[]);
            let says = format!("from 192.0.2.100, by eth1, to clients such as {client}: a rule, a route or");
            assert!(found.len() == 1 && found[0].contains(&says), "{client}: {found:?}");
        }
    }

    /// The reverse path filter refuses it there, and must.
    #[test]
    fn a_second_uplink_may_be_closed() {
        let second = "eth2\t00000000\t017100CB\t0003\t0\t0\t200\t00000000\t0\t0\t0\n";
        let far = |passage: Passage<'_>| is(passage.from, "198.41.0.4") || is(passage.from, "193.0.14.129");
        let routes = format!("{ROUTES}{second}");
        assert_eq!(said_with(&routes, &|passage| far(passage) && passage.by == "eth2", &[]), [""; 0]);
        assert_eq!(said_with(&routes, &far, &[]).len(), 1);
    }

    #[test]
    fn a_route_may_throw_away_half_of_a_network_and_the_vip_with_it() {
        let half = "*\t000200C0\t00000000\t0200\t0\t0\t0\t80FFFFFF\t0\t0\t0\n";
        let lower = |passage: Passage<'_>| is(passage.to, "192.0.2.2") || is(passage.to, "192.0.2.3");
        let found = said_with(&format!("{ROUTES}{half}"), &lower, &[]);
        assert!(found.len() == 1 && found[0].contains("to clients such as 192.0.2.2:"), "{found:?}");
    }

    #[test]
    fn what_is_known_stays_known_when_no_more_is_asked() {
        let asked = Cell::new(0);
        let refuses_the_first = |_: Passage<'_>| asked.replace(asked.get() + 1) > 0;
        let mut answers = Answers { passes: &refuses_the_first, known: BTreeMap::new() };
        let passage = |n: u32| Passage { from: Ipv4Addr::from_bits(n).into(), to: FAR4[0].into(), by: "eth0" };
        assert!((0..2000).filter(|n| !answers.passes(passage(*n))).eq([0]));
        assert!(!answers.passes(passage(0)) && asked.get() == QUESTIONS);
    }

    #[test]
    fn what_is_explained_is_not_said_again() {
        let explains = |severity| host(severity, "no").of_family(4);
        assert_eq!(said(&|_| true, &[explains(Severity::Impairing)]), [""; 0]);
        assert_eq!(said(&|_| true, &[explains(Severity::Warning)]).len(), 2);
        assert_eq!(said(&|_| true, &[host(Severity::Fatal, "no").of_family(6)]).len(), 2);
    }

    #[test]
    fn a_network_has_hosts_at_both_ends() {
        let of = |text: &str, from_first| hosts(Network::parse(text).unwrap(), from_first);
        assert_eq!(of("192.0.2.0/30", true), ["192.0.2.1", "192.0.2.2"].map(|host| host.parse::<IpAddr>().unwrap()));
        assert_eq!(of("2001:db8::/64", false)[0], "2001:db8::ffff:ffff:ffff:fffe".parse::<IpAddr>().unwrap());
        assert!(of("192.0.2.0/32", true).is_empty() && of("192.0.2.0/31", false).is_empty());
        assert_eq!(of("0.0.0.0/0", true).len(), 64);
    }
}
