//! A status as a web page: plain HTML that needs no script and loads itself anew. Whatever comes from outside is escaped.
//!
//! The exporter serves it beside the style sheet that it names (`exporter/src/style.css`).

use super::figures::{count, elapsed, latency};
use super::health::{Effect, InstanceVerdict};
use super::live::{Frame, Grade, Rates, Row};
use super::status::{BackendStatus, Process, Queue, ServiceStatus, Status};
use std::fmt::{Display, Write};

/// Seconds until a browser loads the page again.
const REFRESH: u32 = 5;

/// The whole page. `frame`: the same status compared with the one before.
#[must_use]
pub fn render(status: &Status, frame: &Frame) -> String {
    let mut out = Html(String::new());
    out.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.raw(&format!("<meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n"));
    out.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.element("title", "", &format!("loaded: {}", verdict(status.verdict).1));
    out.raw("<link rel=\"stylesheet\" href=\"style.css\">\n</head>\n<body>\n");
    head(&mut out, status, frame);
    for (service, (row, rows)) in status.services.iter().zip(&frame.services) {
        table_of(&mut out, service, (row, rows), status.now);
    }
    queues(&mut out, status);
    processes(&mut out, status);
    out.raw("<p class=\"dim\">For programs: <a href=\"metrics\">metrics</a>, <a href=\"health\">health</a>.</p>\n");
    out.raw("</body>\n</html>\n");
    out.0
}

/// The verdict with its class.
fn verdict(verdict: Option<InstanceVerdict>) -> (&'static str, &'static str) {
    match verdict {
        Some(InstanceVerdict::Serving) => ("good", "serving"),
        Some(InstanceVerdict::Impaired) => ("odd", "impaired"),
        Some(InstanceVerdict::NotServing) => ("bad", "not serving"),
        None => ("odd", "unknown"),
    }
}

fn head(out: &mut Html, status: &Status, frame: &Frame) {
    let (class, word) = verdict(status.verdict);
    out.raw("<h1>loaded ");
    out.element("span", &format!("verdict {class}"), word);
    out.raw("</h1>\n");
    let of_program = format!(
        "version {}, generation {}, up {}, {} flows",
        status.version,
        status.generation,
        elapsed(frame.up),
        count(frame.flows)
    );
    out.element("p", "dim", &of_program);
    out.element("p", "", &format!("{}; {} dropped/s", rates(&frame.rates), count(frame.rates.dropped)));
    out.element("p", "", &kernel_path(status));
    if !status.conditions.is_empty() {
        out.raw("<ul>\n");
        for condition in &status.conditions {
            let class = match condition.effect {
                Effect::Stops => "bad",
                Effect::Impairs => "odd",
                Effect::Note => "dim",
            };
            out.element("li", class, &condition.to_string());
        }
        out.raw("</ul>\n");
    }
}

fn rates(rates: &Rates) -> String {
    format!("{} new flows/s, {} packets/s, {} bit/s", count(rates.new_flows), count(rates.packets), count(rates.bits))
}

/// What share of all balanced packets no worker has met.
fn kernel_path(status: &Status) -> String {
    let of = |labels: &[&str]| -> u64 {
        labels.iter().filter_map(|label| status.packets.get(*label)).fold(0, |sum, n| sum.saturating_add(*n))
    };
    let in_kernel = of(&["kernel_forwarded", "kernel_returned"]);
    let all = in_kernel.saturating_add(of(&["forwarded", "forwarded_new", "returned"]));
    let off = status.kernel_path.as_ref().and_then(|path| path.off.as_ref());
    match (off, (u128::from(in_kernel) * 100).checked_div(u128::from(all))) {
        (Some(why), _) => format!("kernel path off: {why}"),
        (None, None) => "kernel path on, no packet yet".to_owned(),
        (None, Some(percent)) => format!("kernel path on: {percent} % of all packets so far"),
    }
}

fn table_of(out: &mut Html, service: &ServiceStatus, (row, rows): (&Row, &[Row]), now: u64) {
    out.element("h2", "", &service.name);
    let vips: Vec<_> = service.vips.iter().map(ToString::to_string).collect();
    let ports = if service.ports.is_empty() { "all ports".to_owned() } else { service.ports.join(", ") };
    let about = format!("{} {} {ports}; {}", vips.join(", "), service.protocol, service.strategy);
    out.element("p", "dim", &about);
    out.raw("<p>");
    out.element("span", class(row.grade), &service.state.to_string());
    out.text(&format!(": {} flows, {}", count(row.flows), rates(&row.rates)));
    out.raw("</p>\n");
    out.header(&["backend", "state", "for", "weight", "flows", "new/s", "packets/s", "bit/s", "check", "last result"]);
    for (backend, row) in service.backends.iter().zip(rows) {
        out.raw("<tr>");
        out.element("td", "", &row.name);
        out.element("td", &format!("left {}", class(row.grade)), &state(backend, row));
        out.cell(since(backend, now));
        out.cell(backend.weight);
        for number in [row.flows, row.rates.new_flows, row.rates.packets, row.rates.bits] {
            out.cell(count(number));
        }
        out.cell(row.latency_us.map_or_else(|| "–".to_owned(), latency));
        out.element("td", "left", &backend.cause);
        out.raw("</tr>\n");
    }
    out.raw("</table></div>\n");
}

