//! What `loaded top` shows.

use crate::sample::{self, backend, service};
use loaded_control::live::{Live, Sort, View, screen};
use loaded_control::status::{AdminState, BackendState, ServiceState};
use loaded_control::{ConditionStatus, Effect, InstanceVerdict, Status};
use std::time::{Duration, Instant};

const VIEW: View = View { width: 80, height: None, skipped: 0, sort: Sort::Config, colour: false, unicode: false };

/// Two backends, of which the first gets twice as much in the second that passes.
fn before_and_after() -> (Status, Status) {
    let before = Status {
        services: vec![service("web", vec![backend("198.51.100.11", 0), backend("2001:db8:1::13", 1)])],
        ..sample::status()
    };
    let mut after = before.clone();
    for (backend, times) in after.services[0].backends.iter_mut().zip([2, 1]) {
        backend.new_flows += 10 * times;
        backend.packets_to += 600 * times;
        backend.packets_from += 400 * times;
        backend.bytes_to += 25_000 * times;
        backend.bytes_from += 100_000 * times;
    }
    after.queues[0].dropped_full += 7;
    after.packets.insert("dropped_clash".to_owned(), 5);
    (before, after)
}

fn shown(statuses: &[&Status], view: &View) -> Vec<String> {
    let (mut live, mut at) = (Live::default(), Instant::now());
    let mut lines = Vec::new();
    for status in statuses {
        lines = screen(&live.frame(at, status), view);
        at += Duration::from_secs(1);
    }
    lines
}

#[test]
fn rates_are_what_was_counted_in_between() {
    let (before, after) = before_and_after();
    assert_eq!(
        shown(&[&before, &after], &VIEW),
        [
            "serving  loaded 0.1.0  up 1d1h  generation 7",
            "34 flows  30 new/s  3000 pkt/s  3.0Mbit/s  12 dropped/s  3 waiting",
            "SERVICE, BACKEND        STATE       FLOWS  NEW/S  PKT/S  BIT/S   CHECK",
            "web                     ok             34     30   3000   3.0M       -  _#",
            "  198.51.100.11         up             17     20   2000   2.0M   412us  _#",
            "  2001:db8:1::13        up             17     10   1000   1.0M   412us  _#",
        ]
    );
    // At first, and after a restart, there is nothing to compare with.
    for statuses in [&[&after][..], &[&after, &before]] {
        assert!(shown(statuses, &VIEW)[1].starts_with("34 flows  0 new/s  0 pkt/s  0bit/s  0 dropped/s"));
    }
}

#[test]
fn the_largest_comes_first_if_asked() {
    let (before, mut after) = before_and_after();
    after.services.push(service("bulk", vec![backend("198.51.100.21", 3)]));
    after.services[1].backends[0].flows = 1000;
    after.services[0].backends[1].latency_us = Some(5000);
    let names = |sort| {
        let lines = shown(&[&before, &after], &View { sort, ..VIEW });
        lines[3..].iter().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(Sort::Config), ["web", "198.51.100.11", "2001:db8:1::13", "bulk", "198.51.100.21"]);
    assert_eq!(names(Sort::Flows)[0], "bulk");
    assert_eq!(names(Sort::Bits), names(Sort::Config));
    assert_eq!(names(Sort::Latency)[..2], ["web", "2001:db8:1::13"]);
}

#[test]
fn what_is_wrong_is_seen_first() {
    let (_, mut status) = before_and_after();
    status.verdict = Some(InstanceVerdict::NotServing);
    status.services[0].state = ServiceState::AllDown;
    status.services[0].backends[0].state = BackendState::Down;
    status.services[0].backends[1].admin = AdminState::Draining;
    let condition = |text: &str, effect| ConditionStatus {
        name: "host".to_owned(),
        effect,
        service: None,
        family: None,
        text: text.to_owned(),
        mend: None,
    };
    status.conditions =
        vec![condition("nothing\x1b[2J\nforwards", Effect::Stops), condition("of no account", Effect::Note)];
    let lines = shown(&[&status], &View { colour: true, ..VIEW });
    assert!(lines[0].starts_with("\x1b[31mNOT SERVING\x1b[m  loaded"), "{}", lines[0]);
    assert_eq!(lines[2], "\x1b[31m! nothing?[2J forwards\x1b[m");
    assert!(lines[4].contains("\x1b[31mall_down  \x1b[m"), "{}", lines[4]);
    assert!(lines[5].contains("\x1b[31mdown      \x1b[m") && lines[6].contains("\x1b[33mdraining  \x1b[m"));
    assert!(!lines.join("").contains("of no account"));
}

#[test]
fn it_fits_every_terminal() {
    let (before, mut after) = before_and_after();
    after.services[0].name = "a service with a name that is longer than any column".to_owned();
    after.services[0].backends =
        (0..200).map(|n| backend(&format!("2001:db8:1234:5678:9abc:def0:1:{n:x}"), n)).collect();
    after.services[0].backends.iter_mut().for_each(|backend| backend.port = Some(65535));
    for width in [0, 1, 20, 60, 80, 81, 132, 500] {
        for height in [0, 1, 3, 24, 1000] {
            let view = View { width, height: Some(height), skipped: 7, unicode: true, ..VIEW };
            let lines = shown(&[&before, &after, &after], &view);
            assert!(lines.len() <= height, "{} lines of {height}", lines.len());
            for line in lines {
                assert!(line.chars().count() <= width.max(31), "{width}: {line:?}");
            }
        }
    }
    // Scrolled to the end, the last one is there.
    let view = View { height: Some(24), skipped: usize::MAX, ..VIEW };
    let lines = shown(&[&after], &view);
    assert!(lines.len() == 24 && lines[23].contains("2001:db8"), "{lines:?}");
}
