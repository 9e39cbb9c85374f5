//! nginx.conf: its block `stream`, or a file that is included there. A server becomes a service, for each protocol and port on
//! which it listens; the upstream that it passes to gives the backends.
//!
//! Source of the grammar: nginx.org/en/docs/stream, and src/core/ngx_conf_file.c for how a word is written.

mod listen;
mod server;
mod time;
mod tokens;
mod unknown;
mod upstream;

use crate::model::{Model, Note};
use crate::position::Unreadable;
use crate::tree::Statement;
use loaded_config::Source;
use std::collections::HashSet;
use std::net::IpAddr;
use unknown::unknown;

/// What nginx's own processes need. No client misses it.
const OWN: [&str; 17] = [
    "daemon",
    "error_log",
    "events",
    "lock_file",
    "load_module",
    "master_process",
    "pcre_jit",
    "pid",
    "thread_pool",
    "timer_resolution",
    "user",
    "worker_cpu_affinity",
    "worker_priority",
    "worker_processes",
    "worker_rlimit_core",
    "worker_rlimit_nofile",
    "working_directory",
];

/// Directives of `stream` that hold for all of its servers unless they say otherwise.
type Defaults<'s> = Vec<&'s Statement>;

/// Reads a file. `vips` stand for listeners without an address.
pub(crate) fn read(source: &Source, vips: &[IpAddr]) -> Result<Model, Unreadable> {
    let statements = tokens::statements(source)?;
    let mut model = Model::default();
    let has_stream = statements.iter().any(|statement| matches!(statement.word(0), "stream" | "http" | "events"));
    if !has_stream {
        // What stands in a block `stream`, in a file of its own.
        stream(&statements, vips, &mut model);
        return Ok(model);
    }
    for statement in &statements {
        match statement.word(0) {
            "stream" => stream(statement.inner(), vips, &mut model),
            own if OWN.contains(&own) => {
                model.notes.push(Note::remark(&statement.at, statement.say(), "a setting of nginx's own processes"));
            }
            "http" | "mail" => {
                let why = "loaded balances packets and reads no requests; let nginx go on doing this";
                model.notes.push(Note::lost(&statement.at, statement.say(), why));
            }
            word => model.notes.push(Note::lost(&statement.at, statement.say(), unknown(word))),
        }
    }
    Ok(model)
}

fn stream(inner: &[Statement], vips: &[IpAddr], model: &mut Model) {
    let named = |name: &'static str| inner.iter().filter(move |statement| statement.word(0) == name);
    let upstreams: Vec<_> = named("upstream").collect();
    let mut defaults = Defaults::new();
    for statement in inner {
        match statement.word(0) {
            "upstream" | "server" => {}
            word if server::inherits(word) => defaults.push(statement),
            "log_format" | "access_log" | "error_log" | "open_log_file_cache" => {
                model.notes.push(Note::lost(
                    &statement.at,
                    statement.say(),
                    "loaded logs no connections; see loaded flows",
                ));
            }
            word => model.notes.push(Note::lost(&statement.at, statement.say(), unknown(word))),
        }
    }
    let mut used = HashSet::new();
    let mut heeded = HashSet::new();
    for statement in named("server") {
        let around = server::Around { upstreams: &upstreams, defaults: &defaults, vips };
        server::services(statement, &around, &mut used, &mut heeded, model);
    }
    for upstream in upstreams.iter().filter(|upstream| !used.contains(upstream.word(1))) {
        model.notes.push(Note::lost(&upstream.at, upstream.say(), "no server that was carried over passes to it"));
    }
    for default in defaults.iter().filter(|default| !heeded.contains(&default.at.line)) {
        model.notes.push(Note::remark(&default.at, default.say(), "no server that was carried over heeds it"));
    }
}
