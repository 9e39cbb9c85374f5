//! The operator's program that is told of changes: what it hears, what it is, and what it cannot do.

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, eventually, install_script};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(5);
/// Account nobody.
const NOBODY: u32 = 65534;

/// What one run has heard: its environment, and what /proc says of it.
type Told = BTreeMap<String, String>;

/// The program that is told, in a directory that goes with the test.
struct Notifier(PathBuf);

impl Notifier {
    fn of(lab: &Lab) -> Self {
        let directory = PathBuf::from(format!("/tmp/loaded-notify-{}", lab.namespace("lb")));
        fs::create_dir_all(directory.join("told")).unwrap();
        chown(directory.join("told"), Some(NOBODY), Some(NOBODY)).unwrap();
        Self(directory)
    }

    /// The program, with `more` at its end.
    fn program(&self, more: &str) {
        let told = self.0.join("told");
        let text = format!(
            "#!/bin/sh\nfds=$(ls -l /proc/$$/fd | sed -n 's/.* -> //p' | tr '\\n' ' ')\nto={}/$$\n{{ env; sed -n 's/:\t/=/p' /proc/self/status; echo \"fds=$fds\"; echo \"words=$*\"\n\
             echo \"sid=$(cut -d' ' -f6 /proc/$$/stat) pid=$$\"; }} > $to.part\nmv $to.part $to.txt\n{more}\n",
            told.display()
        );
        install_script(&text, &self.0.join("tell"));
        fs::set_permissions(self.0.join("tell"), Permissions::from_mode(0o755)).unwrap();
    }

    fn key(&self) -> String {
        format!("notify = [\"{}\", \"it all\"]\n", self.0.join("tell").display())
    }

    /// What was told so far, in its order.
    fn told(&self) -> Vec<Told> {
        let is_whole = |path: &PathBuf| path.extension().is_some_and(|end| end == "txt");
        let files = fs::read_dir(self.0.join("told")).unwrap().map(|entry| entry.unwrap().path()).filter(is_whole);
        let mut files: Vec<_> = files.map(|path| (path.metadata().unwrap().modified().unwrap(), path)).collect();
        files.sort();
        files.iter().map(|(_, path)| read(path)).collect()
    }

    /// The last state of a backend, as it was told.
    fn state_of(&self, backend: &str) -> Option<String> {
        let told = self.told();
        let of = told.iter().rev().find(|told| told.get("LOADED_BACKEND").is_some_and(|name| name == backend))?;
        of.get("LOADED_STATE").cloned()
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(path: &Path) -> Told {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
    text.lines().filter_map(line).collect()
}

fn text(keys: &str) -> String {
    format!("{keys}{}", config("60s", &[Service::default()]))
}

#[test]
fn the_program_has_no_rights_and_hears_the_last_state() {
    let Some(lab) = Lab::up() else { return };
    let notifier = Notifier::of(&lab);
    notifier.program("");
    let loaded = Loaded::toml(&lab, &text(&notifier.key()));
    assert!(eventually(WAIT, || !notifier.told().is_empty()), "{}", loaded.log());
    let first = &notifier.told()[0];
    let of = |key: &str| first.get(key).map_or("", String::as_str);
    assert_eq!(
        (of("LOADED_EVENT"), of("LOADED_STATE"), of("LOADED_VERDICT")),
        ("verdict", "serving", "serving"),
        "{first:?}"
    );
    assert_eq!((of("Uid"), of("Groups"), of("words")), ("65534\t65534\t65534\t65534", "", "it all"), "{first:?}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(of(set), "0000000000000000", "{set}: {first:?}");
    }
    assert_eq!(of("NoNewPrivs"), "1");
    // The shell has opened its script, and the pipe by which it has heard this.
    let tell = notifier.0.join("tell").display().to_string();
    let others = of("fds").split(' ').filter(|to| *to != "/dev/null" && *to != tell && !to.starts_with("pipe:"));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{first:?}");
    assert_eq!(of("fds").matches("/dev/null").count(), 3, "{first:?}");
    let (sid, pid) = of("sid").split_once(" pid=").unwrap();
    assert_eq!(sid, pid, "a session of its own");
    let known = ["LOADED_", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    let upper = first.keys().filter(|key| key.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let strange: Vec<_> = upper.filter(|key| !known.iter().any(|known| key.starts_with(known))).collect();
    assert!(strange.is_empty(), "{strange:?}");

    let backend = Family::V4.backend(1);
    let name = crate::rig::ports::named(backend);
    for _ in 0..10 {
        for order in ["disable", "enable"] {
            assert_eq!(loaded.ask(&["backend", order, &backend.to_string()]).code, Some(0));
        }
    }
    assert_eq!(loaded.ask(&["backend", "disable", &backend.to_string()]).code, Some(0));
    assert!(eventually(WAIT, || notifier.state_of(&name).as_deref() == Some("disabled")), "{:?}", notifier.told());
    let about = notifier.told().iter().filter(|told| told.contains_key("LOADED_BACKEND")).count();
    assert!(about < 21, "{about} runs for 21 changes: none was skipped");
    loaded.upgrade().unwrap();
    let before = notifier.told().len();
    assert_eq!(loaded.ask(&["backend", "enable", &backend.to_string()]).code, Some(0));
    assert!(
        eventually(WAIT, || notifier.state_of(&name).as_deref() == Some("enabled")),
        "{before} {:?}",
        notifier.told()
    );
    loaded.stop();
}

#[test]
fn one_that_hangs_fails_and_floods_costs_a_line_in_the_log() {
    let Some(lab) = Lab::up() else { return };
    let notifier = Notifier::of(&lab);
    notifier.program("exec yes | tee /dev/stderr >/dev/null & sleep 1000");
    let loaded = Loaded::toml(&lab, &text(&notifier.key()));
    let killed = || loaded.log().contains("notify: the program has run for 10 s and was killed");
    assert!(eventually(Duration::from_secs(15), killed), "{}", loaded.log());
    assert_eq!(loaded.ask(&["health"]).code, Some(0));
    let alive = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            fs::read_to_string(entry.path().join("environ"))
                .is_ok_and(|text| text.contains("LOADED_EVENT=") && text.contains("LOADED_VERDICT="))
        })
    };
    assert!(eventually(WAIT, || !alive()), "it or what it has started is left");
    notifier.program("exit 3");
    let backend = Family::V4.backend(1).to_string();
    for order in ["disable", "enable"] {
        assert_eq!(loaded.ask(&["backend", order, &backend]).code, Some(0));
        let failed = || loaded.log().contains("notify: the program has failed: exit status: 3");
        assert!(eventually(WAIT, failed), "{}", loaded.log());
    }
    fs::remove_file(notifier.0.join("tell")).unwrap();
    assert_eq!(loaded.ask(&["backend", "disable", &backend]).code, Some(0));
    let missing = || loaded.log().contains("notify: the program has failed: exit status: 127");
    assert!(eventually(WAIT, missing), "{}", loaded.log());
    loaded.stop();
}
