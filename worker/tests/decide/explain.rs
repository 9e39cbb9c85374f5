//! What `explain` says about the next packet is what then happens to it, whatever came before; and asking changes nothing.

use super::packets::{ACK, FIN, RST, SCTP, SYN, echo, ends, icmp_of, ip, is_v4, ports, put, tcp, udp};
use super::world::{AFFINITY, BACKENDS, BARE, POLICY, SIDES, Service, World, index_of};
use loaded_ipc::{
    Admin, Affinity, AllDown, Assumed, BackendIndex, ChoiceReason, Chosen, Explained, Idle, KnownFlow, Mode,
    OnBackendDown, Outcome, Passive, Policy, Protocol, Question, Quota, ServiceIndex, Strategy as Choice, Unserved,
};
use loaded_table::FlowState;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::os::unix::fs::FileExt;

const GRE: u8 = 47;

/// An event in the life of a worker.
#[derive(Debug, Clone)]
enum Event {
    /// A question, and then the packet.
    Ask(Question),
    /// Only a question.
    Wonder(Question),
    /// A client's packet, or the answer of the backend that the last packet went to.
    Packet(Question, u8),
    Reply(u8),
    Checked(Index, bool),
    Admin(Index, Admin),
    Later(u32),
    Moment(u64),
    Sweep,
}

fn question(protocol: u8, client: (&str, u16), vip: (&str, u16)) -> Question {
    let (address, target) = (client.0.parse().expect("address"), vip.0.parse().expect("address"));
    Question { protocol, client: address, client_port: client.1, vip: target, vip_port: vip.1 }
}

/// The packet that a question is about.
fn packet(q: &Question, flags: u8) -> Vec<u8> {
    let (client, vip) = (q.client.to_string(), q.vip.to_string());
    let (from, to) = ((&*client, q.client_port), (&*vip, q.vip_port));
    match q.protocol {
        6 => tcp(from, to, flags),
        17 => udp(from, to),
        SCTP => {
            let mut upper = vec![0; 12];
            put(&mut upper, 0, from.1);
            put(&mut upper, 2, to.1);
            ip(from.0, to.0, SCTP, upper)
        }
        icmp if icmp == icmp_of(from.0) => echo(from.0, to.0, true, from.1),
        other => ip(from.0, to.0, other, vec![7; 8]),
    }
}

/// Asks, and sends that packet: what was said must happen to it.
fn ask(world: &mut World, q: &Question) -> (Explained, Vec<u8>) {
    let said = world.decider.explain(q, world.time());
    let flags = if said.assumed == Assumed::Ack { ACK } else { SYN };
    let before = packet(q, flags);
    let outcome = world.send(&mut before.clone());
    assert_eq!(said.outcome, outcome, "{said:?}");
    let goes = matches!(outcome, Outcome::Forwarded | Outcome::ForwardedNew);
    assert_eq!(said.chosen.is_some(), goes, "{said:?}");
    if let Some(chosen) = said.chosen {
        match world.direct {
            Some(direct) => assert_eq!(direct, chosen.backend),
            None => assert_eq!(ends(&world.sent).1, address_of(chosen.backend), "{said:?}"),
        }
        assert_eq!(chosen.reason == ChoiceReason::Flow, outcome == Outcome::Forwarded, "{said:?}");
    }
    (said, before)
}

fn address_of(backend: BackendIndex) -> &'static str {
    let all = (0..3).flat_map(|service| (0..6).map(move |place| (index_of(service, place), BACKENDS[place])));
    all.into_iter().find(|(index, _)| *index == backend).expect("a backend").1
}

