//! A status with something of everything in it.

use loaded_control::status::{
    AdminState, BackendState, BackendStatus, Ejection, KernelPathStatus, LateChecks, Process, Queue, Reload, Role,
    RulesStatus, Sandbox, ServiceState, ServiceStatus,
};
use loaded_control::{By, CheckFigures, Event, History, InstanceVerdict, PolicyStatus, Status};
use loaded_ipc::Cause;

pub(crate) const NOW: u64 = 1_795_476_878;

pub(crate) fn backend(address: &str, index: u16) -> BackendStatus {
    BackendStatus {
        port: None,
        address: address.parse().unwrap(),
        index,
        weight: 1,
        backup: false,
        discovered: false,
        confirmed: true,
        admin: AdminState::Enabled,
        state: BackendState::Up,
        since: NOW - 7500,
        cause: "check passed".to_owned(),
        latency_us: Some(412),
        drain_left: None,
        slow_start_left: None,
        flows: 17,
        new_flows: 12_345,
        packets_to: 1_234_567,
        bytes_to: 98_765_432,
        packets_from: 2_345_678,
        bytes_from: 9_876_543_210,
        ejected_by: vec![],
    }
}

pub(crate) fn service(name: &str, backends: Vec<BackendStatus>) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        vips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        protocol: "tcp".to_owned(),
        ports: vec!["80".to_owned(), "8000-8080".to_owned()],
        mode: "nat".to_owned(),
        strategy: "rr".to_owned(),
        choice: (name == "web").then_some(2_923_517_522),
        affinity: Some("clients (IPv4 /32, IPv6 /64) stay for 3600 s".to_owned()),
        policy: PolicyStatus {
            on_backend_down: "reset".to_owned(),
            all_down: "reject".to_owned(),
            panic_threshold: 30,
            slow_start: 30,
        },
        passive: Some("3 openings failed within 500 ms: out for 10 s".to_owned()),
        check: Some("http GET / on port 80 every 1 s, rise 2, fall 2".to_owned()),
        discover: None,
        checks: Some(checks()),
        state: ServiceState::Ok,
        backends,
    }
}

/// 1,400 that passed within a millisecond, one that took 3 s, and two that failed.
fn checks() -> CheckFigures {
    let mut figures = CheckFigures::default();
    (0..1400).for_each(|_| figures.note(Cause::Passed, 812));
    figures.note(Cause::Passed, 3_000_000);
    [Cause::Refused, Cause::Status(503)].into_iter().for_each(|cause| figures.note(cause, 90));
    figures
}

pub(crate) fn process(role: Role, name: &str, pid: u32) -> Process {
    let caps: &[&str] = match role {
        Role::Supervisor => &["CAP_SETUID", "CAP_KILL", "CAP_NET_ADMIN", "CAP_NET_RAW"],
        Role::Worker => &["CAP_NET_ADMIN"],
        Role::Prober | Role::Exporter => &[],
    };
    Process {
        role,
        name: name.to_owned(),
        pid: Some(pid),
        serving: true,
        state: "serving".to_owned(),
        since: NOW - 7500,
        core: (role == Role::Worker).then_some(0),
        restarts: 0,
        sandbox_kills: 0,
        sandbox: Some(Sandbox {
            uid: if role == Role::Supervisor { 0 } else { 65534 },
            seccomp_filters: Some(2),
            seccomp: "filter".to_owned(),
            no_new_privs: true,
            capabilities: caps.iter().map(|cap| (*cap).to_owned()).collect(),
        }),
        memory_kb: Some(41_234),
        cpu_ms: Some(12_340),
    }
}

pub(crate) fn status() -> Status {
    let mut down = backend("198.51.100.12", 1);
    down.state = BackendState::Down;
    down.since = NOW - 192;
    down.cause = "connection refused".to_owned();
    let mut draining = backend("2001:db8:1::13", 2);
    draining.admin = AdminState::Draining;
    draining.drain_left = Some(272);
    draining.backup = true;
    draining.ejected_by = vec![Ejection { worker: 1, cause: "no connection in time".to_owned() }];
    let mut leaving = backend("198.51.100.14", 3);
    leaving.state = BackendState::Leaving;
    leaving.drain_left = Some(12);
    leaving.latency_us = None;
    let counters = |pairs: &[(&str, u64)]| pairs.iter().map(|(label, n)| ((*label).to_owned(), *n)).collect();
    Status {
        version: "0.1.0".to_owned(),
        pid: 812,
        now: NOW,
        since: NOW - 90_000,
        generation: 7,
        refused_upgrade: None,
        last_reload: Some(Reload { at: NOW - 720, ok: true, text: "1 backend removed".to_owned() }),
        amendments: vec!["service web: backend 198.51.100.13 added at run time (weight 2)".to_owned()],
        layers: vec!["seccomp".to_owned(), "Landlock".to_owned()],
        nf_repeat: "repeats".to_owned(),
        verdict: Some(InstanceVerdict::Serving),
        conditions: Vec::new(),
        rules: RulesStatus { put_back: 3, missing: Vec::new(), refused_replies: 0 },
        host_set: Vec::new(),
        late_checks: LateChecks { count: 12, longest_ms: 300, last: Some(NOW - 7000) },
        kernel_path: Some(KernelPathStatus {
            off: None,
            off_reason: None,
            interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
            refused: vec!["ppp0".to_owned()],
            missed: counters(&[("opens", 12), ("stale", 3), ("torn", 0)]),
        }),
        processes: vec![
            process(Role::Supervisor, "supervisor", 812),
            process(Role::Worker, "worker[0]", 813),
            process(Role::Prober, "prober", 815),
        ],
        services: vec![service("web", vec![backend("198.51.100.11", 0), down, draining, leaving])],
        queues: vec![Queue {
            queue: 5,
            worker: 0,
            received: 3_580_245,
            waiting: 3,
            dropped_full: 12,
            dropped_socket: 4,
            flows: 12_000,
            flows_most: 262_144,
        }],
        packets: counters(&[
            ("forwarded", 3_580_000),
            ("passed_own", 245),
            ("dropped_clash", 0),
            ("kernel_forwarded", 7_000_000),
            ("kernel_returned", 0),
        ]),
        pressure: counters(&[("flow_evicted", 3)]),
        faults: counters(&[("verdict_unknown_id", 2)]),
    }
}

pub(crate) fn history() -> History {
    let mut history = History::new();
    for (n, by) in (0..).zip([By::Check, By::Packets, By::Operator, By::Reload, By::Discovery, By::Kernel]) {
        let (what, cause) = ("up -> down".to_owned(), "connection refused".to_owned());
        let address = "198.51.100.12".parse().ok();
        history.push(Event {
            at: NOW * 1000 + n,
            service: Some("web".to_owned()),
            address,
            port: None,
            what,
            cause,
            by,
        });
    }
    history
}
