//! The journal's own protocol: a line of the log with its fields, as one datagram
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). Written here and not taken from a crate: those wait while the journal's
//! socket is full, and this process must not.

use loaded_config::plan::LogLevel;
use log::Record;
use log::kv::{Error, Key, Value, VisitSource};
use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Facility daemon, as in syslog (RFC 5424 §6.2.1).
const FACILITY: u8 = 3;

/// What a line of the log with the key `event` is about, and the MESSAGE_ID of such lines: random, and never another one.
const EVENTS: [(&str, &str); 6] = [
    ("verdict", "fa11eedea90c4d9a87389f96f98d9a1c"),
    ("backend", "72588ca3bc5b4119afba7a4e726379c3"),
    ("service", "36a38c0b462a4e7c966239aef95a28bc"),
    ("configuration", "b782cc7bea2c4cedafa73909db46209a"),
    ("instance", "2e0ed77aaf4947bbbe6a50207c2b98a7"),
    ("security", "9b930cf25cc746c5bb62237719673b81"),
];

/// Sends a line to the journal.
///
/// # Errors
/// It is not there, it is busy, or the line is too long for a datagram: then it is to be written to stderr.
pub(super) fn send(level: LogLevel, text: &str, record: &Record<'_>) -> io::Result<()> {
    // A socket for each line: no descriptor has to be kept through the start, an upgrade and a fork.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(datagram(level, text, record).as_bytes(), SOCKET).map(drop)
}

/// The line with its fields. No value has a line end in it, so the simple form does.
fn datagram(level: LogLevel, text: &str, record: &Record<'_>) -> String {
    let mut fields = Fields(String::with_capacity(256));
    fields.add("MESSAGE", text);
    fields.add("PRIORITY", level as u8);
    fields.add("SYSLOG_FACILITY", FACILITY);
    fields.add("SYSLOG_IDENTIFIER", "loaded");
    // Its visitor refuses nothing.
    let _ = record.key_values().visit(&mut fields);
    fields.0
}

struct Fields(String);

impl Fields {
    fn add(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name}={}", plain(value));
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let known = EVENTS.iter().find(|(event, _)| key.as_str() == "event" && value.to_borrowed_str() == Some(*event));
        if let Some((_, id)) = known {
            self.add("MESSAGE_ID", id);
        }
        self.add(&format!("LOADED_{}", key.as_str().to_ascii_uppercase()), value);
        Ok(())
    }
}

/// A text without line ends: what a child or the kernel has said must forge no field.
pub(super) fn plain(text: impl std::fmt::Display) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_fields_and_can_forge_none() {
        let values = [("event", "backend"), ("service", "web"), ("cause", "refused\nPRIORITY=0")];
        let text = plain("service web: backend 198.51.100.11 up -> down:\nMESSAGE_ID=1");
        let record = Record::builder().level(log::Level::Info).key_values(&values).build();
        let sent = datagram(LogLevel::Notice, &text, &record);
        let expected = "MESSAGE=service web: backend 198.51.100.11 up -> down: MESSAGE_ID=1\nPRIORITY=5\nSYSLOG_FACILITY=3\n\
                        SYSLOG_IDENTIFIER=loaded\nMESSAGE_ID=72588ca3bc5b4119afba7a4e726379c3\nLOADED_EVENT=backend\n\
                        LOADED_SERVICE=web\nLOADED_CAUSE=refused PRIORITY=0\n";
        assert_eq!(sent, expected);
    }

    #[test]
    fn each_event_has_an_id_of_its_own() {
        let ids: std::collections::BTreeSet<_> = EVENTS.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), EVENTS.len());
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
