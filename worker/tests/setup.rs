//! The configuration as it comes over the link: what is out of step is refused, and the rest is what was said.

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, ServiceIndex, Strategy as Choice, ToWorker};
use loaded_worker::setup::{Assembly, OutOfStep, Setup, address};
use loaded_worker::wire::Family;
use proptest::prelude::*;
use proptest::sample::select;

const AFFINITY: Affinity = Affinity { prefix4: 24, prefix6: 56, timeout: 60 };

fn begin() -> ToWorker {
    ToWorker::Begin { generation: 7 }
}

fn vip(index: u16, text: &str) -> ToWorker {
    ToWorker::Vip { index, address: text.parse().expect("address") }
}

fn backend(index: u16, text: &str) -> ToWorker {
    ToWorker::Backend { index: BackendIndex(index), address: text.parse().expect("address") }
}

fn service(index: u16, protocol: Protocol, affinity: Option<Affinity>) -> ToWorker {
    ToWorker::Service { index: ServiceIndex(index), protocol, strategy: Choice::RoundRobin, affinity }
}

fn listen(vip: u16) -> ToWorker {
    ToWorker::Listen { vip }
}

fn port(low: u16, high: u16) -> ToWorker {
    ToWorker::Port(PortRange { low, high })
}

fn member(backend: u16, weight: u16) -> ToWorker {
    ToWorker::Member { backend: BackendIndex(backend), weight }
}

/// Takes messages up to the end of a transaction, or to the first that is refused.
fn take(messages: &[ToWorker]) -> Result<Option<Setup>, OutOfStep> {
    let mut assembly = Assembly::default();
    messages.iter().try_fold(None, |_, message| assembly.take(message.clone(), 0))
}

/// Two VIPs, two backends a family, web on one VIP and everything on the other.
fn whole() -> Vec<ToWorker> {
    vec![
        begin(),
        vip(0, "192.0.2.1"),
        vip(1, "2001:db8::1"),
        backend(0, "10.0.0.1"),
        backend(1, "2001:db8::a"),
        backend(2, "10.0.0.2"),
        service(0, Protocol::Tcp, Some(AFFINITY)),
        listen(0),
        port(80, 89),
        port(443, 443),
        member(0, 1),
        member(2, 256),
        service(1, Protocol::Any, None),
        listen(1),
        member(1, 1),
        ToWorker::Commit,
    ]
}

#[test]
fn a_setup_is_what_the_messages_say() {
    let mut setup = take(&whole()).expect("in step").expect("committed");
    assert_eq!(setup.generation(), 7);
    let of = |text: &str| address(text.parse().expect("address"));
    assert_eq!(
        ["192.0.2.1", "2001:db8::1", "10.0.0.1", "::"].map(|a| setup.vip(&of(a))),
        [Some(0), Some(1), None, None]
    );
    assert_eq!(
        ["10.0.0.1", "2001:db8::a", "10.0.0.2", "192.0.2.1"].map(|a| setup.backend(&of(a))),
        [Some(0), Some(1), Some(2), None]
    );
    assert_eq!(setup.vip_address(1), Some(&of("2001:db8::1")));
    assert_eq!(setup.backend_address(2), Some(&of("10.0.0.2")));
    assert_eq!((setup.vip_address(2), setup.backend_address(3)), (None, None));
    let served = [79, 80, 85, 89, 90, 442, 443, 444].map(|port| setup.service_at(0, false, port).is_some());
    assert_eq!(served, [false, true, true, true, false, false, true, false]);
    assert_eq!((setup.service_at(0, true, 80), setup.service_for_all(0)), (None, None));
    assert_eq!((setup.service_at(1, true, 80), setup.service_at(1, false, 0)), (Some(1), Some(1)));
    assert_eq!((setup.service_for_all(1), setup.service_for_all(9)), (Some(1), None));
    assert_eq!(setup.service(0).and_then(|s| s.affinity), Some(AFFINITY));
    assert!(setup.service(2).is_none() && setup.services().count() == 2);
    let mut choose = |service, family| setup.balancer(service, family).and_then(|b| b.choose(&[0; 16]));
    assert_eq!(choose(0, Family::V4), Some(BackendIndex(2)), "256 to 1");
    assert_eq!((choose(0, Family::V6), choose(1, Family::V4)), (None, None));
    assert_eq!(choose(1, Family::V6), Some(BackendIndex(1)));
}

#[test]
fn a_service_without_ports_takes_all_of_its_protocol() {
    let all = [begin(), vip(0, "192.0.2.1"), service(0, Protocol::Udp, None), listen(0), ToWorker::Commit];
    let setup = take(&all).expect("in step").expect("committed");
    assert_eq!([0, 53, 65535].map(|port| setup.service_at(0, true, port)), [Some(0); 3]);
    assert_eq!(setup.service_at(0, false, 53), None);
}

