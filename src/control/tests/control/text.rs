//! What a person sees.

use crate::sample::{self, NOW, backend, process, service};
use loaded_control::status::{AdminState, BackendState, BackendStatus, LateChecks, Reload, Role, ServiceState};
use loaded_control::text::{history, plain, status};
use loaded_control::{ConditionStatus, Effect, InstanceVerdict, Reply, Status};

fn first(of: &Status) -> String {
    status(of).lines().next().unwrap().to_owned()
}

#[test]
fn the_first_line_is_the_verdict() {
    let mut sample = sample::status();
    assert_eq!(first(&sample), "serving, generation 7, 2 of 3 backends up, 1 draining");
    sample.services[0].backends[0].admin = AdminState::Disabled;
    assert_eq!(first(&sample), "serving, generation 7, 2 of 3 backends up, 1 draining, 1 disabled");
    sample.verdict = Some(InstanceVerdict::Impaired);
    assert!(first(&sample).starts_with("IMPAIRED, "));
    sample.verdict = Some(InstanceVerdict::NotServing);
    assert!(first(&sample).starts_with("NOT SERVING, "));
    sample.verdict = None;
    assert!(first(&sample).starts_with("verdict unknown, "), "an older instance does not say");
}

#[test]
fn what_stops_or_impairs_is_named_below_it() {
    let mut sample = sample::status();
    sample.services.push(service("dns", vec![backend("198.51.100.20", 9)]));
    sample.services[1].state = ServiceState::AllDown;
    sample.services[1].backends[0].state = BackendState::Down;
    assert!(status(&sample).contains("! service dns: all down\n"));
    // Of two families one has nobody, and the other serves.
    sample.services.remove(0);
    sample.services[0].backends.push(backend("2001:db8::20", 10));
    assert!(status(&sample).contains("! service dns: all down for IPv4\n"));

    let mut sample = sample::status();
    sample.processes.push(process(Role::Worker, "worker[1]", 814));
    sample.processes[3].serving = false;
    sample.processes[3].state = "waiting 1.6 s to be started again".to_owned();
    let host = |effect, text: &str| ConditionStatus {
        name: "host".to_owned(),
        effect,
        service: None,
        family: Some(4),
        text: text.to_owned(),
        mend: Some("sysctl".to_owned()),
    };
    sample.conditions = vec![host(Effect::Stops, "no forwarding"), host(Effect::Note, "maybe")];
    let text = status(&sample);
    assert!(text.contains("! worker[1]: waiting 1.6 s to be started again\n"), "{text}");
    assert!(text.contains("\n! no forwarding: sysctl\n") && !text.contains("maybe"), "{text}");
    // Anybody can forge these, so they are in no verdict; but the operator must know.
    sample.conditions = vec![ConditionStatus { name: "replies_refused".to_owned(), ..host(Effect::Note, "7 packets") }];
    assert!(status(&sample).contains("\n! 7 packets: sysctl\n"), "{}", status(&sample));
}

#[test]
fn what_is_wrong_comes_before_the_tables() {
    let mut sample = sample::status();
    sample.last_reload =
        Some(Reload { at: NOW - 5, ok: false, text: "loaded.toml:3:1: unknown key\n  try `vips`".to_owned() });
    let text = status(&sample);
    let troubles: Vec<_> = text.lines().filter(|line| line.starts_with('!')).collect();
    assert_eq!(
        troubles,
        [
            "! reload 5s ago failed, generation 7 stays in use: loaded.toml:3:1: unknown key try `vips`",
            "! 198.51.100.12 of web has been down for 3m12s: connection refused",
            "! 2001:db8:1::13 of web: ejected by passive health (worker 1: no connection in time)",
        ]
    );
    sample.services[0].backends = (0..100).map(|n| backend(&format!("198.51.100.{n}"), n)).collect();
    for backend in &mut sample.services[0].backends {
        backend.state = BackendState::Down;
    }
    let text = status(&sample);
    assert!(text.lines().position(|line| line == "! and 88 more backends").is_some_and(|at| at < 16), "{text}");
}

/// Whoever answers for addresses where nobody is fills neither the headline nor the troubles.
#[test]
fn a_found_node_that_never_passed_a_check_counts_nowhere() {
    let mut sample = sample::status();
    let before = status(&sample);
    let (discovered, confirmed, state) = (true, false, BackendState::Down);
    sample.services[0].backends.push(BackendStatus { discovered, confirmed, state, ..backend("198.51.100.77", 77) });
    let text = status(&sample);
    assert_eq!(text.lines().next(), before.lines().next());
    assert_eq!(text.matches("198.51.100.77").count(), 1, "{text}");
    assert!(text.contains("discovered, not configured, no check has passed yet"), "{text}");
}

#[test]
fn a_security_event_comes_first() {
    let mut sample = sample::status();
    let mut next = process(Role::Worker, "worker[0]", 820);
    next.serving = false;
    sample.processes.push(next);
    for process in sample.processes.iter_mut().filter(|process| process.name == "worker[0]") {
        process.sandbox_kills = 2;
    }
    sample.processes[2].sandbox_kills = 1;
    let text = status(&sample);
    let troubles: Vec<_> = text.lines().skip(1).take(3).collect();
    let events = ["prober: 1 SECURITY EVENT", "worker[0]: 2 SECURITY EVENTS"];
    let expected = events.map(|event| format!("! {event}: killed by its own sandbox, see loaded history"));
    assert_eq!(troubles[..2], expected, "{text}");
    assert!(troubles[2].starts_with("! worker[0]: serving"), "{text}");
}

