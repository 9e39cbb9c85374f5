//! A status as metrics, in two formats of one content: the text format of Prometheus, version 0.0.4
//! (prometheus.io/docs/instrumenting/exposition_formats, "Text-based format"), for files, and OpenMetrics 1.0
//! (prometheus.io/docs/specs/om/open_metrics_spec), for scrapers.

mod exposition;

use super::checks::BOUNDS;
use super::health::InstanceVerdict;
use super::status::{AdminState, BackendStatus, ServiceState, ServiceStatus, Status};
use exposition::{Format, MetricKind, Page};

/// The whole page in the text format. The name of a metric and its meaning never change.
#[must_use]
pub fn render(status: &Status) -> String {
    page(status, Format::Text)
}

/// The same as OpenMetrics.
#[must_use]
pub fn open_metrics(status: &Status) -> String {
    page(status, Format::OpenMetrics)
}

fn page(status: &Status, format: Format) -> String {
    let mut out = Page { text: String::new(), format };
    instance(&mut out, status);
    processes(&mut out, status);
    late_checks(&mut out, status);
    packets(&mut out, status);
    services(&mut out, status);
    checks(&mut out, status);
    backends(&mut out, status);
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

fn instance(out: &mut Page, status: &Status) {
    let version = &[("version", status.version.as_str())];
    out.family("loaded_info", MetricKind::Gauge, "Always 1; the version is a label.").one(version, 1);
    out.family("loaded_start_time_seconds", MetricKind::Gauge, "When the instance was started, seconds since 1970.")
        .one(&[], status.since);
    out.family("loaded_generation", MetricKind::Gauge, "Number of the configuration that is served.")
        .one(&[], status.generation);
    if let Some(verdict) = status.verdict {
        let mut family =
            out.family("loaded_verdict", MetricKind::Gauge, "1 for the verdict about the instance, else 0.");
        for one in InstanceVerdict::ALL {
            family.one(&[("verdict", one.label())], u8::from(one == verdict));
        }
    }
    let help = "How often rules that another program had removed were put back.";
    out.family("loaded_rules_put_back_total", MetricKind::Counter, help).one(&[], status.rules.put_back);
    let help = "Whether rules are missing that could not be put back.";
    out.family("loaded_rules_missing", MetricKind::Gauge, help).one(&[], u8::from(!status.rules.missing.is_empty()));
    let help =
        "Packets in a backend's name that came by another interface than the route to the backend leads through.";
    out.family("loaded_refused_replies_total", MetricKind::Counter, help).one(&[], status.rules.refused_replies);
    if let Some(reload) = &status.last_reload {
        let ok = u8::from(reload.ok);
        out.family("loaded_last_reload_success", MetricKind::Gauge, "Whether the last reload succeeded.").one(&[], ok);
        out.family(
            "loaded_last_reload_time_seconds",
            MetricKind::Gauge,
            "When the last reload was, seconds since 1970.",
        )
        .one(&[], reload.at);
    }
}

fn processes(out: &mut Page, status: &Status) {
    let mut up = out.family("loaded_process_up", MetricKind::Gauge, "Whether a process runs and serves.");
    for process in &status.processes {
        up.one(&[("process", &process.name)], u8::from(process.serving));
    }
    let help = "How often a process was restarted after it died.";
    let mut restarts = out.family("loaded_process_restarts_total", MetricKind::Counter, help);
    for process in &status.processes {
        restarts.one(&[("process", &process.name)], process.restarts);
    }
    let help = "How often its own sandbox killed a process: each time a security event.";
    let mut kills = out.family("loaded_process_sandbox_kills_total", MetricKind::Counter, help);
    for process in &status.processes {
        kills.one(&[("process", &process.name)], process.sandbox_kills);
    }
    let mut memory =
        out.family("loaded_process_resident_memory_bytes", MetricKind::Gauge, "Resident memory of a process.");
    for process in &status.processes {
        if let Some(kb) = process.memory_kb {
            memory.one(&[("process", &process.name)], kb.saturating_mul(1024));
        }
    }
    let help = "Processor time that a process has used; starts at 0 when it is replaced.";
    let mut cpu = out.family("loaded_process_cpu_seconds_total", MetricKind::Counter, help);
    for process in &status.processes {
        if let Some(ms) = process.cpu_ms {
            cpu.one(&[("process", &process.name)], seconds(ms));
        }
    }
}

/// Milliseconds as seconds.
fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn late_checks(out: &mut Page, status: &Status) {
    let help = "Checks of backends that began more than 250 ms after they were due.";
    out.family("loaded_late_checks_total", MetricKind::Counter, help).one(&[], status.late_checks.count);
}

fn packets(out: &mut Page, status: &Status) {
    let mut family = out.family("loaded_packets_total", MetricKind::Counter, "Packets by outcome.");
    for (label, count) in &status.packets {
        family.one(&[("outcome", label)], count);
    }
    let mut family =
        out.family("loaded_pressure_total", MetricKind::Counter, "What flow tables did because they were full.");
    for (label, count) in &status.pressure {
        family.one(&[("what", label)], count);
    }
    if let Some(path) = &status.kernel_path {
        let help = "Whether the kernel sends packets of known flows on without a worker.";
        out.family("loaded_kernel_path", MetricKind::Gauge, help).one(&[], u8::from(path.off.is_none()));
        if let Some(reason) = &path.off_reason {
            let help = "Why the kernel sends no packets on; not there while it does.";
            out.family("loaded_kernel_path_off", MetricKind::Gauge, help).one(&[("reason", reason)], 1);
        }
        let help = "Packets that the kernel path has left to the workers.";
        let mut family = out.family("loaded_kernel_path_missed_packets_total", MetricKind::Counter, help);
        for (reason, count) in &path.missed {
            family.one(&[("reason", reason)], count);
        }
    }
    let help = "What went wrong between workers, kernel and prober.";
    let mut family = out.family("loaded_faults_total", MetricKind::Counter, help);
    for (label, count) in &status.faults {
        family.one(&[("fault", label)], count);
    }
    let name = "loaded_queue_received_packets_total";
    let mut family = out.family(name, MetricKind::Counter, "Packets a worker received from its queue.");
    for queue in &status.queues {
        family.one(&[("queue", &queue.queue.to_string()), ("worker", &queue.worker.to_string())], queue.received);
    }
    let mut family = out.family("loaded_queue_waiting_packets", MetricKind::Gauge, "Packets waiting for a verdict.");
    for queue in &status.queues {
        family.one(&[("queue", &queue.queue.to_string())], queue.waiting);
    }
    let mut family = out.family("loaded_table_flows", MetricKind::Gauge, "Flows in a worker's table.");
    for queue in &status.queues {
        family.one(&[("worker", &queue.worker.to_string())], queue.flows);
    }
    let help = "Maximum number of flows in a worker's table.";
    let mut family = out.family("loaded_table_flows_limit", MetricKind::Gauge, help);
    for queue in &status.queues {
        family.one(&[("worker", &queue.worker.to_string())], queue.flows_most);
    }
    let help = "Packets the kernel dropped before a worker saw them.";
    let mut family = out.family("loaded_queue_dropped_packets_total", MetricKind::Counter, help);
    for queue in &status.queues {
        let number = queue.queue.to_string();
        family.one(&[("queue", &number), ("reason", "queue_full")], queue.dropped_full);
        family.one(&[("queue", &number), ("reason", "socket_full")], queue.dropped_socket);
    }
}

fn services(out: &mut Page, status: &Status) {
    let mut family = out.family("loaded_service_state", MetricKind::Gauge, "1 for the state a service is in, else 0.");
    for service in &status.services {
        for state in ServiceState::ALL {
            let is = u8::from(service.state == state);
            family.one(&[("service", &service.name), ("state", state.label())], is);
        }
    }
    let help = "A number for all that a service chooses by: where it is the same, and the same backends are up, a client gets \
                the same backend.";
    let mut family = out.family("loaded_service_choice", MetricKind::Gauge, help);
    for service in &status.services {
        if let Some(choice) = service.choice {
            family.one(&[("service", &service.name)], choice);
        }
    }
}

fn checks(out: &mut Page, status: &Status) {
    let of = || status.services.iter().filter_map(|service| Some((service.name.as_str(), service.checks.as_ref()?)));
    let help = "How long checks took that passed: each that changed a state, and one in 5 s for each backend.";
    let mut family = out.family("loaded_check_duration_seconds", MetricKind::Histogram, help);
    for (service, figures) in of() {
        let mut sum = 0_u64;
        let bounds = BOUNDS.iter().map(|us| bound(*us)).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(figures.passed) {
            sum = sum.saturating_add(count);
            family.part("_bucket", &[("service", service), ("le", &bound)], sum);
        }
        family.part("_sum", &[("service", service)], seconds(figures.passed_us / 1000));
        family.part("_count", &[("service", service)], sum);
    }
    let help = "Checks that failed: each that changed a state, and one in 5 s for each backend.";
    let mut family = out.family("loaded_check_failures_total", MetricKind::Counter, help);
    for (service, figures) in of() {
        for (cause, count) in &figures.failed {
            family.one(&[("service", service), ("cause", cause)], count);
        }
    }
}

/// A bound as OpenMetrics wants it ("Considerations: Canonical Numbers"): 0.005, 1.0
fn bound(us: u32) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

fn backends(out: &mut Page, status: &Status) {
    let each = |out: &mut Page, name, kind, help, value: &dyn Fn(&BackendStatus) -> Option<String>| {
        let mut family = out.family(name, kind, help);
        for (service, backend) in all_backends(status) {
            if let Some(value) = value(backend) {
                with_backend(service, backend, &[], |labels| family.one(labels, &value));
            }
        }
    };
    let flag = |is: bool| Some(u8::from(is).to_string());
    let gauge = MetricKind::Gauge;
    each(out, "loaded_backend_up", gauge, "Whether a backend is up, by its checks.", &|b| flag(b.counts_as_up()));
    each(out, "loaded_backend_enabled", gauge, "Whether the operator has a backend enabled.", &|b| {
        flag(b.admin == AdminState::Enabled)
    });
    each(out, "loaded_backend_draining", gauge, "Whether a backend keeps its flows and gets no new ones.", &|b| {
        flag(b.drain_left.is_some())
    });
    each(out, "loaded_backend_drain_seconds", gauge, "How long a draining backend may keep its flows.", &|b| {
        b.drain_left.map(|seconds| seconds.to_string())
    });
    each(out, "loaded_backend_weight", gauge, "Weight of a backend.", &|b| Some(b.weight.to_string()));
    each(
        out,
        "loaded_backend_ejected_workers",
        gauge,
        "Workers that have ejected a backend, by passive health.",
        &|b| Some(b.ejected_by.len().to_string()),
    );
    each(out, "loaded_backend_check_latency_seconds", gauge, "Duration of the last check.", &|b| {
        b.latency_us.map(|us| format!("{}.{:06}", us / 1_000_000, us % 1_000_000))
    });
    each(out, "loaded_backend_flows", gauge, "Flows a backend has now.", &|b| Some(b.flows.to_string()));
    each(out, "loaded_backend_new_flows_total", MetricKind::Counter, "Flows assigned to a backend.", &|b| {
        Some(b.new_flows.to_string())
    });
    let both = |out: &mut Page, name, help, value: fn(&BackendStatus) -> [u64; 2]| {
        let mut family = out.family(name, MetricKind::Counter, help);
        for (service, backend) in all_backends(status) {
            for (direction, value) in ["to", "from"].into_iter().zip(value(backend)) {
                with_backend(service, backend, &[("direction", direction)], |labels| family.one(labels, value));
            }
        }
    };
    both(out, "loaded_backend_packets_total", "Packets to and from a backend.", |b| [b.packets_to, b.packets_from]);
    both(out, "loaded_backend_bytes_total", "Bytes to and from a backend, with IP headers.", |b| {
        [b.bytes_to, b.bytes_from]
    });
}

fn all_backends(status: &Status) -> impl Iterator<Item = (&ServiceStatus, &BackendStatus)> {
    status.services.iter().flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
}

/// One backend may be there twice for a while, new and leaving: the index tells them apart.
fn with_backend(
    service: &ServiceStatus,
    backend: &BackendStatus,
    more: &[(&str, &str)],
    then: impl FnOnce(&[(&str, &str)]),
) {
    let (name, index) = (backend.destination().to_string(), backend.index.to_string());
    let mut labels = vec![("service", service.name.as_str()), ("backend", &name), ("index", &index)];
    labels.extend_from_slice(more);
    then(&labels);
}
