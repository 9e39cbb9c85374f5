//! Every message arrives as it was sent, and the longest fits a frame.

use super::*;
use crate::{
    Admin, Affinity, AllDown, BackendIndex, Check, CheckKind, Link, LinkError, Passive, Policy, PortRange, Protocol,
    ServiceIndex, Strategy, TableKey, TableKeys,
};
use nix::unistd::write;

#[test]
fn every_message_survives_the_trip() {
    let (supervisor, worker) = Link::<FromWorker, ToWorker>::pair().expect("pair");
    for message in [
        ToWorker::Hello { version: 1, worker: 2, queue: 3 },
        ToWorker::Tables {
            flows: 1,
            clients: u32::MAX,
            keys: TableKeys { flows: TableKey([1; 16]), clients: TableKey([255; 16]) },
        },
        ToWorker::Begin { generation: u64::MAX, unserved: crate::Unserved::Drop, malformed: crate::OnFailure::Pass },
        ToWorker::Vip { index: 0, address: "192.0.2.1".parse().expect("v4") },
        ToWorker::Service {
            index: ServiceIndex(7),
            protocol: Protocol::Any,
            mode: crate::Mode::Dsr,
            strategy: Strategy::Maglev { seed: 9 },
            affinity: Some(Affinity { prefix4: 32, prefix6: 64, timeout: 3600 }),
            policy: Policy {
                all_down: AllDown::Last,
                panic_threshold: 50,
                slow_start: 30,
                passive: Some(Passive { fails: 3, timeout: 500, hold: 10, port: Some(80) }),
                ..Policy::STANDARD
            },
        },
        ToWorker::Listen { vip: 1 },
        ToWorker::Port(PortRange { low: 80, high: 81 }),
        ToWorker::Backend {
            index: BackendIndex(4095),
            address: "2001:db8::1".parse().expect("v6"),
            port: Some(8080),
            weight: 256,
            backup: false,
            admin: Admin::Draining,
            up: true,
            age: 7,
            confirmed: true,
            link: Some(64),
        },
        ToWorker::Commit,
        ToWorker::Go,
        ToWorker::Stop,
    ] {
        supervisor.send(&message).expect("send");
        assert_eq!(worker.receive().expect("receive"), message);
    }
    worker.send(&FromWorker::Failed("x".repeat(MAX_TEXT))).expect("longest text");
    assert!(matches!(supervisor.receive(), Ok(FromWorker::Failed(t)) if t.len() == MAX_TEXT));
}

#[test]
fn the_longest_check_fits_a_frame() {
    let (supervisor, prober) = Link::<FromProber, ToProber>::pair().expect("pair");
    let (method, path, host) = ("M".repeat(16), "p".repeat(128), "h".repeat(128));
    let kinds = [
        CheckKind::Http {
            port: 1,
            method,
            path,
            host,
            status: (100, 599),
            via: "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().ok(),
        },
        CheckKind::Udp { port: 1, send: vec![0; 128], expect: vec![0; 128] },
    ];
    for kind in kinds {
        let check = Check { kind, interval: 1, interval_down: 1, timeout: 1, jitter: 1, rise: 1, fall: 1 };
        let message = ToProber::Check { index: 0, check };
        supervisor.send(&message).expect("send");
        assert_eq!(prober.receive().expect("receive"), message);
    }
}

#[test]
fn a_part_of_a_document_fills_a_frame_of_the_exporters_link() {
    let (supervisor, exporter) = crate::ExporterLink::pair().expect("pair");
    let part = ToExporter::Part(vec![7; crate::MAX_PART]);
    supervisor.send(&part).expect("send");
    assert_eq!(exporter.receive().expect("receive"), part);
    let longer = ToExporter::Part(vec![7; crate::MAX_PART + 1]);
    assert!(matches!(supervisor.send(&longer), Err(LinkError::Malformed(_))));
    write(&supervisor, &[0; 20_000]).expect("write");
    assert!(matches!(exporter.receive(), Err(LinkError::TooLong)));
}

#[test]
fn a_worker_can_say_nothing_to_the_prober() {
    let (prober, worker) = Link::<Silence, Membership>::pair().expect("pair");
    let membership = Membership { generation: 7, backend: BackendIndex(3), up: false };
    prober.send(&membership).expect("send");
    assert_eq!(worker.receive().expect("receive"), membership);
    write(&worker, &[0]).expect("write");
    assert!(matches!(prober.receive(), Err(LinkError::Malformed(_))));
}
