//! The configuration as it comes over the link: messages out of step are refused, and the others give the setup they describe.

use loaded_ipc::{
    Admin, Affinity, BackendIndex, Mode, OnFailure, Passive, Policy, PortRange, Protocol, Quota, ServiceIndex,
    Strategy as Choice, ToWorker, Unserved,
};
use loaded_worker::setup::{Assembly, OutOfStep, Setup};
use loaded_worker::wire::{Family, from_ip};
use proptest::prelude::*;
use proptest::sample::select;

const POLICY: Policy = Policy::STANDARD;
const PASSIVE: Passive = Passive { fails: 3, timeout: 500, hold: 10, port: None };
const AFFINITY: Affinity = Affinity { prefix4: 24, prefix6: 56, timeout: 60 };

const TCP: u8 = 6;
const UDP: u8 = 17;

fn begin() -> ToWorker {
    ToWorker::Begin { generation: 7, unserved: Unserved::Pass, malformed: OnFailure::Drop }
}

fn vip(index: u16, text: &str) -> ToWorker {
    ToWorker::Vip { index, address: text.parse().expect("address") }
}

fn backend(index: u16, text: &str, weight: u16) -> ToWorker {
    let (index, address) = (BackendIndex(index), text.parse().expect("address"));
    ToWorker::Backend {
        index,
        address,
        port: None,
        weight,
        backup: false,
        admin: Admin::Enabled,
        up: true,
        age: u32::MAX,
        confirmed: true,
        link: None,
    }
}

/// The same, in a network of this length.
fn beside(index: u16, text: &str, length: u8) -> ToWorker {
    match backend(index, text, 1) {
        ToWorker::Backend { index, address, port, weight, backup, admin, up, age, confirmed, .. } => {
            let link = Some(length);
            ToWorker::Backend { index, address, port, weight, backup, admin, up, age, confirmed, link }
        }
        other => other,
    }
}

fn service(index: u16, protocol: Protocol, affinity: Option<Affinity>) -> ToWorker {
    with_policy(index, protocol, affinity, POLICY)
}

fn with_policy(index: u16, protocol: Protocol, affinity: Option<Affinity>, policy: Policy) -> ToWorker {
    let (index, strategy) = (ServiceIndex(index), Choice::RoundRobin);
    ToWorker::Service { index, protocol, mode: Mode::Nat, strategy, affinity, policy }
}

fn listen(vip: u16) -> ToWorker {
    ToWorker::Listen { vip }
}

fn port(low: u16, high: u16) -> ToWorker {
    ToWorker::Port(PortRange { low, high })
}

/// Takes messages up to the end of a transaction, or to the first that is refused.
fn take(messages: &[ToWorker]) -> Result<Option<Setup>, OutOfStep> {
    Assembly::whole(messages.iter().cloned(), 0)
}

/// Two VIPs, two backends of each family, web on one VIP and everything on the other. The indices have gaps.
fn whole() -> Vec<ToWorker> {
    vec![
        begin(),
        vip(3, "192.0.2.1"),
        vip(9, "2001:db8::1"),
        service(5, Protocol::Tcp, Some(AFFINITY)),
        listen(3),
        port(80, 89),
        port(443, 443),
        backend(10, "10.0.0.1", 1),
        backend(8191, "10.0.0.2", 256),
        service(200, Protocol::Any, None),
        listen(9),
        backend(11, "2001:db8::a", 1),
        backend(7, "10.0.0.1", 1),
        service(7, Protocol::Udp, None),
        backend(4, "10.0.0.9", 1),
        ToWorker::Commit,
    ]
}

