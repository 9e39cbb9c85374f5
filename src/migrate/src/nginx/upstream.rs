//! A group of servers to pass to, or the one server that `proxy_pass` names.

use super::time::time;
use super::unknown::unknown;
use crate::model::{Backend, Check, INTERVAL, Judgement, Kind, Note, Service, number};
use crate::position::Position;
use crate::tree::Statement;
use loaded_config::MAGLEV_SEED;
use loaded_ipc::{Affinity, Passive, Protocol, Strategy};
use std::net::{IpAddr, SocketAddr};

/// What a server says of failed connections: `max_fails` and `fail_timeout`. `None`: nginx's default, 1 and 10 seconds.
type Failures = (Option<u8>, Option<u32>);

/// Puts the group's servers and strategy into the service. `port`: where its clients come to, if that is one port.
pub(super) fn join(upstream: &Statement, port: Option<u16>, service: &mut Service) {
    let mut failures: Vec<Failures> = Vec::new();
    for line in upstream.inner() {
        match line.word(0) {
            "server" => failures.extend(server(line, port, service)),
            "least_conn" => service.strategy = Strategy::Weighted,
            "hash" => hash(line, service),
            "zone" => service.notes.push(Note::remark(&line.at, line.say(), "memory that nginx's processes share")),
            "random" | "least_time" => {
                service.strategy = if line.word(0) == "random" { Strategy::RoundRobin } else { Strategy::Weighted };
                service.notes.push(Note::lost(
                    &line.at,
                    line.say(),
                    "loaded has no such strategy; the nearest is used",
                ));
            }
            word => service.notes.push(Note::lost(&line.at, line.say(), unknown(word))),
        }
    }
    judge(&failures, &upstream.at, service);
}

/// The one server.
pub(super) fn alone(at: &Position, target: &str, port: Option<u16>, service: &mut Service) {
    match endpoint(target) {
        Ok(end) => push(at, end, port, service),
        Err(why) => service.notes.push(Note::lost(at, target, why)),
    }
    judge(&[(None, None)], at, service);
}

fn push(at: &Position, (address, to): (IpAddr, Option<u16>), port: Option<u16>, service: &mut Service) {
    let to = to.filter(|to| Some(*to) != port);
    service.backends.push(Backend { at: at.clone(), address, port: to, weight: 1, backup: false });
}

fn endpoint(text: &str) -> Result<(IpAddr, Option<u16>), &'static str> {
    if text.starts_with("unix:") {
        return Err("a backend has an address; loaded reaches no unix sockets");
    }
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match text.parse::<SocketAddr>() {
        Ok(end) if end.port() != 0 => Ok((end.ip(), Some(end.port()))),
        _ => bare()
            .map(|address| (address, None))
            .map_err(|_| "it is no IP address and port, and names are not looked up"),
    }
}

fn server(line: &Statement, port: Option<u16>, service: &mut Service) -> Option<Failures> {
    let mut lost = |why: &str| service.notes.push(Note::lost(&line.at, line.say(), why));
    let end = match endpoint(line.word(1)) {
        Ok(end) => end,
        Err(why) => {
            lost(why);
            return None;
        }
    };
    let (mut weight, mut backup, mut failures) = (1, false, (None, None));
    for parameter in line.arguments().skip(1) {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("weight", text) => match number(text, &(1..=1_000_000)) {
                Some(read) => weight = read,
                None => lost("its weight is no number; 1 is used"),
            },
            ("backup", "") => backup = true,
            ("down", "") => {
                lost("it is down; add it, and then disable it with loaded backend disable");
                return None;
            }
            ("max_fails", text) => failures.0 = number(text, &(0..=255)),
            ("fail_timeout", text) => {
                let seconds = time(text).and_then(|millis| u32::try_from(millis.div_ceil(1000)).ok());
                failures.1 = seconds.map(|seconds| seconds.clamp(*Passive::HOLDS.start(), *Passive::HOLDS.end()));
            }
            ("max_conns", "0") => {}
            ("max_conns", _) => lost("max_conns: loaded has no limit of connections to a backend"),
            ("slow_start", _) => lost("slow_start: in loaded it is a key of the service; write it there"),
            ("resolve" | "service", _) => lost("names are not looked up"),
            _ => lost("one of its parameters is not known"),
        }
    }
    push(&line.at, end, port, service);
    if let Some(backend) = service.backends.last_mut() {
        (backend.weight, backend.backup) = (weight, backup);
    }
    Some(failures)
}

fn hash(line: &Statement, service: &mut Service) {
    match line.word(1) {
        "$remote_addr" | "$binary_remote_addr" => {
            service.strategy = Strategy::Maglev { seed: MAGLEV_SEED };
            let timeout = loaded_config::AFFINITY_TIMEOUT;
            service.affinity = Some(Affinity { prefix4: 32, prefix6: 128, timeout });
        }
        _ => {
            let why = "loaded hashes the client's address alone; connections go to backends in turn";
            service.notes.push(Note::lost(&line.at, line.say(), why));
        }
    }
}

/// nginx judges servers by failed connections, and so do workers. One rule for all backends of a service.
fn judge(failures: &[Failures], at: &Position, service: &mut Service) {
    if service.protocol != Protocol::Tcp {
        if failures.iter().any(|failures| *failures != (None, None)) {
            let why = "an unanswered datagram says nothing in loaded; give the service a check";
            service.notes.push(Note::lost(at, "max_fails, fail_timeout", why));
        }
        return;
    }
    let Some((first, others)) = failures.split_first() else { return };
    if others.iter().any(|other| other != first) {
        let why = "one rule holds for all backends of a service: that of the first";
        service.notes.push(Note::lost(at, "max_fails, fail_timeout", why));
    }
    service.passive = match first {
        (Some(0), _) => Judgement::Off,
        (fails, hold) => Judgement::On { fails: *fails, timeout: None, hold: *hold, port: None },
    };
}

/// `health_check` of a server: a connection, as nginx makes it for TCP.
pub(super) fn check(line: &Statement, service: &mut Service) {
    let mut check =
        Check { kind: Kind::Tcp, port: None, interval: Some(5000), timeout: None, rise: Some(1), fall: Some(1) };
    let mut lost = |why: &str| service.notes.push(Note::lost(&line.at, line.say(), why));
    for parameter in line.arguments() {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("interval", text) => {
                let millis = time(text).and_then(|millis| u32::try_from(millis).ok());
                check.interval = millis.map(|millis| millis.clamp(*INTERVAL.start(), *INTERVAL.end()));
            }
            ("passes", text) => check.rise = number(text, &(1..=255)),
            ("fails", text) => check.fall = number(text, &(1..=255)),
            ("port", text) => check.port = number(text, &(1..=u16::MAX)),
            ("jitter" | "mandatory" | "persistent", _) => {
                lost("loaded has a jitter of its own, and believes a backend until a check fails");
            }
            _ => return lost("only that a connection is accepted can be carried over; write a [service.check]"),
        }
    }
    match service.protocol {
        Protocol::Tcp => service.check = Some(check),
        _ => lost("loaded's checks by UDP need to know what to send; write a [service.check]"),
    }
}