#[test]
fn a_kernel_that_does_not_repeat_is_named() {
    let mut sample = sample::status();
    assert!(!status(&sample).contains("! NF_REPEAT"));
    assert!(status(&sample).contains("NF_REPEAT on this kernel: repeats\n"));
    for (found, said) in [
        ("accepts", "this kernel accepts packets instead of repeating them"),
        ("unknown: no socket", "unknown whether this kernel repeats packets (no socket)"),
    ] {
        sample.nf_repeat = found.to_owned();
        let line = format!("! NF_REPEAT: {said}: those that a killed worker held are dropped\n");
        assert!(status(&sample).contains(&line), "{}", status(&sample));
    }
    sample.nf_repeat = String::new();
    assert!(!status(&sample).contains("NF_REPEAT"), "an older instance does not say");
}

#[test]
fn late_checks_are_a_trouble_while_they_are_news() {
    let mut sample = sample::status();
    assert!(!status(&sample).contains("late"));
    sample.late_checks = LateChecks { count: 1234, longest_ms: 4200, last: Some(sample.now - 60) };
    let line =
        "! prober: checks begin late, up to 4200 ms after they are due (1234 since the start): failures are found";
    assert!(status(&sample).contains(line), "{}", status(&sample));
    sample.late_checks.last = Some(sample.now - 61);
    assert!(!status(&sample).contains("late"));
}

#[test]
fn the_tables_are_aligned_and_fit_a_terminal() {
    let text = status(&sample::status());
    println!("{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    for line in [
        "loaded 0.1.0, pid 812, up 1d1h; last reload 12m0s ago: 1 backend removed",
        "  answers    tcp 80, 8000-8080 on 192.0.2.1, 2001:db8::1, mode nat",
        "  BACKEND         WEIGHT  STATE      FOR  CHECK  FLOWS    NEW  PKTS TO  FROM  BYTES TO  FROM",
        "  198.51.100.11        1  up        2h5m  412us     17  12.3k     1.2M  2.3M     98.7M  9.8G",
        "    draining, 272 s left; backup; ejected by passive health (worker 1: no connection in time)",
        "    keeps its flows for another 12 s",
        "worker[0]   813     0  serving  2h5m         0   42.2M  uid 65534, seccomp 2, NET_ADMIN",
        "    5       0   3580245        3                   12                     4",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    assert!(!text.contains("dropped_clash"), "what is 0 is not shown");
}

#[test]
fn no_string_moves_the_cursor() {
    let mut sample = sample::status();
    let evil = "\u{1b}[2J\u{9b}31m\r\u{202e}evil\u{7}";
    sample.version = evil.to_owned();
    sample.services[0].name = evil.to_owned();
    sample.services[0].backends[1].cause = format!("{evil}\nforged line");
    sample.processes[1].state = evil.to_owned();
    sample.processes[1].serving = false;
    sample.last_reload = Some(Reload { at: NOW, ok: false, text: evil.to_owned() });
    let mut events = sample::history().last(1);
    events[0].cause = evil.to_owned();
    for text in [status(&sample), history(&events)] {
        assert!(text.contains("evil"));
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{text}");
    }
    assert_eq!(plain("a\tb\u{7f}c\n"), "a?b?c\n");
}

#[test]
fn history_is_a_table_of_times_and_causes() {
    let text = history(&sample::history().last(3)[..2]);
    assert_eq!(
        text,
        "TIME (UTC)               SERVICE  BACKEND        CHANGE      BY         CAUSE\n\
         2026-11-23 23:34:38.003  web      198.51.100.12  up -> down  reload     connection refused\n\
         2026-11-23 23:34:38.004  web      198.51.100.12  up -> down  discovery  connection refused\n"
    );
    assert_eq!(history(&[]), "no change of membership since the start\n");
}

#[test]
fn json_survives_the_way() {
    for reply in [
        Reply::Status(Box::new(sample::status())),
        Reply::History(sample::history().last(9)),
        Reply::Done { lines: vec!["done".to_owned()] },
        Reply::error("no"),
    ] {
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
    let json = serde_json::to_value(sample::status()).unwrap();
    assert_eq!(json["services"][0]["backends"][1]["state"], "down");
    assert_eq!(json["services"][0]["state"], "ok");
    assert_eq!((&json["services"][0]["all_down"], &json["services"][0]["slow_start"]), (&"reject".into(), &30.into()));
    assert_eq!(json["processes"][1]["sandbox"]["capabilities"][0], "CAP_NET_ADMIN");
    assert_eq!(json["queues"][0]["dropped_socket"], 4);
    assert_eq!(json["packets"]["forwarded"], 3_580_000);
}

#[test]
fn the_kernel_paths_share_is_of_all_packets() {
    let mut sample = sample::status();
    let line = |of: &Status| status(of).lines().find(|line| line.starts_with("kernel path: ")).map(str::to_owned);
    let said = "kernel path: 66 % of all packets, by eth0, eth1; not by ppp0; left to the workers: opens 12, stale 3";
    assert_eq!(line(&sample).as_deref(), Some(said));
    sample.kernel_path.as_mut().unwrap().off = Some("fast = \"off\"".to_owned());
    assert_eq!(line(&sample).as_deref(), Some("kernel path: off: fast = \"off\""));
    sample.kernel_path = None;
    assert_eq!(line(&sample), None, "an older instance");
}