#[test]
fn a_setup_is_what_the_messages_say() {
    let mut setup = take(&whole()).expect("in step").expect("committed");
    assert_eq!(setup.generation(), 7);
    let of = |text: &str| from_ip(text.parse().expect("address"));
    let vips = ["192.0.2.1", "2001:db8::1", "10.0.0.1", "::"].map(|a| setup.vip(&of(a)));
    assert_eq!(vips, [Some(3), Some(9), None, None]);
    let behind = ["10.0.0.1", "2001:db8::a", "10.0.0.2", "10.0.0.9", "192.0.2.1"].map(|a| setup.is_backend(&of(a)));
    assert_eq!(behind, [true, true, true, true, false]);
    assert_eq!(setup.vip_address(9), Some(&of("2001:db8::1")));
    let addresses = [10, 7, 8191].map(|n| setup.backend_address(n).copied());
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|a| Some(of(a))), "one address in two services");
    for gap in [0, 1, 8, 9, 12, 8190, 8192, 65535] {
        assert!(setup.backend(gap).is_none());
        assert!(gap == 9 || setup.vip_address(gap).is_none());
        assert!(setup.service(gap).is_none());
    }
    let served = [79, 80, 85, 89, 90, 442, 443, 444].map(|port| setup.service_at(3, TCP, port).is_some());
    assert_eq!(served, [false, true, true, true, false, false, true, false]);
    assert_eq!((setup.service_at(3, UDP, 80), setup.service_for_all(3)), (None, None));
    assert_eq!((setup.service_at(9, UDP, 80), setup.service_at(9, TCP, 0)), (Some(200), Some(200)));
    assert_eq!((setup.service_for_all(9), setup.service_for_all(0)), (Some(200), None));
    assert_eq!(setup.service(5).and_then(|s| s.affinity), Some(AFFINITY));
    assert!(setup.service(7).is_some(), "it listens nowhere and is there");
    let mut choose = |service, family| setup.pool(service, family).and_then(|p| p.balancer.choose(&[0; 16]));
    assert_eq!(choose(5, Family::V4), Some(BackendIndex(8191)), "256 to 1");
    assert_eq!((choose(5, Family::V6), choose(0, Family::V4)), (None, None));
    assert_eq!((choose(200, Family::V6), choose(200, Family::V4)), (Some(BackendIndex(11)), Some(BackendIndex(7))));
    // A service, its own backend and a client of the same family belong together.
    let [v4, v6] = [of("203.0.113.1"), of("2001:db8::99")];
    assert!(setup.belongs(5, 10, &v4) && setup.belongs(200, 7, &v4) && setup.belongs(200, 11, &v6));
    assert!(!setup.belongs(5, 7, &v4) && !setup.belongs(5, 10, &v6) && !setup.belongs(200, 8, &v4));
}

#[test]
fn a_service_without_ports_takes_all_of_its_protocol() {
    let all = [begin(), vip(0, "192.0.2.1"), service(0, Protocol::Udp, None), listen(0), ToWorker::Commit];
    let setup = take(&all).expect("in step").expect("committed");
    assert_eq!([0, 53, 65535].map(|port| setup.service_at(0, UDP, port)), [Some(0); 3]);
    assert_eq!(setup.service_at(0, TCP, 53), None);
}

