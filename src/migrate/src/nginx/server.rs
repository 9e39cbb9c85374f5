//! A server of `stream`: a service for each protocol and port.

use super::listen::{self, Listen};
use super::time::time;
use super::unknown::unknown;
use super::upstream;
use crate::model::{Judgement, Model, Note, Service, clipped, one_port};
use crate::tree::Statement;
use loaded_ipc::{MAX_IDLE, Passive, PortRange, Protocol};
use std::collections::HashSet;
use std::net::IpAddr;

/// Directives that a server takes from the block around it.
const INHERITED: [&str; 13] = [
    "allow",
    "deny",
    "js_access",
    "js_filter",
    "js_preread",
    "limit_conn",
    "proxy_bind",
    "proxy_connect_timeout",
    "proxy_download_rate",
    "proxy_protocol",
    "proxy_ssl",
    "proxy_timeout",
    "proxy_upload_rate",
];

/// How nginx carries bytes: packets are not carried by anybody.
const CARRYING: [&str; 14] = [
    "proxy_buffer_size",
    "proxy_socket_keepalive",
    "proxy_half_close",
    "tcp_nodelay",
    "proxy_requests",
    "proxy_responses",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "preread_buffer_size",
    "preread_timeout",
    "resolver",
    "resolver_timeout",
    "ssl_preread",
];

/// What is around a server.
pub(super) struct Around<'s> {
    pub(super) upstreams: &'s [&'s Statement],
    pub(super) defaults: &'s [&'s Statement],
    /// What listeners without an address listen on.
    pub(super) vips: &'s [IpAddr],
}

/// Whether a directive of `stream` is one of its servers' too.
pub(super) fn inherits(word: &str) -> bool {
    INHERITED.contains(&word) || CARRYING.contains(&word)
}

/// What a server says itself takes the place of what is said around it: ngx_stream_access_module has one list of rules.
fn stands_for(word: &str) -> &str {
    if word == "deny" { "allow" } else { word }
}

/// Adds what becomes of it. `used` gets the names of upstreams, `heeded` the lines of defaults.
pub(super) fn services(
    server: &Statement,
    around: &Around<'_>,
    used: &mut HashSet<String>,
    heeded: &mut HashSet<usize>,
    model: &mut Model,
) {
    let own = |name: &str| server.inner().iter().any(|line| stands_for(line.word(0)) == stands_for(name));
    let inherited = around.defaults.iter().copied().filter(|line| !own(line.word(0)));
    let lines: Vec<&Statement> = server.inner().iter().chain(inherited).collect();
    if let Some((line, why)) = lines.iter().find_map(|line| Some((line, refusal(line)?))) {
        let why = format!("the server of {} is left out: {why}", server.at);
        return model.notes.push(Note::lost(&line.at, line.say(), why));
    }
    let Some(pass) = lines.iter().find(|line| line.word(0) == "proxy_pass") else {
        return model.notes.push(Note::lost(
            &server.at,
            "server",
            "it has no proxy_pass, so there is nothing to balance",
        ));
    };
    heeded.extend(around.defaults.iter().map(|line| line.at.line));
    let group = around.upstreams.iter().find(|group| group.word(1) == pass.word(1));
    used.extend(group.map(|group| group.word(1).to_owned()));
    let mut first = true;
    for (protocol, ports, vips) in listeners(server, around.vips, model) {
        let mut service = Service::new(&server.at, clipped(pass.word(1)), protocol);
        service.vips = vips;
        service.ports = vec![ports];
        let port = (ports == one_port(ports.low)).then_some(ports.low);
        match group {
            Some(group) => upstream::join(group, port, &mut service),
            None => upstream::alone(&pass.at, pass.word(1), port, &mut service),
        }
        lines.iter().for_each(|line| directive(line, &mut service));
        if first {
            let why = "nginx connects by itself, loaded sends the client's packets on: backends see the client's address, \
                       and must answer through this host (docs/install.md)";
            service.notes.push(Note::remark(&pass.at, pass.say(), why));
        } else {
            // The same again, of the same lines.
            service.notes.clear();
        }
        first = false;
        model.services.push(service);
    }
}

