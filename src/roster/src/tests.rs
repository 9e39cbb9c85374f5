use super::*;
use loaded_config::network::Network;
use loaded_config::plan::{Backend, Discover, Place};
use loaded_ipc::{Affinity, Check, CheckKind, FromProber, Mode, Policy, PortRange, Protocol, Strategy as Choice};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn named(n: u8) -> Destination {
    Destination { address: address(n), port: None }
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, n])
}

fn check() -> Check {
    let kind = CheckKind::Tcp { port: 80 };
    Check { kind, interval: 1000, interval_down: 1000, timeout: 500, jitter: 0, rise: 2, fall: 3 }
}

fn service(name: &str, vip: u8, port: u16, backends: &[u8]) -> Service {
    Service {
        name: name.to_owned(),
        vips: vec![IpAddr::from([192, 0, 2, vip])],
        protocol: Protocol::Tcp,
        ports: vec![PortRange { low: port, high: port }],
        port: None,
        checks_own_ports: false,
        mode: Mode::Nat,
        strategy: Choice::RoundRobin,
        affinity: None,
        policy: Policy::STANDARD,
        check: Some(check()),
        discover: None,
        backends: backends
            .iter()
            .map(|n| Backend { address: address(*n), port: None, weight: 1, backup: false })
            .collect(),
    }
}

fn plan(services: Vec<Service>) -> Plan {
    Plan { drain: 60, services, ..Plan::empty() }
}

fn first(plan: &Plan, now: Instant) -> Roster {
    Roster::empty().next(plan, &[], 0, now).unwrap()
}

fn changed(backend: u16, up: bool) -> FromProber {
    let cause = if up { Cause::Passed } else { Cause::Refused };
    FromProber::Changed { backend: BackendIndex(backend), up, cause, latency: 1 }
}

/// What is served, without numbers and health.
fn served(roster: &Roster) -> BTreeSet<String> {
    let staying = roster.services().filter(|(_, entry)| entry.leaves.is_none());
    staying
        .map(|(index, entry)| {
            let vips: Vec<_> = entry.listens.iter().map(|vip| roster.vips().find(|(n, _)| n == vip)).collect();
            let mut vips: Vec<_> = vips.into_iter().map(|vip| vip.unwrap().1).collect();
            vips.sort_unstable();
            let of_service = roster.backends().filter(|(_, b)| b.service == index && b.leaves.is_none());
            let backends: BTreeSet<_> = of_service.map(|(_, b)| (b.address, b.weight, b.backup)).collect();
            format!(
                "{} {vips:?} {:?} {:?} {backends:?}",
                entry.service.name, entry.service.ports, entry.service.strategy
            )
        })
        .collect()
}

/// What balancers compare. The literal value: a change here means that a new version seems to differ from the old ones beside it.
#[test]
fn the_choice_is_the_same_where_the_same_is_chosen() {
    let now = Instant::now();
    let of = |change: &dyn Fn(&mut Service)| {
        let mut service = Service { strategy: Choice::Maglev { seed: 7 }, ..service("web", 1, 80, &[1, 2, 3]) };
        change(&mut service);
        let roster = first(&plan(vec![Service { name: "first".to_owned(), ..service.clone() }, service]), now);
        roster.choice(ServiceIndex(1))
    };
    assert_eq!(of(&|_| ()), Some(3_890_655_193));
    let alike: [&dyn Fn(&mut Service); 3] =
        [&|service| service.backends.reverse(), &|service| service.name = "another".to_owned(), &|service| {
            service.check = None;
        }];
    for change in alike {
        assert_eq!(of(change), of(&|_| ()));
    }
    let other: [&dyn Fn(&mut Service); 10] = [
        &|service| service.strategy = Choice::Maglev { seed: 8 },
        &|service| service.affinity = Some(Affinity { prefix4: 32, prefix6: 64, timeout: 60 }),
        &|service| service.policy.panic_threshold = 50,
        &|service| service.policy.slow_start = 30,
        &|service| service.backends.truncate(2),
        &|service| service.backends[1].weight = 2,
        &|service| service.backends[1].backup = true,
        &|service| service.backends[1].port = Some(8080),
        &|service| service.backends[1].address = address(4),
        &|service| service.backends.push(Backend { address: address(9), port: None, weight: 0, backup: false }),
    ];
    let mut all: BTreeSet<_> = other.iter().map(|change| of(*change)).collect();
    all.insert(of(&|_| ()));
    assert_eq!(all.len(), 11, "{all:?}");
    assert_eq!(of(&|service| service.strategy = Choice::RoundRobin), None);
}