/// `at` is the message of the whole transaction that this one replaces.
#[test]
fn a_message_out_of_step_is_refused() {
    let hello = ToWorker::Hello { version: 1, worker: 0, queue: 0 };
    let wrong = |prefix4, prefix6, timeout| service(0, Protocol::Tcp, Some(Affinity { prefix4, prefix6, timeout }));
    let quota = |prefix4, prefix6, percent| ToWorker::Quota(Quota { prefix4, prefix6, percent });
    let policy = |policy| with_policy(0, Protocol::Tcp, None, policy);
    let passive = |passive| policy(Policy { passive: Some(passive), ..POLICY });
    let cases = [
        (0, vip(0, "192.0.2.1")),
        (0, backend(0, "10.0.0.1", 1)),
        (0, service(0, Protocol::Tcp, None)),
        (0, ToWorker::Commit),
        (0, quota(24, 48, 2)),
        (1, quota(33, 48, 2)),
        (1, quota(24, 0, 2)),
        (1, quota(24, 48, 0)),
        (1, quota(24, 48, 101)),
        (0, hello.clone()),
        (1, begin()),
        (5, hello),
        (2, vip(3, "192.0.2.9")),
        (3, backend(0, "10.0.0.1", 1)),
        (8, backend(10, "10.0.0.9", 1)),
        (8, backend(8192, "10.0.0.9", 1)),
        (8, backend(65535, "10.0.0.9", 1)),
        (8, backend(0, "10.0.0.9", 0)),
        (8, backend(0, "10.0.0.9", 257)),
        (8, beside(0, "10.0.0.9", 0)),
        (8, beside(0, "10.0.0.9", 33)),
        (8, beside(0, "2001:db8::a", 129)),
        (9, service(5, Protocol::Tcp, None)),
        (3, wrong(0, 64, 60)),
        (3, wrong(33, 64, 60)),
        (3, wrong(32, 0, 60)),
        (3, wrong(32, 129, 60)),
        (3, wrong(32, 128, 0)),
        (3, wrong(32, 128, 31_536_001)),
        (3, policy(Policy { panic_threshold: 101, ..POLICY })),
        (3, policy(Policy { slow_start: 3601, ..POLICY })),
        (3, passive(Passive { fails: 0, ..PASSIVE })),
        (3, passive(Passive { timeout: 49, ..PASSIVE })),
        (3, passive(Passive { timeout: 60_001, ..PASSIVE })),
        (3, passive(Passive { hold: 0, ..PASSIVE })),
        (3, passive(Passive { hold: 3601, ..PASSIVE })),
        (3, listen(3)),
        (3, port(80, 80)),
        (4, listen(2)),
        (5, port(81, 80)),
        (10, port(80, 80)),
        (6, ToWorker::Go),
        (6, ToWorker::Stop),
        (6, ToWorker::Admin { backend: BackendIndex(0), admin: Admin::Enabled }),
    ];
    for (at, message) in cases {
        let mut messages = whole();
        messages.truncate(at);
        assert!(take(&messages).is_ok(), "up to {at}");
        messages.push(message.clone());
        assert!(take(&messages).is_err(), "{message:?} at {at}");
    }
    // Values at their limits are accepted.
    let widest = Passive { fails: 255, timeout: 60_000, hold: 3600, port: Some(65535) };
    for passive in [widest, Passive { fails: 1, timeout: 50, hold: 1, port: None }] {
        let limits = Policy { panic_threshold: 100, slow_start: 3600, passive: Some(passive), ..POLICY };
        assert!(take(&[begin(), policy(limits), ToWorker::Commit]).is_ok());
    }
}

/// Contradictions that only `Commit` shows.
#[test]
fn a_transaction_that_contradicts_itself_is_refused() {
    let extra: [&[(usize, ToWorker)]; 8] = [
        // An address twice in one service.
        &[(9, backend(1, "10.0.0.2", 1))],
        // Ports that overlap: in one service, by listening twice, with another service, with all ports.
        &[(6, port(89, 90))],
        &[(5, listen(3))],
        &[(15, service(8, Protocol::Tcp, None)), (16, listen(3)), (17, port(1, 443))],
        &[(15, service(8, Protocol::Tcp, None)), (16, listen(3))],
        // Two services for everything to one VIP.
        &[(15, service(8, Protocol::Any, None)), (16, listen(9))],
        // One address twice, or as VIP and as backend.
        &[(3, vip(11, "192.0.2.1"))],
        &[(9, backend(1, "192.0.2.1", 1))],
    ];
    for messages in extra {
        let mut all = whole();
        messages.iter().for_each(|(at, message)| all.insert(*at, message.clone()));
        let (last, others) = all.split_last().expect("some");
        assert!(matches!(take(others), Ok(None)), "{messages:?}");
        assert_eq!(*last, ToWorker::Commit);
        assert!(take(&all).is_err(), "{messages:?}");
    }
}

/// Memory grows with the largest index, and with nothing else.
#[test]
fn the_largest_indices_are_taken() {
    let all = [
        begin(),
        vip(65535, "192.0.2.1"),
        service(65535, Protocol::Any, Some(AFFINITY)),
        listen(65535),
        backend(8191, "10.0.0.1", 1),
        ToWorker::Commit,
    ];
    let setup = take(&all).expect("in step").expect("committed");
    assert_eq!(setup.service_for_all(65535), Some(65535));
    assert_eq!((setup.backend_slots(), setup.backends().count()), (8192, 1));
}

#[test]
fn after_a_commit_the_next_transaction_may_begin() {
    let mut assembly = Assembly::default();
    for _ in 0..2 {
        let mut last = None;
        for message in whole() {
            assert!(last.is_none());
            last = assembly.take(message, 3).expect("in step");
        }
        assert!(last.is_some());
    }
    assert!(assembly.take(ToWorker::Commit, 3).is_err());
}