/// Why a directive takes its server with it: without it others would be served, or otherwise.
fn refusal(line: &Statement) -> Option<&'static str> {
    let word = line.word(0);
    Some(match word {
        "allow" | "deny" if line.word(1) != "all" || word == "deny" => {
            "loaded lets every client in; write the access rule for nftables, take it out here, and migrate again"
        }
        "proxy_protocol" | "proxy_ssl" if line.word(1) == "on" => {
            "backends expect what loaded does not add to a connection"
        }
        "proxy_pass" if line.word(1).contains('$') => "where it goes depends on the connection's content",
        "return" | "pass" => "nginx itself answers",
        "limit_conn" => "loaded does not limit clients",
        // 0, nginx's default, is no limit.
        "proxy_upload_rate" | "proxy_download_rate" if line.word(1) != "0" => "loaded does not limit clients",
        _ if word.starts_with("ssl_") && word != "ssl_preread" => "loaded ends no TLS; the backends would have to",
        _ if word.starts_with("js_") => "a script decides",
        _ => return None,
    })
}

/// The listeners, those of one protocol and port together.
fn listeners(server: &Statement, any: &[IpAddr], model: &mut Model) -> Vec<(Protocol, PortRange, Vec<IpAddr>)> {
    let mut found: Vec<(Protocol, PortRange, Vec<IpAddr>)> = Vec::new();
    for line in server.inner().iter().filter(|line| line.word(0) == "listen") {
        let Listen { protocol, ports, address, families, tuned } = match listen::read(line) {
            Ok(listen) => listen,
            Err(why) => {
                model.notes.push(Note::lost(&line.at, line.say(), why));
                continue;
            }
        };
        let of_family = |vip: &&IpAddr| if vip.is_ipv4() { families.0 } else { families.1 };
        let vips: Vec<IpAddr> = match address {
            Some(address) => vec![address],
            None => any.iter().filter(of_family).copied().collect(),
        };
        if vips.is_empty() {
            let why = "it listens on every address of its host, and loaded needs to know which: name them with --vip";
            model.notes.push(Note::lost(&line.at, line.say(), why));
            continue;
        }
        if tuned {
            model.notes.push(Note::remark(&line.at, line.say(), "options of a socket; loaded listens on none"));
        }
        match found.iter_mut().find(|(kind, range, _)| (*kind, *range) == (protocol, ports)) {
            Some((_, _, known)) => {
                let new: Vec<_> = vips.into_iter().filter(|vip| !known.contains(vip)).collect();
                known.extend(new);
            }
            None => found.push((protocol, ports, vips)),
        }
    }
    found
}

fn directive(line: &Statement, service: &mut Service) {
    let millis = || time(line.word(1));
    let mut lost = |why: &str| service.notes.push(Note::lost(&line.at, line.say(), why));
    match line.word(0) {
        "listen" | "proxy_pass" => {}
        "proxy_timeout" => match millis().and_then(|millis| u32::try_from(millis.div_ceil(1000)).ok()) {
            Some(seconds) if (1..=MAX_IDLE).contains(&seconds) => service.idle = Some(seconds),
            _ => lost("loaded takes 1s to 7d"),
        },
        "proxy_connect_timeout" => match (millis().and_then(|millis| u32::try_from(millis).ok()), &mut service.passive)
        {
            (Some(millis), Judgement::On { timeout, .. }) if Passive::TIMEOUTS.contains(&millis) => {
                *timeout = Some(millis);
            }
            (Some(_), Judgement::Off | Judgement::Unsaid) => lost("workers judge no backends by their answers here"),
            _ => lost("loaded takes 50ms to 1m"),
        },
        "health_check" => upstream::check(line, service),
        "health_check_timeout" => lost("write timeout into [service.check]"),
        "allow" | "proxy_protocol" | "proxy_ssl" => {}
        "proxy_bind" if line.word(1) == "$remote_addr" => {}
        "proxy_bind" => lost("backends see the client's address"),
        "access_log" | "error_log" => lost("loaded logs no connections; see loaded flows"),
        word if CARRYING.contains(&word) => {
            service.notes.push(Note::remark(&line.at, line.say(), "loaded sends packets on and holds no bytes back"));
        }
        word => lost(unknown(word)),
    }
}
