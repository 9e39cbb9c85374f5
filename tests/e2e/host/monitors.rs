//! A group that may read: what its members are told, what they are refused, and what they can take from others.

use crate::rig::config::{STICKY, Service, config};
use crate::rig::lab::{Lab, Said, binary, bounded, eventually, install, said};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's group adm.
const ADM: &str = "--groups=4";
const NONE: &str = "--clear-groups";

fn text(keys: &str) -> String {
    format!("{keys}\n{}", config("60s", &[Service { keys: STICKY, ..Service::default() }]))
}

/// The program where everybody may run it.
fn program(lab: &Lab) -> PathBuf {
    let program = PathBuf::from(format!("/tmp/loaded-monitors-{}", lab.namespace("lb")));
    install(&binary(), &program);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program
}

/// A user without rights, with these groups besides its own.
fn as_nobody(groups: &str, words: &[&str]) -> Vec<String> {
    let user = ["setpriv", "--reuid=65534", "--regid=65534", groups, "--inh-caps=-all", "--no-new-privs"];
    user.iter().chain(words).map(|word| (*word).to_owned()).collect()
}

fn run(words: &[String]) -> Said {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    said(&bounded(&words).output().unwrap())
}

#[test]
fn members_of_the_group_read_and_change_nothing() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text("monitor_group = \"adm\""));
    let program = program(&lab);
    let control = loaded.control().to_str().unwrap().to_owned();
    open_path(&control);
    let ask = |groups: &str, words: &[&str]| {
        let words = [&[program.to_str().unwrap()], words, &["--control", &control]].concat();
        run(&as_nobody(groups, &words))
    };
    lab.within("client", || get(Family::V4.client(10), Family::V4.vip(), 80)).unwrap();
    let socket = fs::metadata(format!("{control}.monitor")).unwrap();
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o7777), (0, 4, 0o660));
    let explain = ["explain", "tcp", "192.0.2.7:40000", &format!("{}:80", Family::V4.vip())];
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["health"],
        &["history"],
        &["metrics"],
        &["flows"],
        &["top", "--count", "1"],
        &explain,
    ] {
        let told = ask(ADM, words);
        assert_eq!(told.code, Some(0), "{words:?}: {}", told.err);
        assert!(!told.out.trim().is_empty(), "{words:?}");
        let refused = ask(NONE, words);
        assert_ne!(refused.code, Some(0), "{words:?}");
        let both = format!("{}{}", refused.out, refused.err);
        assert!(both.contains("permission denied: root may ask, and what changes nothing"), "{words:?}: {both}");
    }
    let backend = Family::V4.backend(1).to_string();
    let before = loaded.status()["generation"].clone();
    for words in [
        &["backend", "drain", &backend][..],
        &["backend", "disable", &backend],
        &["backend", "remove", "web", &backend],
        &["config", "show"],
        &["config", "show", "--save"],
        &["--check", "--diff", "-c", "/etc/shadow"],
        &["drain"],
    ] {
        let refused = ask(ADM, words);
        assert_eq!(refused.code, Some(1), "{words:?}: {}", refused.out);
        assert!(refused.err.contains("group adm may read") && refused.err.contains("ask as root"), "{}", refused.err);
    }
    assert_eq!(loaded.status()["generation"], before);
    assert_eq!(loaded.backend("web", Family::V4.backend(1))["admin"], "enabled");

    loaded.upgrade().unwrap();
    let may_read = || ask(ADM, &["health"]).code == Some(0);
    assert!(eventually(Duration::from_secs(3), may_read), "{}", loaded.log());
    lab.file("loaded.toml", &text("monitor_group = \"nosuchgroup\""));
    let (ok, why) = loaded.reload();
    assert!(!ok && why.contains("monitor_group: there is no group \"nosuchgroup\"; groupadd -r nosuchgroup"), "{why}");
    assert!(may_read());
    lab.file("loaded.toml", &text(""));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert!(!PathBuf::from(format!("{control}.monitor")).exists() && !may_read());
    fs::remove_file(program).unwrap();
    loaded.stop();
}

/// The directories of a path, for everybody to pass.
fn open_path(path: &str) {
    for directory in
        PathBuf::from(path).ancestors().skip(1).filter(|directory| directory.starts_with("/run/loaded-lab"))
    {
        if let Ok(metadata) = directory.metadata() {
            let _ = fs::set_permissions(directory, Permissions::from_mode(metadata.mode() & 0o7777 | 0o001));
        }
    }
}

/// Connects again and again, asks without reading, asks without end, and says nothing.
const HOSTILE: &str = "import socket, sys, time
path, how = sys.argv[1:]
held = []
end = time.time() + 20
while time.time() < end:
    try:
        s = socket.socket(socket.AF_UNIX); s.settimeout(2); s.connect(path)
        if how == 'silent': held.append(s)
        if how == 'flood': s.send(b'\"status\"\\n'); s.recv(100000)
        if how == 'unread': s.send(b'\"status\"\\n'); held.append(s)
        if how == 'search': s.send(b'{\"flows\":{\"client\":null,\"backend\":null,\"port\":null,\"service\":null,\"state\":null,\"limit\":9}}\\n'); s.recv(100000)
    except OSError: pass
    held = held[-500:]
";

/// Processes that end with the test.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn who_floods_and_stalls_takes_nothing_from_root() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text("monitor_group = \"adm\""));
    let control = loaded.control().to_str().unwrap().to_owned();
    open_path(&control);
    let path = format!("{control}.monitor");
    let spawn = |how: &str| {
        let words = as_nobody(ADM, &["/usr/bin/python3", "-c", HOSTILE, &path, how]);
        // What they take of the machine is not the question.
        Command::new("nice").args(["-n", "19"]).args(&words).stdout(Stdio::null()).spawn().unwrap()
    };
    let ask = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'\"health\"\\n'); print(s.recv(999))";
    let told = run(&as_nobody(ADM, &["/usr/bin/python3", "-c", ask, &path]));
    assert!(told.out.contains("health"), "{}", told.err);
    let mut crowd = Crowd(["flood", "unread", "search"].map(spawn).into());
    std::thread::sleep(Duration::from_millis(500));
    let cpu = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", loaded.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (begin, before) = (Instant::now(), cpu());
    std::thread::sleep(Duration::from_secs(2));
    // A tick is 10 ms.
    let share = (cpu() - before) * 1000 / u64::try_from(begin.elapsed().as_millis()).unwrap();
    crowd.0.push(spawn("silent"));
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let one = Instant::now();
        loaded.status();
        assert_eq!(loaded.ask(&["flows"]).code, Some(0));
        longest = longest.max(one.elapsed());
    }
    println!("longest {longest:?}, {share} % of a core");
    assert!(share < 25, "{share} % of a core");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(loaded.reload().0);
    drop(crowd);
    loaded.stop();
}
