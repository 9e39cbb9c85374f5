//! The name of the socket: who has it, who gets it, and when it goes.

use crate::instance::{answer, connect, directory};
use loaded_control::{AskError, Control, ControlError, DIRECTORY, Request, ask, default_path};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn it_is_there_for_its_owner_alone_and_as_long_as_the_instance() {
    let directory = directory();
    let path = directory.join("control.sock");
    let control = Control::bind(&path).unwrap();
    assert_eq!(control.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing else is left");
    drop(control);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    let error = ask(Some(&path), &Request::Status).unwrap_err().to_string();
    let text = "loaded is not running, or was killed and its workers continue until it is started again; --control \
                names another socket";
    assert_eq!(error, format!("no instance answers at {}: {text}", path.display()));
    fs::remove_dir(directory).unwrap();
}

#[test]
fn the_dead_are_replaced_and_the_living_are_not() {
    let directory = directory();
    let path = directory.join("control.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(matches!(ask(Some(&path), &Request::Status), Err(AskError::NoInstance(_))));
    let mut living = Control::bind(&path).unwrap();
    let error = Control::bind(&path).unwrap_err();
    assert!(matches!(&error, ControlError::Live(at) if *at == path), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
    // Also one that is too busy to accept anybody.
    let waiting: Vec<_> = (0..40).map(|_| connect(&path)).collect();
    assert!(matches!(Control::bind(&path), Err(ControlError::Live(_))));
    drop(waiting);
    living.serve(Instant::now(), answer);
    drop(living);
    fs::remove_dir(directory).unwrap();
}

#[test]
fn a_busy_instance_with_a_full_backlog_is_alive() {
    let directory = directory();
    let path = directory.join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _waiting = connect(&path);
    let begin = Instant::now();
    assert!(matches!(Control::bind(&path), Err(ControlError::Live(_))));
    assert!(begin.elapsed() < Duration::from_secs(1));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_is_no_control_socket_is_left_alone() {
    let directory = directory();
    let path = |name: &str| directory.join(name);
    fs::write(path("file"), "precious").unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    drop(UnixListener::bind(path("stale")).unwrap());
    symlink("stale", path("link")).unwrap();
    let _datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
    for name in ["file", "dangling", "link", "datagrams"] {
        let error = Control::bind(&path(name)).unwrap_err();
        assert!(matches!(error, ControlError::InTheWay(_)), "{name}: {error}");
        assert!(path(name).symlink_metadata().is_ok(), "{name}");
    }
    assert!(path("stale").exists());
    let error = Control::bind(&directory.join("none/control.sock")).unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
    let error = Control::bind(&path(&"x".repeat(200))).unwrap_err().to_string();
    assert!(error.contains("File name too long"), "{error}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn anothers_socket_is_not_removed_at_the_end() {
    let directory = directory();
    let path = directory.join("control.sock");
    let first = Control::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let second = Control::bind(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    drop(first);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    drop(second);
    assert!(!path.exists());
    fs::remove_dir(directory).unwrap();
}

/// Set where /run is empty and our own.
const FRESH: &str = "LOADED_TEST_FRESH_RUN";

#[test]
fn instances_share_a_directory_and_a_client_finds_the_only_one() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "needs root");
        return;
    }
    let script = "mount -t tmpfs tmpfs /run && exec \"$0\" --exact socket::in_a_fresh_run --nocapture";
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).env(FRESH, "1");
    let done = inside.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(String::from_utf8(done.stdout).unwrap().contains("all of it was seen"));
}

/// Not a test by itself.
#[test]
fn in_a_fresh_run() {
    if std::env::var_os(FRESH).is_none() {
        return;
    }
    let path = |name: &str| Path::new(DIRECTORY).join(name);
    let mode = |mode| fs::set_permissions(DIRECTORY, fs::Permissions::from_mode(mode)).unwrap();
    let none = format!(
        "no instance answers at {DIRECTORY}: loaded is not running, or was killed and its workers continue until it \
         is started again; --control names another socket"
    );
    assert_eq!(ask(None, &Request::Status).unwrap_err().to_string(), none);

    let first = Control::bind(&default_path()).unwrap();
    assert_eq!(first.path(), path(&format!("control-{}.sock", std::process::id())));
    assert_eq!(fs::metadata(DIRECTORY).unwrap().permissions().mode() & 0o7777, 0o755);
    drop(UnixListener::bind(path("control-1.sock")).unwrap());
    drop(UnixListener::bind(path("mine.sock")).unwrap());
    fs::write(path("control-2.sock"), "precious").unwrap();
    let mut second = Control::bind(&path("control-3.sock")).unwrap();
    let names: BTreeSet<_> = fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What the dead have left under other names, and what is no socket, is not ours to remove.
    let expected = [first.path(), second.path(), &path("control-2.sock"), &path("mine.sock")].map(Path::to_owned);
    assert_eq!(names, expected.into());
    assert!(matches!(ask(None, &Request::Status), Err(AskError::Several(paths)) if paths.len() == 2));

    drop(first);
    let client = std::thread::spawn(|| ask(None, &Request::Status));
    while !client.is_finished() {
        second.serve(Instant::now(), answer);
        std::thread::sleep(Duration::from_millis(1));
    }
    client.join().unwrap().unwrap();
    drop(second);
    assert_eq!(ask(None, &Request::Status).unwrap_err().to_string(), none);

    // A directory that others can write to: they could put their own socket there.
    for open in [0o777, 0o775, 0o1777] {
        mode(open);
        assert!(matches!(Control::bind(&default_path()), Err(ControlError::Directory { .. })));
    }
    mode(0o755);
    std::os::unix::fs::chown(DIRECTORY, Some(65534), None).unwrap();
    let error = Control::bind(&default_path()).unwrap_err().to_string();
    let text = "must be a directory of uid 0 that nobody else may write to";
    assert_eq!(error, format!("control socket: {DIRECTORY} {text}"));
    println!("all of it was seen");
}