fn message() -> impl Strategy<Value = ToWorker> {
    let index = prop_oneof![5 => 0..4_u16, 1 => any::<u16>()];
    let text = select(&["192.0.2.1", "192.0.2.2", "10.0.0.1", "10.0.0.2", "::1", "2001:db8::1", "::ffff:10.0.0.1"][..]);
    let protocol = select(&[Protocol::Tcp, Protocol::Udp, Protocol::Any][..]);
    let affinity = prop::option::of((any::<u8>(), any::<u8>(), any::<u32>()));
    (0..12_u8, index, text, protocol, affinity, 0..3_u16, any::<u16>()).prop_map(
        |(kind, n, text, protocol, affinity, low, weight)| match kind {
            0 => begin(),
            1 | 2 => vip(n, text),
            3 | 4 => backend(n, text, 1 + weight % 257),
            5 | 6 => {
                let affinity = affinity.map(|(prefix4, prefix6, timeout)| Affinity { prefix4, prefix6, timeout });
                service(n, protocol, affinity)
            }
            7 => listen(n),
            8 => port(low, n),
            9 => ToWorker::Go,
            10 => with_policy(n, protocol, None, Policy { slow_start: u32::from(weight), ..POLICY }),
            _ if weight < 20_000 => ToWorker::Commit,
            _ => ToWorker::Hello { version: n, worker: n, queue: n },
        },
    )
}

/// Asks a setup every question.
fn ask(setup: &mut Setup) {
    for n in [0, 1, 3, 65535] {
        for port in [0, 1, 2, 65535] {
            for service in [setup.service_at(n, if port == 1 { UDP } else { TCP }, port), setup.service_for_all(n)]
                .into_iter()
                .flatten()
            {
                assert!(setup.service(service).is_some());
            }
        }
        for family in [Family::V4, Family::V6] {
            let chosen = setup.pool(n, family).and_then(|p| p.balancer.choose(&[7; 16]));
            assert!(chosen.is_none_or(|b| setup.backend(b.0).is_some_and(|b| b.service == n && b.family() == family)));
        }
        assert!(setup.vip_address(n).is_none_or(|a| setup.vip(a) == Some(n)));
        assert!(setup.backend_address(n).is_none_or(|a| setup.is_backend(a)));
    }
}

proptest! {
    #[test]
    fn no_sequence_of_messages_panics(messages in prop::collection::vec(message(), 0..40), worker in 0..64_u16) {
        let mut assembly = Assembly::default();
        for message in messages {
            if let Ok(Some(mut setup)) = assembly.take(message, worker) {
                ask(&mut setup);
            }
        }
    }

    /// Close to what the supervisor sends: a valid transaction with some messages missing, repeated or replaced.
    #[test]
    fn no_damaged_transaction_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8, message()), 0..4), worker in 0..64_u16,
    ) {
        let mut messages = whole();
        for (at, what, message) in changes {
            let at = at.index(messages.len());
            match what {
                0 => messages[at] = message,
                1 => messages.insert(at, message),
                _ => messages.insert(at, messages[at].clone()),
            }
        }
        let mut assembly = Assembly::default();
        for message in messages {
            if let Ok(Some(mut setup)) = assembly.take(message, worker) {
                ask(&mut setup);
            }
        }
    }
}

#[test]
fn a_client_in_the_network_of_a_backend_is_known() {
    let messages = [
        begin(),
        vip(0, "192.0.2.1"),
        service(0, Protocol::Any, None),
        ToWorker::Listen { vip: 0 },
        beside(1, "198.51.100.11", 25),
        beside(2, "2001:db8:2::11", 64),
        backend(3, "10.0.0.1", 1),
        ToWorker::Commit,
    ];
    let setup = take(&messages).expect("in step").expect("a setup");
    for (backend, client, is_beside) in [
        (1, "198.51.100.127", true),
        (1, "198.51.100.128", false),
        (1, "2001:db8:2::1", false),
        (2, "2001:db8:2:0:ffff::", true),
        (2, "2001:db8:2:1::", false),
        (3, "10.0.0.1", false),
    ] {
        let known = setup.backend(backend).expect("a backend");
        let client = from_ip(client.parse().expect("address"));
        assert_eq!(known.is_beside(&client), is_beside, "{client:?} {backend}");
    }
}
