//! Backends go down and come up under random traffic: no flow sticks to one that is down, and every count is exact.

use super::packets::{ACK, FIN, RST, SYN, echo, ends, tcp, udp};
use super::world::{AFFINITY, BACKENDS, BARE, SIDES, Service, World, index_of};
use loaded_ipc::{Admin, AllDown, BackendCounter, Idle, OnBackendDown, Outcome, Passive, Policy, Strategy as Choice};
use loaded_table::{FlowTable, Region};
use loaded_worker::setup::flow_timeouts;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Debug, Clone)]
enum Event {
    /// A packet of a client, or of a backend.
    Packet {
        bytes: Vec<u8>,
        tcp: bool,
        resets: bool,
        request: bool,
    },
    Check(usize, bool),
    Admin(usize, Admin),
    Wait(u64),
    Later(u32),
    Sweep,
    /// The next worker takes over, with all backends or one less.
    Next(Option<usize>),
}

fn packet() -> impl Strategy<Value = Event> {
    let flags = select(&[SYN, SYN, SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK][..]);
    (select(&SIDES[..]), prop::option::of(0..3_usize), 1..6_u16, flags, 0..6_u8).prop_map(
        |(side, backend, port, flags, kind)| {
            let (client, service) = ((side.client, port), (backend.map_or(side.vip, |n| side.backends[n]), 80));
            let request = backend.is_none();
            let (from, to) = if request { (client, service) } else { (service, client) };
            let bytes = match kind {
                0..=3 => tcp(from, to, flags),
                4 => udp(from, to),
                _ => echo(from.0, to.0, request, port),
            };
            Event::Packet { bytes, tcp: kind <= 3, resets: kind <= 3 && flags & RST != 0, request }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let admin = select(&[Admin::Enabled, Admin::Enabled, Admin::Draining, Admin::Disabled][..]);
    prop_oneof![
        40 => packet(),
        4 => (0..6_usize, any::<bool>()).prop_map(|(n, up)| Event::Check(n, up)),
        3 => (0..6_usize, admin).prop_map(|(n, admin)| Event::Admin(n, admin)),
        4 => (0..700_u64).prop_map(Event::Wait),
        2 => (0..40_u32).prop_map(Event::Later),
        2 => Just(Event::Sweep),
        1 => prop::option::of(0..6_usize).prop_map(Event::Next),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let down = select(&[OnBackendDown::Reset, OnBackendDown::Rehash, OnBackendDown::Drain][..]);
    let all_down = select(&[AllDown::Reject, AllDown::Drop, AllDown::Last][..]);
    let strategy = select(&[Choice::RoundRobin, Choice::Weighted, Choice::Maglev { seed: 3 }][..]);
    let passive = (1..3_u8, 50..400_u32, 1..3_u32).prop_map(|(fails, timeout, hold)| Passive {
        fails,
        timeout,
        hold,
        port: None,
    });
    let backups = select(vec![vec![], vec![1, 4], vec![0, 2, 3]]);
    (down, all_down, strategy, prop::option::of(passive), any::<bool>(), select(&[0, 0, 50][..]), backups).prop_map(
        |(on_backend_down, all_down, strategy, passive, affinity, panic_threshold, backups)| {
            let policy =
                Policy { on_backend_down, all_down, panic_threshold, slow_start: 2, passive, ..Policy::STANDARD };
            let affinity = affinity.then_some(AFFINITY);
            Service { strategy, affinity, policy, backups, vips: vec![0, 1, 2, 3], ..BARE }
        },
    )
}

/// What the test itself knows of the backends.
struct Told {
    up: [bool; 6],
    admin: [Admin; 6],
    gone: Option<usize>,
    new: [u64; 6],
    packets: [u64; 6],
}

impl Told {
    fn chosen(&self, world: &World, n: usize) -> bool {
        self.gone != Some(n) && world.view(n).chosen
    }

    fn keeps(&self, world: &World, n: usize) -> bool {
        self.chosen(world, n) || self.gone != Some(n) && self.up[n] && self.admin[n] != Admin::Disabled
    }
}

/// Compares the counts of flows with the table.
fn recount(world: &World, told: &Told) {
    let region = Region::map(&world.flows).expect("map");
    let table = FlowTable::open(region, world.specs[0], flow_timeouts(&Idle::STANDARD)).expect("open");
    let mut counts = [0; 6];
    table.for_each(|_, _, flow| {
        let place = (0..6).find(|n| index_of(0, *n).0 == flow.backend).expect("a backend that is there");
        counts[place] += 1;
    });
    assert_eq!(counts.iter().sum::<u64>(), world.decider.held().0 as u64);
    for (n, flows) in counts.into_iter().enumerate() {
        let count = |counter| world.count(counter, index_of(0, n));
        assert_eq!(count(BackendCounter::Flows), flows, "flows of {n}");
        assert_eq!(count(BackendCounter::NewFlows), told.new[n], "new flows of {n}");
        assert_eq!(count(BackendCounter::PacketsTo), told.packets[n], "packets to {n}");
    }
}

fn packet_holds(world: &mut World, told: &mut Told, bytes: &[u8], (tcp, resets, request): (bool, bool, bool)) {
    let keeps = [0, 1, 2, 3, 4, 5].map(|n| told.keeps(world, n));
    let chosen = [0, 1, 2, 3, 4, 5].map(|n| told.chosen(world, n));
    let mut after = bytes.to_vec();
    let outcome = world.send(&mut after);
    let policy = world.services[0].policy;
    let place = |address: String| BACKENDS.iter().position(|b| *b == address).expect("a backend");
    match outcome {
        Outcome::ForwardedNew => {
            let n = place(ends(&after).1);
            assert!(chosen[n], "a new flow to {n}");
            told.new[n] += 1;
            told.packets[n] += 1;
        }
        Outcome::Forwarded => {
            let n = place(ends(&after).1);
            let drained = tcp && policy.on_backend_down == OnBackendDown::Drain && told.admin[n] != Admin::Disabled;
            assert!(keeps[n] || drained || resets, "a packet of a flow that is not kept to {n}");
            told.packets[n] += 1;
        }
        Outcome::Returned => assert!(tcp || keeps[place(ends(bytes).0)]),
        Outcome::AnsweredReset => {
            let by_order = policy.on_backend_down == OnBackendDown::Drain && told.admin.contains(&Admin::Disabled);
            assert!(tcp && !resets && (by_order || policy.on_backend_down == OnBackendDown::Reset));
        }
        Outcome::AnsweredUnreachable => assert!(!tcp && policy.on_backend_down == OnBackendDown::Reset),
        Outcome::AnsweredBackend => assert!(tcp && !resets && !request && !keeps[place(ends(bytes).0)]),
        Outcome::DroppedBackendOut => assert!(!tcp && !request && !keeps[place(ends(bytes).0)]),
        Outcome::RefusedReset | Outcome::RefusedUnreachable => {
            assert!(request && !resets && policy.all_down == AllDown::Reject);
        }
        Outcome::DroppedNoBackend => assert!(request),
        Outcome::DroppedTableFull => {}
        Outcome::PassedOwn => assert!(!request),
        // A backend that this configuration does not have.
        Outcome::PassedForeign => assert_eq!(told.gone, Some(place(ends(bytes).0))),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_sticks_and_all_is_counted(service in service(), tiny: bool, events in vec(event(), 1..120)) {
        let room = if tiny { 4 } else { 100 };
        let mut world = World::sized(&[service], room, room);
        let (up, admin) = ([true; 6], [Admin::Enabled; 6]);
        let mut told = Told { up, admin, gone: None, new: [0; 6], packets: [0; 6] };
        for (step, event) in events.into_iter().enumerate() {
            match event {
                Event::Packet { bytes, tcp, resets, request } => {
                    packet_holds(&mut world, &mut told, &bytes, (tcp, resets, request));
                }
                Event::Check(n, up) if told.gone != Some(n) => {
                    world.check(n, up);
                    told.up[n] = up;
                }
                Event::Admin(n, admin) if told.gone != Some(n) => {
                    world.admin(n, admin);
                    told.admin[n] = admin;
                }
                Event::Check(..) | Event::Admin(..) => {}
                Event::Wait(millis) => world.wait(millis),
                Event::Later(seconds) => world.now += seconds,
                Event::Sweep => world.sweep(),
                Event::Next(gone) => {
                    world.services[0].weights = [1; 6];
                    if let Some(n) = gone {
                        world.services[0].weights[n] = 0;
                    }
                    world.services[0].down = (0..6).filter(|n| !told.up[*n]).collect();
                    world.services[0].admin = told.admin;
                    told.gone = gone;
                    world.respawn();
                }
            }
            if step % 16 == 0 {
                recount(&world, &told);
            }
        }
        recount(&world, &told);
    }
}

/// A worker with another configuration opens the tables of the last one.
#[test]
fn the_next_worker_keeps_entries_it_knows_and_removes_the_others() {
    for side in SIDES {
        for affinity in [Some(AFFINITY), None] {
            let of = |index, port| Service {
                affinity,
                ports: vec![port],
                protocol: loaded_ipc::Protocol::Tcp,
                vips: vec![0, 1, 2, 3],
                index: Some(index),
                ..BARE
            };
            let mut world = World::new(&[of(3, 80), of(9, 81)]);
            let mut open = Vec::new();
            for port in [80, 81] {
                for n in 0..9 {
                    let client = side.client(n);
                    let vip = if n % 3 == 0 { side.second_vip } else { side.vip };
                    open.push((client.clone(), vip, port, world.open((&client, 4001), (vip, port))));
                }
            }
            // Service 3 loses its first backends, service 9 is removed, and a new service has its port.
            world.services = vec![
                Service { weights: [0, 1, 1, 0, 1, 1], ..of(3, 80) },
                Service { vips: vec![], admin: [Admin::Draining; 6], ..of(20, 81) },
                of(40, 81),
            ];
            world.respawn();
            let kept =
                |(_, _, port, backend): &&(String, &str, u16, String)| *port == 80 && backend != side.backends[0];
            assert_eq!(world.decider.held().0, open.iter().filter(kept).count());
            for flow in &open {
                let (client, vip, port, backend) = flow;
                if kept(&flow) {
                    let ack = tcp((client, 4001), (vip, *port), ACK);
                    assert_eq!(&world.forward(ack, Outcome::Forwarded), backend);
                    world.answer(tcp((backend, *port), (client, 4001), ACK));
                } else if *port == 80 {
                    world.unchanged(tcp((backend, *port), (client, 4001), ACK), Outcome::PassedOwn);
                }
            }
            // Only counted entries are there.
            let flows: u64 = (0..6).map(|n| world.count(BackendCounter::Flows, index_of(3, n))).sum();
            assert_eq!(flows, world.decider.held().0 as u64);
            let of_nine: u64 = (0..6).map(|n| world.count(BackendCounter::Flows, index_of(9, n))).sum();
            let views = (0..6).filter(|n| world.count(BackendCounter::View, index_of(9, *n)) != 0).count();
            assert_eq!((of_nine, views), (0, 0));
            // And the worker serves.
            world.open((side.client, 1), (side.vip, 81));
            world.open((side.client, 1), (side.vip, 80));
        }
    }
}

/// A service that listens nowhere takes no new flows, and its flows go on.
#[test]
fn a_service_that_listens_nowhere_keeps_its_flows() {
    for side in SIDES {
        let service = Service { vips: vec![0, 1], ..BARE };
        let mut world = World::new(std::slice::from_ref(&service));
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let backend = world.open(client, vip);
        world.services = vec![Service { vips: vec![], ..service }];
        world.respawn();
        assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
        world.answer(tcp((&backend, 80), client, ACK));
        world.unchanged(tcp((side.client, 4002), vip, SYN), Outcome::PassedUnserved);
        // If its backend goes down, the flow finds another one in its service.
        let n = BACKENDS.iter().position(|b| *b == backend).expect("a backend");
        world.services[0].policy.on_backend_down = OnBackendDown::Rehash;
        world.respawn();
        world.check(n, false);
        assert_ne!(world.forward(tcp(client, vip, ACK), Outcome::ForwardedNew), backend);
    }
}
