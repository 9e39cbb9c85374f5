//! Status and history as plain text, for an operator woken at night: first what is wrong, then the rest.

mod troubles;

use super::Event;
use super::figures::{count, elapsed, latency, table, time};
use super::status::{
    AdminState, BackendState, BackendStatus, KernelPathStatus, Sandbox, ServiceStatus, SettingStatus, Status,
};
use loaded_ipc::Destination;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use troubles::{ejections, troubles};

/// The whole status, 80 to 110 columns wide. The first line is the summary.
#[must_use]
pub fn status(status: &Status) -> String {
    let status = &cleaned(status);
    let mut out = format!("{}\n", verdict(status));
    for trouble in troubles(status) {
        let _ = writeln!(out, "! {trouble}");
    }
    let up = elapsed(status.now.saturating_sub(status.since));
    let _ = write!(out, "\nloaded {}, pid {}, up {up}", status.version, status.pid);
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| reload.ok) {
        let _ = write!(out, "; last reload {} ago: {}", elapsed(status.now.saturating_sub(reload.at)), reload.text);
    }
    out.push('\n');
    if !status.amendments.is_empty() {
        out.push_str("in no file (loaded config show --save writes it there):\n");
        status.amendments.iter().for_each(|line| _ = writeln!(out, "  {line}"));
    }
    for service in &status.services {
        out.push('\n');
        write_service(&mut out, service, status.now);
    }
    out.push('\n');
    write_processes(&mut out, status);
    out.push('\n');
    write_queues(&mut out, status);
    write_kernel_path(&mut out, status);
    for SettingStatus { name, old, value } in &status.host_set {
        let _ = writeln!(out, "host: {name}={value} is set, and {old} put back at the end");
    }
    out.push('\n');
    write_counters(&mut out, status);
    out
}

/// One change a line, oldest first.
#[must_use]
pub fn history(events: &[Event]) -> String {
    if events.is_empty() {
        return "no change of membership since the start\n".to_owned();
    }
    let events = cleaned(&events.to_vec());
    let mut rows = vec![["TIME (UTC)", "SERVICE", "BACKEND", "CHANGE", "BY", "CAUSE"].map(str::to_owned).to_vec()];
    rows.extend(events.iter().map(|event| {
        let Event { at, service, address, port, what, cause, by } = event;
        let backend = address.map(|address| Destination { address, port: *port }.to_string());
        let backend = backend.unwrap_or_else(|| "-".to_owned());
        let service = service.clone().unwrap_or_else(|| "-".to_owned());
        vec![time(*at), service, backend, what.clone(), by.to_string(), cause.clone()]
    }));
    table(&rows, &[false; 6])
}

/// One event as one line: `2026-11-23 23:34:38.123 web 198.51.100.11: up -> down (check: connection refused)`.
#[must_use]
pub fn event(event: &Event) -> String {
    let Event { at, service, address, port, what, cause, by } = &cleaned(event);
    let backend = address.map(|address| Destination { address, port: *port }.to_string());
    let about: Vec<_> = service.iter().chain(&backend).map(String::as_str).collect();
    let about = if about.is_empty() { String::new() } else { format!(" {}:", about.join(" ")) };
    format!("{}{about} {what} ({by}: {cause})", time(*at))
}

/// The value with every text in it made [`plain`] and one line long, so that no name or cause can forge a line or move the
/// cursor.
pub(super) fn cleaned<T: Serialize + DeserializeOwned + Clone>(value: &T) -> T {
    let clean = serde_json::to_value(value).map(clean).and_then(serde_json::from_value);
    // What came as JSON can be written as JSON.
    clean.unwrap_or_else(|_| value.clone())
}

fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))),
        Value::Array(values) => values.into_iter().map(clean).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (plain(&key).replace('\n', " "), clean(value))).collect()
        }
        other => other,
    }
}

/// Removes characters that move a terminal's cursor or reverse its text. Newlines stay.
#[must_use]
pub fn plain(text: &str) -> String {
    let bad = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if bad(c) { '?' } else { c }).collect()
}

