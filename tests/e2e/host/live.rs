//! What an operator watches: `loaded top`, `status --watch` and `events`, on a terminal and in a pipe.

use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

fn asking(loaded: &Loaded, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).arg("--control").arg(loaded.control());
    command
}

/// A command on a terminal of 80 columns and 24 lines, and the terminal's other end.
fn on_a_terminal(mut command: Command) -> (Child, File) {
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    command.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").stdin(slave.try_clone().unwrap());
    let child = command.stdout(slave).stderr(Stdio::null()).spawn().unwrap();
    (child, File::from(master))
}

/// What it has written when `letters` were pressed, each after the next frame, and it has ended.
fn after(command: Command, letters: &[u8]) -> String {
    let (mut child, mut terminal) = on_a_terminal(command);
    let (mut all, out) = (Vec::new(), frames_of(&terminal));
    for letter in letters {
        all.extend(out.recv_timeout(WAIT).expect("no frame in time"));
        terminal.write_all(&[*letter]).unwrap();
    }
    // Keys pressed ahead of a busy machine come together; none may be lost.
    let mut ended = None;
    for _ in 0..100 {
        ended = child.try_wait().unwrap();
        if ended.is_some() {
            break;
        }
        std::thread::sleep(WAIT / 100);
    }
    let _ = child.kill();
    let ended = ended.or_else(|| child.wait().ok()).unwrap();
    assert!(ended.success(), "it did not end by itself: {ended}");
    // Nobody has the other end any more, so reading ends with EIO.
    out.iter().for_each(|bytes| all.extend(bytes));
    String::from_utf8(all).unwrap()
}

/// Everything that is written to a terminal, frame by frame: each is one write.
fn frames_of(terminal: &File) -> mpsc::Receiver<Vec<u8>> {
    let (mut terminal, (to, from)) = (terminal.try_clone().unwrap(), mpsc::channel());
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = terminal.read(&mut bytes) {
            if to.send(bytes[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    from
}

#[test]
fn rates_and_events_are_shown_as_they_come() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lab.within("client", || {
                while !over.load(Ordering::Relaxed) {
                    let _ = Family::BOTH.map(|family| get(family.client(20), family.vip(), 80));
                }
            });
        });
        let frames = asking(&loaded, &["top", "-n", "2", "-i", "1", "--sort", "packets"]).output().unwrap();
        over.store(true, Ordering::Relaxed);
        let text = String::from_utf8(frames.stdout).unwrap();
        let frame: Vec<_> = text.lines().collect();
        assert!(frame[0].starts_with("serving  loaded ") && !text.contains('\x1b'), "{text}");
        assert!(frame[1].contains(" pkt/s") && !frame[1].contains(" 0 pkt/s"), "{text}");
        assert!(frame.iter().filter(|line| line.starts_with("serving ")).count() == 2, "{text}");
    });

    let mut events = asking(&loaded, &["events", "-n", "0", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let backend = Family::V4.backend(1).to_string();
    // The command has to have asked for the first time: said again until it is shown.
    let said = AtomicBool::new(false);
    let line = std::thread::scope(|scope| {
        let line = scope.spawn(|| {
            let line = lines.next().unwrap().unwrap();
            said.store(true, Ordering::Relaxed);
            line
        });
        let shown = eventually(WAIT, || {
            loaded.ask(&["backend", "disable", &backend]);
            loaded.ask(&["backend", "enable", &backend]);
            said.load(Ordering::Relaxed)
        });
        // Also whoever still waits for a line comes back then.
        events.kill().unwrap();
        assert!(shown, "no event in time");
        line.join().unwrap()
    });
    events.wait().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(event["address"] == backend.as_str() && event["by"] == "operator", "{line}");

    // The keys scroll, sort, pause and end; then the terminal is as it was.
    for (words, head, keys) in [
        (&["top", "-i", "1"][..], "SERVICE, BACKEND", &b"bj q"[..]),
        (&["status", "--watch", "1"], "generation", b"jkq"),
    ] {
        let shown = after(asking(&loaded, words), keys);
        assert!(
            shown.starts_with("\x1b[?1049h") && shown.contains(head) && shown.ends_with("\x1b[?1049l"),
            "{shown:?}"
        );
    }
    loaded.stop();
}