#[test]
fn what_stays_keeps_number_and_health() {
    let now = Instant::now();
    let mut roster = first(&plan(vec![service("a", 1, 80, &[1, 2]), service("b", 2, 80, &[1])]), now);
    let number = |roster: &Roster, service: u16, n: u8| {
        let is = |b: &&(BackendIndex, &BackendEntry)| b.1.service.0 == service && b.1.address == address(n);
        roster.backends().collect::<Vec<_>>().iter().find(is).map(|b| b.0.0)
    };
    assert_ne!(number(&roster, 0, 1), number(&roster, 1, 1), "the same address in two services");
    let two = number(&roster, 0, 2).unwrap();
    assert_eq!(roster.judge(&changed(two, false), now), Ok(Some(BackendIndex(two))));
    let next = roster.next(&plan(vec![service("b", 2, 81, &[1]), service("a", 1, 80, &[3, 2])]), &[], 1, now).unwrap();
    assert_eq!(number(&next, 0, 2), Some(two));
    assert!(!next.backend(BackendIndex(two)).unwrap().health.up);
    assert!(next.backend(BackendIndex(two)).unwrap().health.proven);
    let three = next.backend(BackendIndex(number(&next, 0, 3).unwrap())).unwrap();
    assert!(!three.health.up && !three.health.proven, "a new backend of a known service waits for its first check");
    assert!(next.backend(BackendIndex(number(&next, 0, 1).unwrap())).unwrap().leaves.is_some());
}

#[test]
fn what_leaves_drains_is_disabled_and_goes() {
    let now = Instant::now();
    let roster = first(&plan(vec![service("a", 1, 80, &[1, 2])]), now);
    let without = plan(vec![service("a", 1, 80, &[2])]);
    let roster = roster.next(&without, &[], 1, now).unwrap();
    let at = |seconds| now + Duration::from_secs(seconds);
    let admin = |roster: &Roster, seconds| roster.backend(BackendIndex(0)).map(|b| b.admin(at(seconds)));
    assert_eq!(admin(&roster, 59), Some(Admin::Draining));
    assert_eq!(admin(&roster, 60), Some(Admin::Disabled));
    assert!(!roster.is_overdue(at(79)) && roster.is_overdue(at(80)));
    let gone = roster.next(&without, &[], 2, at(80)).unwrap();
    assert_eq!(admin(&gone, 80), None);
    // It comes back before its time: the same number, and it never left.
    let back = roster.next(&plan(vec![service("a", 1, 80, &[1, 2])]), &[], 2, at(30)).unwrap();
    assert_eq!(admin(&back, 100), Some(Admin::Enabled));
}

#[test]
fn a_backend_without_flows_need_not_wait() {
    let now = Instant::now();
    let roster = first(&plan(vec![service("a", 1, 80, &[1, 2])]), now);
    let mut roster = roster.next(&plan(vec![service("a", 1, 80, &[2])]), &[], 1, now).unwrap();
    roster.hasten(now, |_| 1);
    assert_eq!(roster.backend(BackendIndex(0)).unwrap().admin(now + EMPTY), Admin::Draining);
    roster.hasten(now, |_| 0);
    assert_eq!(roster.backend(BackendIndex(0)).unwrap().admin(now + EMPTY), Admin::Disabled);
    assert_eq!(roster.backend(BackendIndex(1)).unwrap().leaves, None);
}