fn any_question() -> impl Strategy<Value = Question> {
    let protocol = prop_oneof![8 => Just(6), 4 => Just(17), 1 => Just(SCTP), 1 => Just(0), 1 => Just(GRE)];
    let end = (0..12_u16, 1..4_u16, select(&[80, 53, 81][..]));
    (protocol, select(&SIDES[..]), any::<bool>(), end).prop_map(|(protocol, side, second, (n, port, service))| {
        let vip = if second { side.second_vip } else { side.vip };
        let protocol = if protocol == 0 { icmp_of(side.vip) } else { protocol };
        // A port is ignored for protocols without ports.
        question(protocol, (&side.client(n), port), (vip, service))
    })
}

fn event() -> impl Strategy<Value = Event> {
    let flags = select(&[SYN, SYN, ACK, ACK, FIN | ACK, RST][..]);
    let admin = select(&[Admin::Enabled, Admin::Draining, Admin::Disabled][..]);
    prop_oneof![
        20 => any_question().prop_map(Event::Ask),
        10 => any_question().prop_map(Event::Wonder),
        10 => (any_question(), flags).prop_map(|(question, flags)| Event::Packet(question, flags)),
        10 => select(&[SYN | ACK, ACK, FIN | ACK, RST | ACK][..]).prop_map(Event::Reply),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(backend, up)| Event::Checked(backend, up)),
        2 => (any::<Index>(), admin).prop_map(|(backend, admin)| Event::Admin(backend, admin)),
        2 => prop_oneof![0..40_u32, 0..9000_u32].prop_map(Event::Later),
        3 => (0..300_u64).prop_map(Event::Moment),
        1 => Just(Event::Sweep),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let down = select(&[OnBackendDown::Reset, OnBackendDown::Rehash, OnBackendDown::Drain][..]);
    let all = select(&[AllDown::Reject, AllDown::Drop, AllDown::Last][..]);
    let passive = prop_oneof![Just(None), Just(Some(Passive { fails: 2, timeout: 50, hold: 3, port: None }))];
    let numbers = (select(&[0, 50][..]), select(&[0, 30][..]));
    let idle = select(&[Idle::STANDARD, Idle { tcp: 20, half_open: 5, closing: 8, udp: 15, echo: 10 }][..]);
    (down, all, numbers, idle, passive).prop_map(|(on_backend_down, all_down, numbers, idle, passive)| {
        let (panic_threshold, slow_start) = numbers;
        Policy { on_backend_down, all_down, panic_threshold, slow_start, idle, passive, ..Policy::STANDARD }
    })
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let strategy = prop_oneof![Just(Choice::RoundRobin), Just(Choice::Weighted), Just(Choice::Maglev { seed: 3 })];
    let affinity =
        prop_oneof![Just(None), Just(Some(AFFINITY)), Just(Some(Affinity { prefix4: 24, prefix6: 56, timeout: 60 }))];
    let mode = prop_oneof![3 => Just(Mode::Nat), 1 => Just(Mode::Dsr)];
    let weights = [1..4_u16, 0..3, 0..3, 1..4, 0..3, 0..3];
    let how = (strategy, affinity, mode, weights, policy());
    // No port, one port, and whatever port.
    let one = prop_oneof![Just(None), Just(Some(8080)), select(&[80, 53, 81, 8081][..]).prop_map(Some)];
    let other = prop_oneof![2 => Just([None; 6]), 1 => Just([Some(8080); 6]), 2 => proptest::array::uniform6(one)];
    let who = (vec(0..6_usize, 0..3), vec(0..6_usize, 0..3), any::<bool>(), 0..5_u8, [other.clone(), other]);
    (how, who).prop_map(|((strategy, affinity, mode, weights, policy), (backups, down, drop, shape, others))| {
        let others = if mode == Mode::Nat { others } else { [[None; 6]; 2] };
        let unserved = if drop { Unserved::Drop } else { Unserved::Pass };
        let quota = drop.then_some(Quota { prefix4: 24, prefix6: 48, percent: 1 });
        let vips = vec![0, 1, 2, 3];
        let first = Service { strategy, affinity, mode, weights, policy, backups, down, unserved, quota, vips, ..BARE };
        let [backend_ports, second_ports] = others;
        let tcp = Service { protocol: Protocol::Tcp, ports: vec![53, 80], backend_ports, ..first.clone() };
        let udp = Service { protocol: Protocol::Udp, ports: vec![53], affinity: Some(AFFINITY), ..first.clone() };
        let udp = Service { backend_ports: second_ports, ..udp };
        let rest = Service { policy: POLICY, ..first.clone() };
        match shape {
            0 => vec![first],
            1 => vec![tcp, udp],
            2 => vec![tcp, rest],
            3 => {
                // What meets at one port of a backend comes from both.
                let one = Service { ports: vec![80], ..tcp.clone() };
                let other = Service { ports: vec![53, 81], backend_ports: second_ports, ..tcp };
                vec![one, other]
            }
            _ => vec![Service { vips: vec![0, 1], ..tcp }, Service { vips: vec![2, 3], ..rest }],
        }
    })
}

