//! What Prometheus sees, read by a reader that is as strict as the format.

use crate::sample;
use loaded_control::Status;
use loaded_control::metrics::{open_metrics, render};
use loaded_control::status::BackendStatus;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
struct Page {
    /// Type by name.
    types: BTreeMap<String, String>,
    /// Value by name and labels, labels sorted.
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Every line is HELP, then TYPE, then samples of that name; no name comes twice, no sample comes twice.
fn read(text: &str) -> Page {
    assert!(text.ends_with('\n'), "the last line ends too");
    let mut page = Page { types: BTreeMap::new(), samples: BTreeMap::new() };
    let (mut helped, mut current) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge" | "histogram") && helped.contains(name), "{line}");
            assert!(page.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            current = name.to_owned();
        } else {
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            let suffixes = if page.types[&current] == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| name == format!("{current}{suffix}")), "{line}");
            assert!(name.starts_with("loaded_"), "{line}");
            let (labels, value) = labels(rest);
            let value: f64 = value.strip_prefix(' ').unwrap().parse().unwrap();
            assert!(value >= 0.0, "{line}");
            assert!(page.samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
    }
    page
}

/// `{a="b",c="d"}` and what follows.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut all = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (all, text) };
    loop {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{text}");
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(all.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &after[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (all, more),
            _ => panic!("{text}"),
        }
    }
}

fn value(page: &Page, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    page.samples.get(&(name.to_owned(), labels)).copied().unwrap_or_else(|| panic!("no {name} in {page:#?}"))
}

#[test]
fn every_number_has_its_place() {
    let page = read(&render(&sample::status()));
    let value = |name, labels: &[(&str, &str)]| value(&page, name, labels);
    assert_eq!(value("loaded_info", &[("version", "0.1.0")]), 1.0);
    assert_eq!(value("loaded_generation", &[]), 7.0);
    assert_eq!(value("loaded_last_reload_success", &[]), 1.0);
    assert_eq!(value("loaded_process_up", &[("process", "worker[0]")]), 1.0);
    assert_eq!(value("loaded_process_resident_memory_bytes", &[("process", "prober")]), 41_234.0 * 1024.0);
    assert_eq!(value("loaded_packets_total", &[("outcome", "forwarded")]), 3_580_000.0);
    assert_eq!(value("loaded_packets_total", &[("outcome", "dropped_clash")]), 0.0);
    assert_eq!(value("loaded_pressure_total", &[("what", "flow_evicted")]), 3.0);
    assert_eq!(value("loaded_faults_total", &[("fault", "verdict_unknown_id")]), 2.0);
    let dropped = |reason| value("loaded_queue_dropped_packets_total", &[("queue", "5"), ("reason", reason)]);
    assert_eq!((dropped("queue_full"), dropped("socket_full")), (12.0, 4.0));
    assert_eq!(value("loaded_queue_received_packets_total", &[("queue", "5"), ("worker", "0")]), 3_580_245.0);
    let state = |state| value("loaded_service_state", &[("service", "web"), ("state", state)]);
    assert_eq!((state("ok"), state("all_down")), (1.0, 0.0));
    assert_eq!(value("loaded_service_choice", &[("service", "web")]), 2_923_517_522.0);
    let down = [("service", "web"), ("backend", "198.51.100.12"), ("index", "1")];
    assert_eq!(value("loaded_backend_up", &down), 0.0);
    let draining = [("service", "web"), ("backend", "2001:db8:1::13"), ("index", "2")];
    assert_eq!(value("loaded_backend_enabled", &draining), 0.0);
    assert_eq!(value("loaded_backend_ejected_workers", &draining), 1.0);
    assert_eq!(value("loaded_backend_check_latency_seconds", &down), 0.000_412);
    assert_eq!(value("loaded_late_checks_total", &[]), 12.0);
    assert_eq!(value("loaded_backend_draining", &draining), 1.0);
    assert_eq!(value("loaded_backend_drain_seconds", &draining), 272.0);
    assert_eq!(value("loaded_process_cpu_seconds_total", &[("process", "worker[0]")]), 12.34);
    assert_eq!(value("loaded_table_flows", &[("worker", "0")]), 12_000.0);
    assert_eq!(value("loaded_table_flows_limit", &[("worker", "0")]), 262_144.0);
    let bucket = |le| value("loaded_check_duration_seconds_bucket", &[("service", "web"), ("le", le)]);
    let buckets = ["0.0005", "0.001", "0.5", "1.0", "2.5", "+Inf"].map(bucket);
    assert_eq!(buckets, [0.0, 1400.0, 1400.0, 1400.0, 1400.0, 1401.0]);
    assert_eq!(value("loaded_check_duration_seconds_count", &[("service", "web")]), 1401.0);
    assert_eq!(value("loaded_check_duration_seconds_sum", &[("service", "web")]), 4.136);
    let failures = |cause| value("loaded_check_failures_total", &[("service", "web"), ("cause", cause)]);
    assert_eq!((failures("refused"), failures("http_status")), (1.0, 1.0));
    let bytes = [("service", "web"), ("backend", "198.51.100.11"), ("index", "0"), ("direction", "from")];
    assert_eq!(value("loaded_backend_bytes_total", &bytes), 9_876_543_210.0);
}

/// The same content: only the names of counters differ, and the end is told.
#[test]
fn open_metrics_has_the_same_samples() {
    let (text, open) = (render(&sample::status()), open_metrics(&sample::status()));
    let open = open.strip_suffix("# EOF\n").unwrap();
    let samples =
        |page: &str| page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(samples(&text), samples(open));
    assert!(open.contains("# TYPE loaded_packets counter\nloaded_packets_total{"), "{open}");
    assert!(!open.contains("_total counter"), "{open}");
    assert!(open.contains("# TYPE loaded_check_duration_seconds histogram\n"), "{open}");
}

#[test]
fn two_ports_of_an_address_have_two_names() {
    let mut status = sample::status();
    let (first, second) = (sample::backend("2001:db8:1::13", 4), sample::backend("2001:db8:1::13", 5));
    let other = [(first, 8080), (second, 8081)].map(|(backend, port)| BackendStatus { port: Some(port), ..backend });
    status.services[0].backends = other.to_vec();
    let page = render(&status);
    for name in ["[2001:db8:1::13]:8080", "[2001:db8:1::13]:8081"] {
        assert!(page.contains(&format!("loaded_backend_flows{{service=\"web\",backend=\"{name}\"")), "{name}");
    }
}

#[test]
fn labels_are_escaped_and_samples_are_not_repeated() {
    let mut status = sample::status();
    let evil = "a\"} 1\n# HELP x y\\\u{1b}";
    status.services[0].name = evil.to_owned();
    status.services.push(status.services[0].clone());
    status.processes.push(status.processes[1].clone());
    let page = read(&render(&status));
    let name = "a\"} 1\n# HELP x y\\?";
    assert_eq!(value(&page, "loaded_service_state", &[("service", name), ("state", "ok")]), 1.0);
}

#[test]
fn an_empty_status_is_a_page_too() {
    let mut status = sample::status();
    status.last_reload = None;
    status.services.clear();
    status.processes.clear();
    status.queues.clear();
    status.kernel_path = None;
    let Status { packets, pressure, faults, .. } = &mut status;
    packets.clear();
    pressure.clear();
    faults.clear();
    let page = read(&render(&status));
    assert_eq!(page.samples.len(), 10);
}