/// `at` is where in the whole transaction the message comes instead of what belongs there.
#[test]
fn a_message_out_of_step_is_refused() {
    let hello = ToWorker::Hello { version: 1, worker: 0, queue: 0 };
    let wrong = |prefix4, prefix6, timeout| service(0, Protocol::Tcp, Some(Affinity { prefix4, prefix6, timeout }));
    let cases = [
        (0, vip(0, "192.0.2.1")),
        (0, backend(0, "10.0.0.1")),
        (0, service(0, Protocol::Tcp, None)),
        (0, ToWorker::Commit),
        (0, hello.clone()),
        (1, begin()),
        (5, hello),
        (1, vip(1, "192.0.2.1")),
        (2, vip(0, "192.0.2.9")),
        (2, vip(2, "192.0.2.9")),
        (3, backend(1, "10.0.0.9")),
        (4, backend(0, "10.0.0.9")),
        (4, backend(65535, "10.0.0.9")),
        (6, service(1, Protocol::Tcp, None)),
        (12, service(0, Protocol::Tcp, None)),
        (6, wrong(0, 64, 60)),
        (6, wrong(33, 64, 60)),
        (6, wrong(32, 0, 60)),
        (6, wrong(32, 129, 60)),
        (6, wrong(32, 128, 0)),
        (6, wrong(32, 128, 31_536_001)),
        (6, listen(0)),
        (6, port(80, 80)),
        (6, member(0, 1)),
        (7, listen(2)),
        (8, port(81, 80)),
        (13, port(80, 80)),
        (10, member(3, 1)),
        (10, member(0, 0)),
        (10, member(0, 257)),
    ];
    for (at, message) in cases {
        let mut messages = whole();
        messages.truncate(at);
        assert!(take(&messages).is_ok(), "up to {at}");
        messages.push(message.clone());
        assert!(take(&messages).is_err(), "{message:?} at {at}");
    }
}

/// What only the end shows.
#[test]
fn a_transaction_that_contradicts_itself_is_refused() {
    let extra: [&[(usize, ToWorker)]; 8] = [
        // A member twice.
        &[(12, member(0, 5))],
        // Ports that overlap: in one service, by listening twice, with another service, with all ports.
        &[(9, port(89, 90))],
        &[(8, listen(0))],
        &[(15, service(2, Protocol::Tcp, None)), (16, listen(0)), (17, port(1, 443))],
        &[(15, service(2, Protocol::Tcp, None)), (16, listen(0))],
        // Two services for all of one VIP.
        &[(15, service(2, Protocol::Any, None)), (16, listen(1))],
        // One address twice, or in both roles.
        &[(3, vip(2, "192.0.2.1"))],
        &[(6, backend(3, "192.0.2.1"))],
    ];
    for messages in extra {
        let mut all = whole();
        messages.iter().for_each(|(at, message)| all.insert(*at, message.clone()));
        let (last, others) = all.split_last().expect("some");
        assert!(matches!(take(others), Ok(None)), "{messages:?}");
        assert_eq!(*last, ToWorker::Commit);
        assert!(take(&all).is_err(), "{messages:?}");
    }
    let mut twice = whole();
    twice.insert(6, backend(3, "10.0.0.2"));
    assert!(take(&twice).is_err());
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
            3 | 4 => backend(n, text),
            5 | 6 => {
                let affinity = affinity.map(|(prefix4, prefix6, timeout)| Affinity { prefix4, prefix6, timeout });
                service(n, protocol, affinity)
            }
            7 => listen(n),
            8 => port(low, n),
            9 | 10 => member(n, weight % 300),
            _ if weight < 20_000 => ToWorker::Commit,
            _ => ToWorker::Hello { version: n, worker: n, queue: n },
        },
    )
}

/// What any setup answers to any question.
fn ask(setup: &mut Setup) {
    for n in [0, 1, 3, 65535] {
        for port in [0, 1, 2, 65535] {
            for service in [setup.service_at(n, port == 1, port), setup.service_for_all(n)].into_iter().flatten() {
                assert!(setup.service(service).is_some());
            }
        }
        setup.count_client(n, n, n == 0);
        for family in [Family::V4, Family::V6] {
            let chosen = setup.balancer(n, family).and_then(|b| b.choose(&[7; 16]));
            assert!(chosen.is_none_or(|b| setup.backend_address(b.0).is_some()));
        }
        assert!(setup.vip_address(n).is_none_or(|a| setup.vip(a) == Some(n)));
        assert!(setup.backend_address(n).is_none_or(|a| setup.backend(a) == Some(n)));
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

    /// Close to what the supervisor sends: some messages of a good transaction are missing, doubled or others.
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