/// The memory of the tables, and the counters.
fn memory(world: &World) -> [Vec<u8>; 3] {
    [&world.flows, &world.clients, &world.counters].map(|file| {
        let mut bytes = vec![0; usize::try_from(file.metadata().expect("stat").len()).expect("small")];
        file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    })
}

fn both(worlds: &mut [World; 2], act: &dyn Fn(&mut World)) {
    worlds.iter_mut().for_each(act);
}

/// Lets an event happen to a world that is asked questions and to one that is not.
fn happen(worlds: &mut [World; 2], event: &Event, last: &mut Option<Question>) {
    let known: Vec<usize> = (0..6).filter(|&n| worlds[0].services[0].weights[n] > 0).collect();
    let bytes = match event {
        Event::Ask(q) => {
            // A backend that is to be ejected for its silence is ejected before the question.
            both(worlds, &|world| world.wait(20));
            *last = Some(*q);
            let mut bytes = ask(&mut worlds[0], q).1;
            worlds[1].send(&mut bytes);
            return;
        }
        Event::Wonder(q) => {
            let _ = worlds[0].decider.explain(q, worlds[0].time());
            return;
        }
        Event::Packet(q, flags) => {
            *last = Some(*q);
            packet(q, *flags)
        }
        Event::Reply(flags) => {
            let (Some(q), false) = (*last, worlds[0].sent.is_empty()) else { return };
            let (client, backend) = (q.client.to_string(), ends(&worlds[0].sent).1);
            let port = |sent: &[u8]| ports(sent).1;
            match (q.protocol, BACKENDS.contains(&&*backend)) {
                (6, true) => tcp((&backend, port(&worlds[0].sent)), (&client, q.client_port), *flags),
                (17, true) => udp((&backend, port(&worlds[0].sent)), (&client, q.client_port)),
                _ => return,
            }
        }
        Event::Checked(backend, up) => return both(worlds, &|world| world.check(*backend.get(&known), *up)),
        Event::Admin(backend, admin) => return both(worlds, &|world| world.admin(*backend.get(&known), *admin)),
        Event::Later(seconds) => return both(worlds, &|world| world.now += seconds),
        Event::Moment(millis) => return both(worlds, &|world| world.wait(*millis)),
        Event::Sweep => return both(worlds, &World::sweep),
    };
    both(worlds, &|world| {
        world.send(&mut bytes.clone());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_is_what_happens_and_saying_it_changes_nothing(
        services in services(), tiny: bool, events in vec(event(), 1..120),
    ) {
        let room = if tiny { 4 } else { 200 };
        let mut worlds = [(); 2].map(|()| World::sized(&services, room, room));
        let mut last = None;
        for event in &events {
            happen(&mut worlds, event, &mut last);
            prop_assert_eq!(&worlds[0].sent, &worlds[1].sent);
            prop_assert_eq!(worlds[0].direct, worlds[1].direct);
        }
        prop_assert_eq!(worlds[0].decider.held(), worlds[1].decider.held());
        prop_assert!(memory(&worlds[0]) == memory(&worlds[1]), "tables or counters differ");
    }
}

#[test]
fn an_answer_says_why() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let tuple = question(6, (side.client, 4000), (side.vip, 80));
        let (said, _) = ask(&mut world, &tuple);
        assert_eq!((said.assumed, said.outcome, said.flow), (Assumed::Syn, Outcome::ForwardedNew, None));
        assert_eq!(said.service, Some(ServiceIndex(0)));
        let first = said.chosen.expect("a backend");
        assert_eq!(first.reason, ChoiceReason::Strategy { candidates: 3 });

        // Half open: its SYN comes again.
        world.now += 7;
        let (said, _) = ask(&mut world, &tuple);
        let flow = KnownFlow { backend: first.backend, state: FlowState::HalfOpen as u8, idle: 7 };
        assert_eq!((said.assumed, said.outcome, said.flow), (Assumed::Syn, Outcome::Forwarded, Some(flow)));
        assert_eq!(said.chosen, Some(Chosen { reason: ChoiceReason::Flow, ..first }));

        // Open: the next packet is no SYN.
        world.answer(tcp((address_of(first.backend), 80), (side.client, 4000), SYN | ACK));
        world.forward(tcp((side.client, 4000), (side.vip, 80), ACK), Outcome::Forwarded);
        let (said, _) = ask(&mut world, &tuple);
        assert_eq!((said.assumed, said.outcome), (Assumed::Ack, Outcome::Forwarded));
        assert_eq!(said.flow.map(|flow| flow.state), Some(FlowState::Established as u8));

        // Another connection of the client. Its open one refreshed the client's entry when it opened, and since then only now and
        // then.
        world.now += 5;
        let (said, _) = ask(&mut world, &Question { client_port: 4001, ..tuple });
        assert_eq!(said.chosen, Some(Chosen { reason: ChoiceReason::Client { idle: 5 }, ..first }));

        // No backend is left, and the existing flow is reset.
        (0..6).for_each(|backend| world.check(backend, false));
        let (said, _) = ask(&mut world, &Question { client_port: 4002, ..tuple });
        assert_eq!((said.outcome, said.service), (Outcome::DroppedNoBackend, Some(ServiceIndex(0))));
        let (said, _) = ask(&mut world, &tuple);
        assert_eq!((said.assumed, said.outcome), (Assumed::Ack, Outcome::AnsweredReset));
        // Then it is over: the next SYN begins another.
        let (said, _) = ask(&mut world, &tuple);
        assert_eq!((said.assumed, said.outcome), (Assumed::Syn, Outcome::DroppedNoBackend));
        assert_eq!(said.flow.map(|flow| flow.state), Some(FlowState::Reset as u8));
    }
}