/// How long it is what it is, or how long it may stay.
fn since(backend: &BackendStatus, now: u64) -> String {
    match backend.drain_left {
        Some(left) => format!("{} left", elapsed(left.into())),
        None => elapsed(now.saturating_sub(backend.since)),
    }
}

fn state(backend: &BackendStatus, row: &Row) -> String {
    let backup = if backend.backup { ", backup" } else { "" };
    format!("{}{backup}", row.state)
}

fn queues(out: &mut Html, status: &Status) {
    out.element("h2", "", "Queues and tables");
    out.header(&[
        "queue",
        "worker",
        "received",
        "waiting",
        "dropped: full",
        "dropped: socket",
        "flows in table",
        "full",
    ]);
    for Queue { queue, worker, received, waiting, dropped_full, dropped_socket, flows, flows_most } in &status.queues {
        out.raw("<tr>");
        out.cell(queue);
        out.cell(worker);
        for number in [*received, (*waiting).into(), (*dropped_full).into(), (*dropped_socket).into()] {
            out.cell(count(number));
        }
        out.cell(format!("{} of {}", count(*flows), count((*flows_most).into())));
        let (most, flows) = ((*flows_most).max(1), (*flows).min((*flows_most).into()));
        out.raw(&format!("<td><meter min=\"0\" max=\"{most}\" value=\"{flows}\"></meter></td>"));
        out.raw("</tr>\n");
    }
    out.raw("</table></div>\n");
    let evicted = status.pressure.get("flow_evicted").copied().unwrap_or(0);
    out.element("p", "dim", &format!("{} flows gave way to new ones, since tables were full", count(evicted)));
}

fn processes(out: &mut Html, status: &Status) {
    out.element("h2", "", "Processes");
    out.header(&["process", "pid", "state", "restarts", "sandbox kills", "memory", "CPU time"]);
    for Process { name, pid, state, serving, restarts, sandbox_kills, memory_kb, cpu_ms, .. } in &status.processes {
        out.raw("<tr>");
        out.element("td", "", name);
        out.cell(pid.map_or_else(|| "–".to_owned(), |pid| pid.to_string()));
        out.element("td", if *serving { "left good" } else { "left odd" }, state);
        out.cell(restarts);
        out.element("td", if *sandbox_kills > 0 { "bad" } else { "" }, &sandbox_kills.to_string());
        out.cell(memory_kb.map_or_else(|| "–".to_owned(), |kb| format!("{}B", count(kb.saturating_mul(1000)))));
        out.cell(cpu_ms.map_or_else(|| "–".to_owned(), |ms| format!("{}.{:02} s", ms / 1000, ms / 10 % 100)));
        out.raw("</tr>\n");
    }
    out.raw("</table></div>\n");
}

fn class(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Unusual => "odd",
        Grade::Bad => "bad",
    }
}

/// The page so far.
struct Html(String);

impl Html {
    /// Markup of ours.
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    /// Text of anybody's.
    fn text(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.raw("&amp;"),
                '<' => self.raw("&lt;"),
                '>' => self.raw("&gt;"),
                '"' => self.raw("&quot;"),
                '\'' => self.raw("&#39;"),
                // Nor may it change the direction of writing (U+202A to U+202E, U+2066 to U+2069).
                c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                    self.0.push('?');
                }
                c => self.0.push(c),
            }
        }
    }

    /// An element of this class, if any, around a text. Both names are ours.
    fn element(&mut self, name: &str, class: &str, text: &str) {
        // Writing to a String cannot fail.
        let _ = match class {
            "" => write!(self.0, "<{name}>"),
            class => write!(self.0, "<{name} class=\"{class}\">"),
        };
        self.text(text);
        let _ = write!(self.0, "</{name}>");
        if !matches!(name, "td" | "th" | "span") {
            self.raw("\n");
        }
    }

    fn cell(&mut self, value: impl Display) {
        self.element("td", "", &value.to_string());
    }

    fn header(&mut self, names: &[&str]) {
        self.raw("<div class=\"wide\"><table>\n<tr>");
        for name in names {
            let class = if matches!(*name, "state" | "last result") { "left" } else { "" };
            self.element("th", class, name);
        }
        self.raw("</tr>\n");
    }
}
