//! The log in the journal, with its fields, and how much of it is written.

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, binary, eventually, install_script};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::net::{Family, get};
use crate::rig::ports;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

fn text(keys: &str) -> String {
    format!("{keys}{}", config("60s", &[Service::default()]))
}

/// A program that gives `loaded` a /run of its own, with our socket where the journal's is, and the word that its stderr leads
/// to the journal.
fn wrapper(lab: &Lab) -> std::path::PathBuf {
    let (state, path) = (lab.state(), lab.state().join("with-journal"));
    fs::create_dir_all(state.join("journal")).unwrap();
    fs::create_dir_all(state.join("run")).unwrap();
    let state = state.display();
    let script = format!(
        "#!/bin/sh\nset -e\nmount -t tmpfs run {state}/run\nmkdir -p {state}/run/systemd/journal {state}/run/loaded-lab {state}/run/empty\n\
         mount --rbind /run/loaded-lab {state}/run/loaded-lab\nmount --bind {state}/journal {state}/run/systemd/journal\n\
         mount --rbind {state}/run /run\nJOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)\nexport JOURNAL_STREAM\nexec {} \"$@\"\n",
        binary().display()
    );
    install_script(&script, &path);
    path
}

/// The next line that has come with this field, if one does in time.
fn heard(journal: &UnixDatagram, field: (&str, &str)) -> Option<BTreeMap<String, String>> {
    let mut bytes = [0; 65536];
    loop {
        let length = journal.recv(&mut bytes).ok()?;
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let fields: BTreeMap<_, _> = text.lines().map(|line| pair(line).unwrap()).collect();
        if fields.get(field.0).is_some_and(|value| value == field.1) {
            return Some(fields);
        }
    }
}

#[test]
fn each_line_has_its_fields_and_a_missing_journal_loses_none() {
    let Some(lab) = Lab::up() else { return };
    let wrapper = wrapper(&lab);
    let socket = lab.state().join("journal/socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_read_timeout(Some(WAIT)).unwrap();
    let file = lab.file("loaded.toml", &text(""));
    let loaded = Loaded::spawn_as(&wrapper, &lab, |command| {
        command.args(["-D", "-c", &file]);
    });
    let first = heard(&journal, ("LOADED_EVENT", "instance")).unwrap_or_else(|| panic!("{}", loaded.log()));
    let of = |fields: &BTreeMap<String, String>, key: &str| fields.get(key).cloned().unwrap_or_default();
    assert!(of(&first, "MESSAGE").starts_with("serving: "), "{first:?}");
    assert_eq!(
        (of(&first, "PRIORITY").as_str(), of(&first, "SYSLOG_IDENTIFIER").as_str()),
        ("5", "loaded"),
        "{first:?}"
    );
    assert_eq!(of(&first, "MESSAGE_ID").len(), 32, "{first:?}");

    let backend = Family::V4.backend(1);
    let order = |order: &str| assert_eq!(loaded.ask(&["backend", order, &backend.to_string()]).code, Some(0));
    order("disable");
    let second = heard(&journal, ("LOADED_EVENT", "backend")).unwrap_or_else(|| panic!("{}", loaded.log()));
    let fields = ["LOADED_SERVICE", "LOADED_BACKEND", "LOADED_STATE", "PRIORITY"].map(|key| of(&second, key));
    assert_eq!(fields, ["web", &ports::named(backend), "disabled", "5"], "{second:?}");
    assert_eq!(loaded.log(), "", "it was said twice");

    fs::remove_file(&socket).unwrap();
    drop(journal);
    order("enable");
    let line = || {
        loaded
            .log()
            .lines()
            .any(|line| line.starts_with("<5>loaded: service web: backend ") && line.contains("enabled"))
    };
    assert!(eventually(WAIT, line), "{}", loaded.log());
    signal_to(loaded.workers()[0], Signal::SIGKILL);
    assert!(eventually(WAIT, || loaded.log().contains("<3>loaded: error: worker")), "{}", loaded.log());
    loaded.stop();
}

#[test]
fn what_is_less_grave_than_the_level_is_not_written() {
    let Some(lab) = Lab::up() else { return };
    let backend = Family::V4.backend(1).to_string();
    let mut loaded = Loaded::toml(&lab, &text("log_level = \"debug\"\n"));
    assert!(loaded.log().contains("loaded: debug: run /"), "{}", loaded.log());
    assert!(loaded.log().contains("loaded: debug: pid "), "{}", loaded.log());
    lab.file("loaded.toml", &text("log_level = \"notice\"\n"));
    assert!(loaded.reload().0);
    let before = loaded.log().len();
    assert_eq!(loaded.ask(&["backend", "disable", &backend]).code, Some(0));
    assert!(eventually(WAIT, || loaded.log()[before..].contains("disabled")), "{}", loaded.log());
    assert!(!loaded.log()[before..].contains("debug: "), "{}", &loaded.log()[before..]);
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
    drop(loaded);

    let file = lab.file("loaded.toml", &text("log_level = \"debug\"\n"));
    let quiet = Loaded::spawn_with(&lab, |command| {
        command.args(["-D", "--log-level", "error", "-c", &file]);
    });
    // It says nothing when it serves, so a client has to find out.
    let serves = || lab.within("client", || get(Family::V4.client(20), Family::V4.vip(), 80)).is_ok();
    assert!(eventually(WAIT, serves), "{}", quiet.log());
    assert_eq!(quiet.ask(&["backend", "disable", &backend]).code, Some(0));
    let history = quiet.json(&["history"]);
    assert!(history.to_string().contains("disabled"), "{history}");
    quiet.stop();
    let logs = fs::read_dir(lab.state()).unwrap().flatten().map(|entry| entry.path());
    let last = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    assert_eq!(fs::read_to_string(last).unwrap(), "");
}