#[test]
fn every_refusal_is_foreseen() {
    let with = |all_down| {
        let policy = Policy { all_down, ..POLICY };
        World::new(&[Service { policy, down: (0..6).collect(), protocol: Protocol::Tcp, ..Service::default() }])
    };
    for side in SIDES {
        let tuple = question(6, (side.client, 4000), (side.vip, 80));
        assert_eq!(ask(&mut with(AllDown::Reject), &tuple).0.outcome, Outcome::RefusedReset);
        assert_eq!(ask(&mut with(AllDown::Drop), &tuple).0.outcome, Outcome::DroppedNoBackend);
        let udp = Question { protocol: 17, ..tuple };
        assert_eq!(ask(&mut with(AllDown::Drop), &udp).0.outcome, Outcome::PassedUnserved);
        let policy = Policy { all_down: AllDown::Reject, ..POLICY };
        let mut world = World::new(&[Service { policy, down: (0..6).collect(), ..Service::default() }]);
        assert_eq!(ask(&mut world, &udp).0.outcome, Outcome::RefusedUnreachable);
        // A reset to a multicast address would go to many (RFC 1122 §3.2.2).
        let many = if side.vip.contains(':') { "ff02::1" } else { "224.0.0.1" };
        let many = Question { client: many.parse().expect("address"), ..tuple };
        assert_eq!(ask(&mut with(AllDown::Reject), &many).0.outcome, Outcome::DroppedNoBackend);

        // Two VIPs, one backend: the replies could not be told apart.
        let one = Service { weights: [1, 0, 0, 1, 0, 0], vips: vec![0, 1, 2, 3], ..Service::default() };
        for (protocol, outcome) in
            [(6, Outcome::RefusedClash), (17, Outcome::RefusedClash), (132, Outcome::DroppedClash)]
        {
            let mut world = World::new(std::slice::from_ref(&one));
            let tuple = Question { protocol, ..tuple };
            ask(&mut world, &tuple);
            let second = Question { vip: side.second_vip.parse().expect("address"), ..tuple };
            let (said, _) = ask(&mut world, &second);
            assert_eq!((said.outcome, said.service, said.chosen), (outcome, Some(ServiceIndex(0)), None));
        }

        // A table full of open connections.
        let mut world = World::sized(&[Service::default()], 1, 100);
        let full = (1..200).map(|port| Question { client_port: port, ..tuple }).find_map(|tuple| {
            let (said, _) = ask(&mut world, &tuple);
            let backend = said.chosen.map(|chosen| address_of(chosen.backend));
            let Some(backend) = backend else { return Some(said.outcome) };
            world.answer(super::packets::tcp((backend, 80), (side.client, tuple.client_port), SYN | ACK));
            ask(&mut world, &tuple);
            None
        });
        assert_eq!(full, Some(Outcome::DroppedTableFull));
    }
}

