//! Start, daemon mode, readiness for a service manager, stop; and the commands that serve nothing.

use crate::rig::lab::{Lab, binary, eventually, root, shipped};
use crate::rig::loaded::{Loaded, children, classic, lives, signal_to};
use crate::rig::machine::measured;
use crate::rig::net::{Family, get};
use nix::sys::signal::Signal;
use std::fs;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn serves(lab: &Lab) {
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

/// The command line of a daemon.
fn daemon<'a>(binary: &'a Path, arguments: &'a [String], pid_file: &'a str) -> Vec<&'a str> {
    let mut words = vec![binary.to_str().unwrap(), "-U", "nobody", "--pid-file", pid_file];
    words.extend(arguments.iter().map(String::as_str));
    words
}

#[test]
fn a_daemon_serves_when_its_starter_returns() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.rules();
    let (binary, classic) = (binary(), classic());
    let pid_file = lab.state().join("loaded.pid-of-daemon").to_str().unwrap().to_owned();
    let said = lab.exec("lb", &daemon(&binary, &classic, &pid_file));
    assert_eq!(said.code, Some(0), "{}", said.err);
    serves(&lab);

    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], pid.to_string(), "a session of its own");
    assert_eq!(fields[4], "0", "no terminal");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap(), Path::new("/dev/null"), "fd {fd}");
    }
    // Beside them, for some milliseconds, whoever reads the rules for it.
    assert!(eventually(Duration::from_secs(5), || children(pid).len() == 2), "children: {:?}", children(pid));

    // The pid file keeps a second one away, even with queues of its own.
    let second = [classic.clone(), vec!["--queue-base=40".to_owned()]].concat();
    let said = lab.exec("lb", &daemon(&binary, &second, &pid_file));
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains(&format!("pid {pid} is running")), "{}", said.err);
    serves(&lab);

    signal_to(pid, Signal::SIGTERM);
    assert!(eventually(Duration::from_secs(5), || !lives(pid)), "the daemon lives on after TERM");
    assert!(!Path::new(&pid_file).exists(), "the pid file stays");
    assert_eq!(lab.rules(), before);
}

/// The killed process is still a zombie: its pid is still in use.
#[test]
fn one_that_was_killed_keeps_no_pid_file() {
    let Some(lab) = Lab::up() else { return };
    let pid_file = lab.state().join("loaded.pid").to_str().unwrap().to_owned();
    let spawn = || {
        let add = |command: &mut std::process::Command| {
            command.args(["-D", "--pid-file", &pid_file]).args(classic());
        };
        Loaded::spawn_with(&lab, add).until_it_serves()
    };
    let first = spawn();
    first.signal(Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(5), || !lives(first.pid())));
    let second = spawn();
    assert_eq!(fs::read_to_string(&pid_file).unwrap().trim(), second.pid().to_string());
    second.stop();
}

#[test]
fn a_daemons_error_is_its_starters() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.rules();
    let config = lab.file("typo.config", "VIP4=192.0.2.300\n");
    let pid_file = lab.state().join("none.pid").to_str().unwrap().to_owned();
    let said = lab.exec("lb", &daemon(&binary(), &["-c".to_owned(), config], &pid_file));
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("typo.config:1:6: "), "{}", said.err);
    assert!(!Path::new(&pid_file).exists());
    assert_eq!(lab.rules(), before);
}

#[test]
fn a_service_manager_is_told() {
    let Some(lab) = Lab::up() else { return };
    let path = lab.state().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let word = || {
        let mut text = [0; 256];
        let length = manager.recv(&mut text).expect("no word within 10 s");
        String::from_utf8_lossy(&text[..length]).trim_end().to_owned()
    };
    // Without -D, for a manager wants neither a daemon nor its log in syslog.
    let mut loaded = Loaded::spawn_with(&lab, |command| {
        command.args(classic()).env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(word(), "READY=1");
    serves(&lab);
    assert!(loaded.log().contains("loaded: serving:"), "the log is on stderr");
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
    assert_eq!(word(), "STOPPING=1");
}

/// The time from start to the first answer of a backend. On an idle machine it is half a second; this one may be busy.
#[test]
fn the_first_packet_is_balanced_soon() {
    measured(|lab| {
        let mut times: Vec<_> = (0..3).map(|_| time_to_first_answer(lab)).collect();
        times.sort_unstable();
        println!("from start to the first balanced packet: {times:?}");
        assert!(times[1] <= Duration::from_secs(2), "{times:?}");
    });
}

fn time_to_first_answer(lab: &Lab) -> Duration {
    let began = Instant::now();
    let loaded = Loaded::spawn(lab, &classic());
    lab.within("client", || {
        let socket = UdpSocket::bind((Family::V4.client(10), 0)).unwrap();
        socket.connect((Family::V4.vip(), 7007)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(4))).unwrap();
        let mut answer = [0; 100];
        while began.elapsed() < Duration::from_secs(20) {
            // Refused while the balancer's own kernel gets it.
            let got = socket.send(b"hello").and_then(|_| socket.recv(&mut answer));
            match got {
                Ok(_) => return,
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => {}
            }
        }
        panic!("no answer within 20 s: {}", loaded.log());
    });
    let time = began.elapsed();
    loaded.stop();
    time
}

#[test]
fn the_policy_that_is_enforced_is_the_one_reviewed() {
    for role in ["worker", "prober", "supervisor"] {
        let output = Command::new(binary()).args(["--print-sandbox", role]).output().unwrap();
        assert!(output.status.success());
        let golden = fs::read_to_string(root().join(format!("src/sandbox/golden/{role}.txt"))).unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), golden, "{role}");
    }
}

/// These commands run as any user and in any directory: they only read the files they are given.
#[test]
fn errands_need_no_rights() {
    let Some(lab) = Lab::up() else { return };
    let (rules, queues) = (lab.rules(), lab.queues());
    let binary = binary();
    let nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", binary.to_str().unwrap()];
    let run = |arguments: &[&str]| lab.exec("lb", &[&nobody, arguments].concat());

    let version = run(&["--version"]);
    assert_eq!((version.code, version.out.as_str()), (Some(0), concat!("loaded ", env!("CARGO_PKG_VERSION"), "\n")));

    // Copies, for the way to the checkout may be closed to others.
    let copy = |name: &str| lab.file(name, &fs::read_to_string(shipped(&format!("scripts/{name}"))).unwrap());
    let (four, six) = (copy("loaded.config"), copy("loaded.config6"));
    let plan = run(&["--check", "-c", &four, "-c", &six]);
    assert_eq!(plan.code, Some(0), "{}", plan.err);
    for fact in ["as nobody, on cores 0-1", "vip        192.0.2.100", "vip        2001:db8:1::100", "strategy   rr"] {
        assert!(plan.out.contains(fact), "{fact}:\n{}", plan.out);
    }
    let backends = plan.out.lines().filter(|line| line.trim_start().starts_with("backend ")).count();
    assert_eq!(backends, 6, "{}", plan.out);
    let narrowed = run(&["--check", "-6", "-c", &four, "-c", &six]);
    assert!(!narrowed.out.contains("192.0.2.100") && narrowed.out.contains("2001:db8:1::100"), "{}", narrowed.out);
    assert_eq!((lab.rules(), lab.queues()), (rules, queues), "they have changed something");
}
