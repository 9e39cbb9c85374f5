//! The checks of real servers. loaded has one for all backends of a service: the first's.

use crate::model::{Check, INTERVAL, Kind, Note, Service, TIMEOUT, number};
use crate::position::Position;
use crate::tree::Statement;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// How often a check is made, and how long it may take; each may stand at the virtual server, the real one or the check.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pace {
    interval: Option<u32>,
    timeout: Option<u32>,
    retry: Option<u8>,
}

/// A real server's check, if it has one that can be carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: Position,
    pub(super) check: Option<Check>,
}

/// Blocks that check something.
pub(super) fn is_check(word: &str) -> bool {
    word.ends_with("_CHECK") || matches!(word, "HTTP_GET" | "SSL_GET")
}

impl Pace {
    /// What it is made of.
    pub(super) const KEYS: [&str; 6] =
        ["delay_loop", "connect_timeout", "retry", "nb_get_retry", "delay_before_retry", "warmup"];

    /// What these lines say.
    pub(super) fn of(lines: &[Statement], notes: &mut Vec<Note>) -> Self {
        Self::default().within(lines, notes)
    }

    /// The same, and what these lines say instead.
    pub(super) fn within(&self, lines: &[Statement], notes: &mut Vec<Note>) -> Self {
        let mut pace = self.clone();
        for line in lines {
            match line.word(0) {
                "delay_loop" => pace.interval = timer(line, &INTERVAL, notes).or(pace.interval),
                "connect_timeout" => pace.timeout = timer(line, &TIMEOUT, notes).or(pace.timeout),
                "retry" | "nb_get_retry" => match number(line.word(1), &(0..=254)) {
                    Some(retry) => pace.retry = Some(retry),
                    None => notes.push(Note::lost(&line.at, line.say(), "it is no number up to 254")),
                },
                "delay_before_retry" | "warmup" => {
                    notes.push(Note::lost(
                        &line.at,
                        line.say(),
                        "loaded repeats a check after interval, whatever came of the last",
                    ));
                }
                _ => {}
            }
        }
        pace
    }

    fn check(&self, kind: Kind, port: Option<u16>) -> Check {
        Check {
            kind,
            port,
            interval: self.interval,
            timeout: self.timeout,
            // keepalived believes the first success, and the failure after the last retry.
            rise: Some(1),
            fall: self.retry.map(|retry| retry.saturating_add(1)),
        }
    }
}

/// Seconds, with a fraction or without, as milliseconds; the nearest value that loaded takes.
fn timer(line: &Statement, range: &RangeInclusive<u32>, notes: &mut Vec<Note>) -> Option<u32> {
    let (whole, fraction) = line.word(1).split_once('.').unwrap_or((line.word(1), ""));
    let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
    let millis = number(whole, &(0..=4_000_000)).zip(number::<u32>(&digits, &(0..=999)));
    let Some(millis) = millis.map(|(whole, part): (u32, u32)| whole * 1000 + part) else {
        notes.push(Note::lost(&line.at, line.say(), "it is no number of seconds"));
        return None;
    };
    let nearest = millis.clamp(*range.start(), *range.end());
    if nearest != millis {
        notes.push(Note::lost(
            &line.at,
            line.say(),
            format!("loaded takes {} ms to {} ms", range.start(), range.end()),
        ));
    }
    Some(nearest)
}

/// Reads a checker. What it says beyond what loaded can check becomes a note.
pub(super) fn read(block: &Statement, pace: &Pace, backend: IpAddr, notes: &mut Vec<Note>) -> Option<Check> {
    let pace = pace.within(block.inner(), notes);
    let port = port(block, notes);
    let rest = |own: &[&str], notes: &mut Vec<Note>| others(block, own, backend, notes);
    match block.word(0) {
        "TCP_CHECK" => {
            rest(&[], notes);
            Some(pace.check(Kind::Tcp, port))
        }
        "SMTP_CHECK" => {
            rest(&["helo_name", "host"], notes);
            notes.push(Note::lost(
                &block.at,
                block.say(),
                "loaded does not speak SMTP; it checks that a connection is accepted",
            ));
            Some(pace.check(Kind::Tcp, port.or(Some(25))))
        }
        "SSL_GET" => {
            rest(&["url", "virtualhost", "enable_sni", "http_protocol", "tls_compliant"], notes);
            notes.push(Note::lost(
                &block.at,
                block.say(),
                "the prober has no TLS; it checks that a connection is accepted",
            ));
            Some(pace.check(Kind::Tcp, port))
        }
        "HTTP_GET" => {
            rest(&["url", "virtualhost"], notes);
            Some(pace.check(http(block, notes), port))
        }
        "PING_CHECK" => {
            rest(&[], notes);
            Some(pace.check(Kind::Icmp, None))
        }
        "DNS_CHECK" => {
            rest(&["name", "type"], notes);
            let line = |key: &str| block.inner().iter().find(|line| line.word(0) == key);
            let Some(name) = line("name").filter(|name| name.word(1) != ".") else {
                notes.push(Note::lost(&block.at, block.say(), "loaded asks for a name; write one other than \".\""));
                return None;
            };
            if let Some(kind) = line("type").filter(|kind| kind.word(1) != "A") {
                notes.push(Note::lost(
                    &kind.at,
                    kind.say(),
                    "loaded asks for type A; any answer without an error counts",
                ));
            }
            Some(pace.check(Kind::Dns { name: name.word(1).to_owned() }, port))
        }
        _ => {
            let why = "loaded runs no programs and has no check of this kind; write a [service.check] of one it has";
            notes.push(Note::lost(&block.at, block.say(), why));
            None
        }
    }
}