/// "serving, generation 7, 2 of 3 backends up"
fn verdict(status: &Status) -> String {
    let backends = || status.services.iter().flat_map(|service| &service.backends);
    let staying = || backends().filter(|backend| backend.state != BackendState::Leaving && backend.confirmed);
    let (all, up) = (staying().count(), staying().filter(|backend| backend.counts_as_up()).count());
    let word = status.verdict.map_or_else(|| "verdict unknown".to_owned(), |verdict| verdict.to_string());
    let mut line = format!("{word}, generation {}, {up} of {all} backends up", status.generation);
    for (admin, word) in [(AdminState::Draining, "draining"), (AdminState::Disabled, "disabled")] {
        let count = staying().filter(|backend| backend.admin == admin).count();
        if count > 0 {
            let _ = write!(line, ", {count} {word}");
        }
    }
    line
}

fn write_service(out: &mut String, service: &ServiceStatus, now: u64) {
    let vips = service.vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let ports = if service.ports.is_empty() { "every port".to_owned() } else { service.ports.join(", ") };
    let _ = writeln!(out, "service {}: {}", service.name, service.state);
    let _ = writeln!(out, "  answers    {} {ports} on {vips}, mode {}", service.protocol, service.mode);
    let affinity = service.affinity.as_deref().unwrap_or("no affinity");
    let _ = writeln!(out, "  strategy   {}, {affinity}", service.strategy);
    if let Some(choice) = service.choice {
        let _ = writeln!(
            out,
            "  choice     {choice}: where it is the same, and the same backends are up, a client gets the same backend"
        );
    }
    let _ = writeln!(out, "  policy     {}", service.policy);
    for (key, text) in [("check", &service.check), ("passive", &service.passive), ("discover", &service.discover)] {
        if let Some(text) = text {
            let _ = writeln!(out, "  {key:<9}  {text}");
        }
    }
    let heads = ["BACKEND", "WEIGHT", "STATE", "FOR", "CHECK", "FLOWS", "NEW", "PKTS TO", "FROM", "BYTES TO", "FROM"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(service.backends.iter().map(|backend| {
        let latency = backend.latency_us.map_or_else(|| "-".to_owned(), latency);
        let mut row = vec![backend.destination().to_string(), backend.weight.to_string(), backend.state.to_string()];
        row.extend([elapsed(now.saturating_sub(backend.since)), latency]);
        let BackendStatus { flows, new_flows, packets_to, packets_from, bytes_to, bytes_from, .. } = backend;
        row.extend([flows, new_flows, packets_to, packets_from, bytes_to, bytes_from].map(|n| count(*n)));
        row
    }));
    let right = [false, true, false, true, true, true, true, true, true, true, true];
    let text = table(&rows, &right);
    let mut lines = text.lines();
    let _ = writeln!(out, "  {}", lines.next().unwrap_or_default());
    for (line, backend) in lines.zip(&service.backends) {
        let _ = writeln!(out, "  {line}");
        let notes = notes(backend);
        if !notes.is_empty() {
            let _ = writeln!(out, "    {}", notes.join("; "));
        }
    }
}

/// What is unusual about a backend.
fn notes(backend: &BackendStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if backend.state == BackendState::Down {
        notes.push(backend.cause.clone());
    }
    match (backend.admin, backend.state == BackendState::Leaving, backend.drain_left) {
        (AdminState::Disabled, ..) => notes.push("disabled".to_owned()),
        (_, true, Some(left)) => notes.push(format!("keeps its flows for another {left} s")),
        (AdminState::Draining, _, Some(left)) => notes.push(format!("draining, {left} s left")),
        (AdminState::Draining, _, None) => notes.push("draining".to_owned()),
        _ => {}
    }
    if let Some(left) = backend.slow_start_left {
        notes.push(format!("slow start, {left} s left"));
    }
    if backend.backup {
        notes.push("backup".to_owned());
    }
    match (backend.discovered, backend.confirmed) {
        (true, true) => notes.push("discovered, not configured".to_owned()),
        (true, false) => notes.push("discovered, not configured, no check has passed yet".to_owned()),
        (false, _) => {}
    }
    if !backend.ejected_by.is_empty() {
        notes.push(ejections(backend));
    }
    notes
}

fn write_processes(out: &mut String, status: &Status) {
    let heads = ["PROCESS", "PID", "CORE", "STATE", "FOR", "RESTARTS", "MEMORY", "SANDBOX"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    rows.extend(status.processes.iter().map(|process| {
        vec![
            process.name.clone(),
            or_dash(process.pid.map(|pid| pid.to_string())),
            or_dash(process.core.map(|core| core.to_string())),
            process.state.clone(),
            elapsed(status.now.saturating_sub(process.since)),
            process.restarts.to_string(),
            or_dash(process.memory_kb.map(|kb| count(kb.saturating_mul(1024)))),
            or_dash(process.sandbox.as_ref().map(sandbox)),
        ]
    }));
    out.push_str(&table(&rows, &[false, true, true, false, true, true, true, false]));
    if !status.layers.is_empty() {
        let _ = writeln!(out, "layers that this kernel has: {}", status.layers.join(", "));
    }
    if !status.nf_repeat.is_empty() {
        let _ = writeln!(out, "NF_REPEAT on this kernel: {}", status.nf_repeat);
    }
}

/// "uid 65534, seccomp 2, NET_ADMIN"
fn sandbox(sandbox: &Sandbox) -> String {
    let seccomp = match (sandbox.seccomp.as_str(), sandbox.seccomp_filters) {
        ("filter", Some(filters)) => format!("seccomp {filters}"),
        ("filter", None) => "seccomp".to_owned(),
        ("none", _) => "NO SECCOMP".to_owned(),
        (other, _) => format!("seccomp {other}"),
    };
    let gain = if sandbox.no_new_privs { "" } else { ", MAY GAIN RIGHTS" };
    let names: Vec<_> = sandbox.capabilities.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    let caps = match names.as_slice() {
        [] => "no capability".to_owned(),
        few if few.len() <= 3 => few.join(" "),
        many => format!("{} capabilities", many.len()),
    };
    format!("uid {}, {seccomp}{gain}, {caps}", sandbox.uid)
}

fn write_queues(out: &mut String, status: &Status) {
    let heads = ["QUEUE", "WORKER", "RECEIVED", "WAITING", "DROPPED: QUEUE FULL", "DROPPED: SOCKET FULL"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(status.queues.iter().map(|queue| {
        let drops = [queue.dropped_full.to_string(), queue.dropped_socket.to_string()];
        let mut row = vec![queue.queue.to_string(), queue.worker.to_string(), queue.received.to_string()];
        row.push(queue.waiting.to_string());
        row.extend(drops);
        row
    }));
    out.push_str(&table(&rows, &[true; 6]));
}

/// "kernel path: 97 % of all packets, by eth0, eth1; left to the workers: opens 12, stale 3"
fn write_kernel_path(out: &mut String, status: &Status) {
    let Some(KernelPathStatus { off, interfaces, refused, missed, .. }) = &status.kernel_path else { return };
    if let Some(why) = off {
        let _ = writeln!(out, "kernel path: off: {why}");
        return;
    }
    let of = |label: &str| status.packets.get(label).copied().unwrap_or(0);
    let forwarded = of("kernel_forwarded").saturating_add(of("kernel_returned"));
    let all = status.packets.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let share = u128::from(forwarded) * 100 / u128::from(all.max(1));
    let by = if interfaces.is_empty() { "no interface".to_owned() } else { interfaces.join(", ") };
    let _ = write!(out, "kernel path: {share} % of all packets, by {by}");
    if !refused.is_empty() {
        let _ = write!(out, "; not by {}", refused.join(", "));
    }
    let missed = missed.iter().filter(|(_, count)| **count > 0);
    let missed: Vec<_> = missed.map(|(why, count)| format!("{why} {count}")).collect();
    if !missed.is_empty() {
        let _ = write!(out, "; left to the workers: {}", missed.join(", "));
    }
    out.push('\n');
}

/// The non-zero ones.
fn write_counters(out: &mut String, status: &Status) {
    let counted = |map: &BTreeMap<String, u64>| {
        let counted = map.iter().filter(|(_, count)| **count > 0);
        counted.map(|(label, count)| vec![label.clone(), count.to_string()]).collect::<Vec<_>>()
    };
    let (packets, pressure, faults) = (&status.packets, &status.pressure, &status.faults);
    for (head, map) in [("PACKETS", packets), ("PRESSURE", pressure), ("FAULTS", faults)] {
        let rows = counted(map);
        if !rows.is_empty() {
            let mut all = vec![vec![head.to_owned(), String::new()]];
            all.extend(rows);
            out.push_str(&table(&all, &[false, true]));
        }
    }
}