/// A service that listens nowhere takes no new flows, but a flow it has may move to another of its backends.
#[test]
fn a_flow_of_a_service_that_listens_nowhere_may_still_move() {
    for side in SIDES {
        let policy = Policy { on_backend_down: OnBackendDown::Rehash, ..POLICY };
        let mut world = World::new(&[Service { policy, ..Service::default() }]);
        let backend = world.open((side.client, 4000), (side.vip, 80));
        world.services[0].vips = vec![];
        world.respawn();
        let tuple = question(6, (side.client, 4000), (side.vip, 80));
        assert_eq!(ask(&mut world, &tuple).0.outcome, Outcome::Forwarded);
        world.check(BACKENDS.iter().position(|address| *address == backend).expect("a backend"), false);
        let (said, _) = ask(&mut world, &tuple);
        assert_eq!((said.outcome, said.service), (Outcome::ForwardedNew, Some(ServiceIndex(0))));
        assert_ne!(said.chosen.map(|chosen| address_of(chosen.backend)), Some(&*backend));
        let (said, _) = ask(&mut world, &Question { client_port: 4001, ..tuple });
        assert_eq!((said.outcome, said.service), (Outcome::PassedUnserved, None));
    }
}

#[test]
fn a_question_about_no_request_has_an_answer_too() {
    let world = World::new(&[Service::default()]);
    let now = world.time();
    for side in SIDES {
        let tuple = question(6, (side.client, 4000), (side.vip, 80));
        let said = |q: &Question| world.decider.explain(q, now).outcome;
        let elsewhere = Question { vip: side.router.parse().expect("address"), ..tuple };
        assert_eq!(said(&elsewhere), Outcome::PassedForeign);
        let backend = side.backends[0].parse().expect("address");
        assert_eq!(said(&Question { client: backend, ..elsewhere }), Outcome::PassedOwn);
        // Of two families: there is no such packet.
        let other = if is_v4(side.vip) { SIDES[1].vip } else { SIDES[0].vip };
        assert_eq!(said(&Question { vip: other.parse().expect("address"), ..tuple }), Outcome::DroppedMalformed);
        for protocol in 0..=255 {
            let _ = said(&Question { protocol, ..tuple });
        }
    }
}