#[test]
fn rules_reach_what_leaves() {
    let now = Instant::now();
    let old = plan(vec![service("a", 1, 80, &[1]), service("b", 2, 80, &[2])]);
    let new = plan(vec![service("a", 1, 81, &[1])]);
    let roster = first(&old, now).next(&new, &[], 1, now).unwrap();
    let all: BTreeSet<_> = roster
        .reach(&new)
        .served
        .into_iter()
        .flat_map(|s| {
            let ports: Vec<_> = s.ports.iter().map(|range| range.low).collect();
            s.vips.into_iter().flat_map(move |vip| ports.clone().into_iter().map(move |port| (vip, port)))
        })
        .collect();
    let vip = |n| IpAddr::from([192, 0, 2, n]);
    assert_eq!(all, BTreeSet::from([(vip(1), 80), (vip(1), 81), (vip(2), 80)]));
    let later = roster.next(&new, &[], 2, now + Duration::from_secs(200)).unwrap();
    assert_eq!(later.reach(&new).served.len(), 1);
    assert_eq!(later.vips().count(), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let now = Instant::now();
    let mut unchecked = service("b", 2, 80, &[9]);
    unchecked.check = None;
    let mut roster = first(&plan(vec![service("a", 1, 80, &[1]), unchecked]), now);
    let of = |roster: &Roster, n| roster.backends().find(|(_, b)| b.address == address(n)).unwrap().0.0;
    let (one, nine) = (of(&roster, 1), of(&roster, 9));
    assert_eq!(roster.judge(&changed(one, true), now), Ok(None), "the first result confirms what was believed");
    let late = FromProber::Measured { backend: BackendIndex(one), cause: Cause::Passed, latency: 1_000_001 };
    let lie = FromProber::Changed { backend: BackendIndex(one), up: false, cause: Cause::Passed, latency: 0 };
    for wrong in [
        changed(one, true),
        changed(77, false),
        changed(nine, false),
        late,
        lie,
        FromProber::Alive { late: 0, delay: 0 },
    ] {
        assert!(roster.judge(&wrong, now).is_err(), "{wrong:?}");
    }
    assert_eq!(roster.judge(&changed(one, false), now), Ok(Some(BackendIndex(one))));
    assert_eq!(roster.backend(BackendIndex(one)).unwrap().age(now), u32::MAX);
    assert_eq!(roster.judge(&changed(one, true), now), Ok(Some(BackendIndex(one))));
    assert_eq!(roster.backend(BackendIndex(one)).unwrap().age(now + Duration::from_secs(3)), 3);
}

#[test]
fn only_strangers_of_the_network_may_join_and_only_so_many() {
    let now = Instant::now();
    let network = Network::parse("198.51.100.0/24").unwrap();
    let places = vec![Place { network, to: network.last(), interface: None }];
    let mut looking = service("a", 1, 80, &[1]);
    looking.vips.push(address(100));
    looking.discover = Some(Discover { places, limit: 2, interval: 1000 });
    let plan = plan(vec![looking, service("b", 2, 80, &[2])]);
    let mut roster = first(&plan, now);
    let may = |roster: &Roster, n| roster.may_join(ServiceIndex(0), address(n));
    assert!(may(&roster, 7) && may(&roster, 2));
    for n in [0, 1, 100, 255] {
        assert!(!may(&roster, n), "{n}");
    }
    assert!(!roster.may_join(ServiceIndex(0), "203.0.113.7".parse().unwrap()));
    assert!(!roster.may_join(ServiceIndex(1), address(7)), "a service without discovery");
    roster = roster.next(&plan, &[(ServiceIndex(0), address(7))], 1, now).unwrap();
    assert!(!may(&roster, 7) && may(&roster, 8));
    // However many have answered at the same time.
    roster = roster.next(&plan, &[8, 9, 10].map(|n| (ServiceIndex(0), address(n))), 2, now).unwrap();
    assert!(!may(&roster, 9), "two are enough");
    assert_eq!(roster.backends().filter(|(_, b)| b.discovered).count(), 2);
    roster = roster.next(&plan, &[], 3, now).unwrap();
    assert_eq!(roster.backends().filter(|(_, b)| b.discovered && b.leaves.is_none()).count(), 2, "a reload keeps them");
    // One passes its check: what it is then, it stays when it fails, and through a reload and an upgrade.
    assert_eq!(roster.backends().filter(|(_, b)| b.discovered && b.confirmed).count(), 0);
    let seven = roster.backends().find(|(_, b)| b.address == address(7)).unwrap().0;
    let mut before = roster.clone();
    assert_eq!(roster.judge(&changed(seven.0, true), now), Ok(Some(seven)));
    assert_eq!(roster.judge(&changed(seven.0, false), now), Ok(Some(seven)));
    before.inherit(&roster);
    for roster in [&before, &roster.next(&plan, &[], 4, now).unwrap()] {
        assert!(roster.backends().filter(|(_, b)| b.discovered && b.confirmed).map(|(index, _)| index).eq([seven]));
    }
    assert!(roster.forget_lost(now + FORGOTTEN * 2), "they were never up");
}

/// An address that leaves in one role and comes in another has the new one, at once.
#[test]
fn an_address_has_one_role() {
    let now = Instant::now();
    let old = plan(vec![service("a", 1, 80, &[1, 2]), service("b", 2, 80, &[3])]);
    let roster = first(&old, now);
    let mut both = service("a", 1, 80, &[2]);
    both.vips = vec![address(1)];
    both.backends.push(Backend { address: IpAddr::from([192, 0, 2, 2]), port: None, weight: 1, backup: false });
    let new = plan(vec![both]);
    let next = roster.next(&new, &[], 1, now).unwrap();
    let vips: BTreeSet<_> = next.vips().map(|(_, vip)| vip).collect();
    assert!(next.backends().all(|(_, backend)| !vips.contains(&backend.address)), "{vips:?}");
    assert!(vips.contains(&address(1)) && !vips.contains(&IpAddr::from([192, 0, 2, 2])));
    for served in next.reach(&new).served {
        assert!(served.vips.iter().all(|vip| vips.contains(vip)));
    }
}

/// A backend that was given up is still a target of the running prober for a moment.
#[test]
fn a_word_about_one_that_was_given_up_is_no_crime() {
    let now = Instant::now();
    let network = Network::parse("198.51.100.0/24").unwrap();
    let mut looking = service("a", 1, 80, &[1]);
    let places = vec![Place { network, to: network.last(), interface: None }];
    looking.discover = Some(Discover { places, limit: 2, interval: 1000 });
    let plan = plan(vec![looking]);
    let mut roster = first(&plan, now).next(&plan, &[(ServiceIndex(0), address(7))], 1, now).unwrap();
    assert!(roster.forget_lost(now + FORGOTTEN * 2));
    let seven = roster.backends().find(|(_, b)| b.address == address(7)).unwrap().0;
    assert_eq!(roster.judge(&changed(seven.0, true), now), Ok(None));
}

#[test]
fn the_operators_wish_wins_and_ends() {
    let now = Instant::now();
    let mut roster = first(&plan(vec![service("a", 1, 80, &[1]), service("b", 2, 80, &[1])]), now);
    let until = now + Duration::from_secs(10);
    assert_eq!(roster.wish(named(1), None, Admin::Draining, Some(until)).len(), 2);
    let admin = |roster: &Roster, n, at| roster.backend(BackendIndex(n)).unwrap().admin(at);
    assert_eq!(admin(&roster, 0, now), Admin::Draining);
    assert_eq!(admin(&roster, 0, until), Admin::Disabled);
    assert_eq!(roster.wish(named(1), Some("b"), Admin::Enabled, None), [BackendIndex(1)]);
    assert_eq!(admin(&roster, 1, until), Admin::Enabled);
    assert_eq!(roster.wish(named(9), None, Admin::Disabled, None), []);
    let next = roster.next(&plan(vec![service("a", 1, 80, &[1])]), &[], 1, now).unwrap();
    assert_eq!(admin(&next, 0, now), Admin::Draining, "a reload keeps it");
}

/// What rules bring, in no order.
fn reached(roster: &Roster, plan: &Plan) -> BTreeSet<String> {
    let one = |served: Served| {
        let backends: BTreeSet<_> = served.backends.into_iter().collect();
        format!("{:?} {:?} {backends:?}", served.vips, served.ports)
    };
    roster.reach(plan).served.into_iter().map(one).collect()
}

/// A backend whose port changes is another one: the old leaves, with its number, and the rules still know its replies.
#[test]
fn a_backend_whose_port_changes_leaves_and_another_one_comes() {
    let now = Instant::now();
    let at = |port| {
        let mut plan = plan(vec![service("a", 100, 80, &[1, 2])]);
        plan.services[0].backends[0].port = port;
        plan
    };
    let before = first(&at(Some(8080)), now);
    let after = before.next(&at(Some(8081)), &[], before.generation(), now).unwrap();
    let of = |roster: &Roster| {
        let all = roster.backends().map(|(index, b)| (index.0, b.destination().to_string(), b.leaves.is_some()));
        all.collect::<Vec<_>>()
    };
    let name = |port| Destination { address: address(1), port: Some(port) }.to_string();
    assert_eq!(of(&after), [(0, name(8080), true), (1, address(2).to_string(), false), (2, name(8081), false)]);
    let reach = after.reach(&at(Some(8081)));
    let served: Vec<_> = reach.served[0].backends.iter().map(ToString::to_string).collect();
    assert_eq!(served, [name(8080), address(2).to_string(), name(8081)]);
    // What comes back before it has gone never left.
    let back = after.next(&at(Some(8080)), &[], after.generation(), now).unwrap();
    assert_eq!(of(&back)[0], (0, name(8080), false));

    let mut both = before.clone();
    let wish = |roster: &mut Roster, port| {
        roster.wish(Destination { address: address(1), port }, None, Admin::Draining, None).len()
    };
    assert_eq!([None, Some(8080), Some(80)].map(|port| wish(&mut both, port)), [1, 1, 0]);
}

fn any_plan() -> impl Strategy<Value = Plan> {
    let one = |name: &'static str, port: u16| {
        let backends = prop::collection::btree_set(1u8..8, 1..5);
        (any::<bool>(), 1u8..4, 0..3u16, backends, 1u16..4, any::<bool>()).prop_map(
            move |(there, vip, shift, backends, weight, maglev)| {
                let mut service = service(name, vip, port + shift, &backends.into_iter().collect::<Vec<_>>());
                service.backends.iter_mut().for_each(|backend| backend.weight = weight);
                service.strategy = if maglev { Choice::Maglev { seed: 1 } } else { Choice::RoundRobin };
                there.then_some(service)
            },
        )
    };
    (one("a", 80), one("b", 90), one("c", 100)).prop_map(|(a, b, c)| plan([a, b, c].into_iter().flatten().collect()))
}

