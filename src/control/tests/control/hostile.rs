//! Clients that do what they should not. Nothing of it may hold the loop up, and a good client is served meanwhile.

use crate::instance::{Instance, connect, error, hear, talk};
use loaded_control::{MAX_CONNECTIONS, MAX_REQUEST, REQUEST_DEADLINE, Reply, Request, TAKE_DEADLINE, ask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::Permissions;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SLACK: Duration = Duration::from_millis(800);

fn is_served(instance: &Instance, within: Duration) {
    let begin = Instant::now();
    assert!(matches!(ask(Some(&instance.path), &Request::Status), Ok(Reply::Status(_))));
    assert!(begin.elapsed() < within, "served after {:?}", begin.elapsed());
}

#[test]
fn what_is_no_request_gets_an_error_at_once() {
    let instance = Instance::start();
    let long = "x".repeat(MAX_REQUEST + 1);
    let huge = "x".repeat(1 << 20);
    let huge_line = format!("\"{huge}\"\n");
    for (sent, text) in [
        ("garbage\n", "the request is not understood: "),
        ("\n", "the request is not understood: "),
        ("\u{0}\u{1b}[2J\n", "the request is not understood: "),
        ("\"reboot\"\n", "the request is not understood: unknown variant"),
        ("{\"history\":{\"last\":1,\"x\":2}}\n", "the request is not understood: unknown field"),
        ("{\"diff\":{\"files\":[\"a\"]}}\n", "a is not an absolute path"),
        ("\"status\"\n\"status\"\n", "there is more than one line"),
        ("\"status\"\ntrailing", "there is more than one line"),
        (&long, "the request is longer than 16384 bytes"),
        (&huge, "the request is longer than 16384 bytes"),
        (&huge_line, "the request is longer than 16384 bytes"),
    ] {
        let begin = Instant::now();
        let answer = error(&talk(&mut connect(&instance.path), sent.as_bytes()));
        assert!(answer.starts_with(text), "{:.40}: {answer}", sent);
        assert!(begin.elapsed() < REQUEST_DEADLINE / 2, "{:?}", begin.elapsed());
    }
    assert_eq!(instance.end().answered, 0);
}

#[test]
fn the_longest_request_is_still_one() {
    let instance = Instance::start();
    let mut sent = format!("{:<MAX_REQUEST$}\n", "\"status\"");
    assert!(talk(&mut connect(&instance.path), sent.as_bytes()).starts_with("{\"status\":{"));
    sent.insert(0, ' ');
    assert!(error(&talk(&mut connect(&instance.path), sent.as_bytes())).contains("longer"));
    // In two parts.
    let mut stream = connect(&instance.path);
    stream.write_all(b"\"sta").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(talk(&mut stream, b"tus\"\n").starts_with("{\"status\":{"));
    instance.end();
}

#[test]
fn half_a_request_is_none() {
    let instance = Instance::start();
    for half in ["", "\"stat"] {
        let mut stream = connect(&instance.path);
        stream.write_all(half.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(error(&hear(&mut stream)).starts_with("the connection ended"));
        // And one that does not even wait for the answer.
        connect(&instance.path).write_all(half.as_bytes()).unwrap();
    }
    is_served(&instance, SLACK);
    instance.end();
}

#[test]
fn who_is_slow_or_silent_is_ended_after_a_second() {
    let instance = Instance::start();
    let begin = Instant::now();
    let mut silent: Vec<_> = (0..MAX_CONNECTIONS - 1).map(|_| connect(&instance.path)).collect();
    for stream in silent.iter_mut().take(8) {
        stream.write_all(b"\"stat").unwrap();
    }
    let mut dribbling = connect(&instance.path);
    // The next one comes when all places are taken, and is served when they are free.
    let path = instance.path.clone();
    let waiting = std::thread::spawn(move || (ask(Some(&path), &Request::Status), begin.elapsed()));
    while begin.elapsed() < REQUEST_DEADLINE + SLACK && dribbling.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for stream in silent.iter_mut().chain([&mut dribbling]) {
        assert_eq!(error(&hear(stream)), "no complete request within 1s");
    }
    assert!(begin.elapsed() < REQUEST_DEADLINE + SLACK, "{:?}", begin.elapsed());
    let (reply, after) = waiting.join().unwrap();
    assert!(matches!(reply, Ok(Reply::Status(_))));
    assert!(after < REQUEST_DEADLINE + SLACK, "{after:?}");
    instance.end();
}

#[test]
fn who_does_not_take_its_answer_is_ended_after_two_seconds() {
    let instance = Instance::start();
    // More than a socket holds (net.core.wmem_default is 208 kB).
    let request = "{\"diff\":{\"files\":[\"/a\",\"/b\",\"/c\",\"/d\"]}}\n";
    let begin = Instant::now();
    let mut greedy: Vec<_> = (0..MAX_CONNECTIONS).map(|_| connect(&instance.path)).collect();
    for stream in &mut greedy {
        stream.write_all(request.as_bytes()).unwrap();
    }
    is_served(&instance, TAKE_DEADLINE + SLACK);
    assert!(begin.elapsed() > TAKE_DEADLINE, "all places were taken");
    for stream in &mut greedy {
        // Nobody reads before it is ended.
        let mut ended = [PollFd::new(stream.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut ended, PollTimeout::from(20_000u16)), Ok(1), "it is not ended");
        let part = hear(stream).len();
        assert!((1..400_000).contains(&part), "{part}");
    }
    // One that reads gets all of it.
    let files = vec![PathBuf::from("/a"); 4];
    let Ok(Reply::Diff { lines }) = ask(Some(&instance.path), &Request::Diff { files }) else { panic!("no diff") };
    assert_eq!(lines.concat().len(), 400_000);
    instance.end();
}

/// What a process of the test's own finds the socket by.
const SOCKET: &str = "LOADED_TEST_CONTROL_SOCKET";

/// This program again, to run one of the tests at the end of this file as a client.
fn client(test: &str, instance: &Instance) -> Command {
    let mut client = Command::new("/proc/self/exe");
    client.args(["--exact", test, "--nocapture"]).env(SOCKET, &instance.path);
    client
}

fn said(client: &mut Command) -> String {
    let done = client.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn a_thousand_at_once_are_all_served() {
    let instance = Instance::start();
    let begin = Instant::now();
    // A process of its own: threads that come and go hold up whoever shares their memory.
    assert!(said(&mut client("hostile::as_a_crowd", &instance)).contains("1000 answers"));
    let took = begin.elapsed();
    println!("{took:?}");
    assert_eq!(instance.end().answered, 1000);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn others_are_turned_away_even_if_the_mode_lets_them_in() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "needs root");
        return;
    }
    let instance = Instance::start();
    let nobody = || said(client("hostile::as_nobody", &instance).uid(65534).gid(65534));
    assert!(nobody().contains("permission denied: root may ask"));
    std::fs::set_permissions(&instance.path, Permissions::from_mode(0o666)).unwrap();
    for _ in 0..2 {
        let said = nobody();
        assert!(said.contains("uid 65534 may not ask; ask as root"), "{said}");
    }
    is_served(&instance, SLACK);
    assert_eq!(instance.end().answered, 1);
}

/// Not a test by itself.
#[test]
fn as_nobody() {
    let Some(path) = std::env::var_os(SOCKET).map(PathBuf::from) else { return };
    println!("{}", ask(Some(&path), &Request::Status).unwrap_err());
}

/// Not a test by itself.
#[test]
fn as_a_crowd() {
    let Some(path) = std::env::var_os(SOCKET).map(PathBuf::from) else { return };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(4096).min(hard), hard).unwrap();
    let clients: Vec<_> = (0..1000)
        .map(|_| {
            let path = path.clone();
            let client = std::thread::Builder::new().stack_size(256 << 10);
            client.spawn(move || matches!(ask(Some(&path), &Request::Status), Ok(Reply::Status(_)))).unwrap()
        })
        .collect();
    println!("{} answers", clients.into_iter().filter_map(|client| client.join().ok()).filter(|ok| *ok).count());
}