fn port(block: &Statement, notes: &mut Vec<Note>) -> Option<u16> {
    let line = block.inner().iter().find(|line| line.word(0) == "connect_port")?;
    let port = number(line.word(1), &(1..=u16::MAX));
    if port.is_none() {
        notes.push(Note::lost(&line.at, line.say(), "it is no port from 1 to 65535"));
    }
    port
}

/// A note on each key that is neither its own nor one that all checks have.
fn others(block: &Statement, own: &[&str], backend: IpAddr, notes: &mut Vec<Note>) {
    for line in block.inner() {
        let word = line.word(0);
        let same = word == "connect_ip" && line.word(1).parse() == Ok(backend);
        if word == "connect_port" || Pace::KEYS.contains(&word) || own.contains(&word) || same {
            continue;
        }
        let why = match word {
            "connect_ip" => "loaded checks the backend's own address",
            "bindto" | "bind_port" | "bind_if" | "fwmark" => "the kernel's routes choose where a check comes from",
            _ => "loaded's check has no counterpart",
        };
        notes.push(Note::lost(&line.at, line.say(), why));
    }
}

/// The first url of several.
fn http(block: &Statement, notes: &mut Vec<Note>) -> Kind {
    let mut urls = block.inner().iter().filter(|line| line.word(0) == "url");
    let host = |lines: &[Statement]| {
        lines.iter().find(|line| line.word(0) == "virtualhost").map(|line| line.word(1).to_owned())
    };
    let (mut path, mut status) = ("/".to_owned(), None);
    let first = urls.next();
    for line in first.map(Statement::inner).unwrap_or_default() {
        match line.word(0) {
            "path" => line.word(1).clone_into(&mut path),
            "virtualhost" => {}
            "status_code" => {
                status = codes(line.word(1));
                if status.is_none() || line.words.len() > 2 {
                    notes.push(Note::lost(
                        &line.at,
                        line.say(),
                        "loaded takes one status or one range of them; the first is used",
                    ));
                }
            }
            "digest" => {
                notes.push(Note::lost(
                    &line.at,
                    line.say(),
                    "loaded looks at the status of an answer, not at its text",
                ));
            }
            _ => notes.push(Note::lost(&line.at, line.say(), "loaded's check has no counterpart")),
        }
    }
    for url in urls {
        notes.push(Note::lost(&url.at, "url", "loaded asks for one path; the first is used"));
    }
    // keepalived takes any 2xx where the file names none.
    let host = first.and_then(|url| host(url.inner())).or_else(|| host(block.inner()));
    Kind::Http { path, host, status: status.or(Some((200, 299))) }
}

fn codes(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let code = |text| number(text, &(100..=599));
    Some((code(low)?, code(high)?)).filter(|(low, high)| low <= high)
}

/// Gives the service the first check that was found, and says whose is different.
pub(super) fn settle(service: &mut Service, found: &[&Found]) {
    let Some(first) = found.iter().find_map(|found| found.check.as_ref()) else { return };
    for other in found.iter().filter(|other| other.check.as_ref() != Some(first)) {
        let why = match other.check {
            Some(_) => "its check differs from the first one's; loaded has one check for a service",
            None => "it has no check of its own that loaded has; loaded checks all backends of a service alike",
        };
        service.notes.push(Note::lost(&other.at, "real_server", why));
    }
    let mut check = first.clone();
    if let (Some(interval), Some(timeout)) = (check.interval, check.timeout)
        && timeout > interval
    {
        check.timeout = Some(interval);
        let why = "a check ends before the next begins: timeout is delay_loop";
        service.notes.push(Note::lost(&service.at, "connect_timeout", why));
    } else if check.interval.is_none() && check.timeout.is_some_and(|timeout| timeout > loaded_config::CHECK_INTERVAL) {
        check.interval = check.timeout;
    }
    service.check = Some(check);
}