proptest! {
    /// Reloads one after the other end where a start with the last configuration begins; no number means two things.
    #[test]
    fn many_reloads_are_one_start(steps in prop::collection::vec((any_plan(), 0u64..90, any::<bool>()), 1..40)) {
        let mut now = Instant::now();
        let mut roster = Roster::empty();
        let (mut settled, mut meanings) = (0, BTreeMap::new());
        for (plan, wait, settles) in &steps {
            now += Duration::from_secs(*wait);
            let Ok(next) = roster.next(plan, &[], settled, now) else { continue };
            if *settles {
                settled = next.generation();
                meanings.clear();
            }
            for (index, backend) in next.backends() {
                let name = next.service(backend.service).unwrap().service.name.clone();
                let meaning = meanings.entry(index).or_insert((name.clone(), backend.address));
                prop_assert_eq!(&*meaning, &(name, backend.address));
            }
            prop_assert_eq!(served(&next), served(&first(plan, now)));
            roster = next;
        }
        // All that leaves is gone in the end.
        if let Some((plan, ..)) = steps.last() {
            for _ in 0..2 {
                now += Duration::from_secs(200);
                roster = roster.next(plan, &[], roster.generation(), now).unwrap();
            }
            prop_assert_eq!(roster.backends().count(), first(plan, now).backends().count());
            prop_assert_eq!(roster.services().count(), plan.services.len());
            prop_assert_eq!(reached(&roster, plan), reached(&first(plan, now), plan));
        }
    }
}
