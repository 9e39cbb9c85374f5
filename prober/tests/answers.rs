//! What a server sees of an HTTP check: its answer taken, as far as it is small, and never more than the bounds allow.

mod rig;

use loaded_ipc::{Cause, Check, FromProber, Pinger, ToProber};
use rig::{BOTH, Rig, check, http, in_network, server, target};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// What became of one answer.
#[derive(Debug)]
struct Seen {
    written: usize,
    /// How the connection ended: `None` is an orderly end.
    error: Option<ErrorKind>,
    took: Duration,
}

/// A server whose answer has `pieces` pieces of this many bytes behind its status line, each after a pause. `ends`: it
/// closes its half of the connection then.
fn answering(address: IpAddr, pieces: usize, length: usize, pause: Duration, ends: bool) -> (u16, Receiver<Seen>) {
    let (sender, seen) = channel();
    let port = server::tcp(address, move |mut stream: TcpStream| {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).expect("a request") > 0);
            let began = Instant::now();
            let (mut written, mut error) = (0, None);
            let body = vec![b'x'; length];
            let head: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
            for piece in std::iter::once(head).chain(std::iter::repeat_n(&body[..], pieces)) {
                match stream.write_all(piece) {
                    Ok(()) => written += piece.len(),
                    Err(failed) => {
                        error = Some(failed.kind());
                        break;
                    }
                }
                std::thread::sleep(pause);
            }
            if ends && error.is_none() {
                error = stream.shutdown(std::net::Shutdown::Write).err().map(|failed| failed.kind());
            }
            error = error.or_else(|| stream.read(&mut request).err().map(|failed| failed.kind()));
            let _ = sender.send(Seen { written, error, took: began.elapsed() });
        });
    });
    (port, seen)
}

/// A prober with one check, every 1.5 s, with a timeout of 1 s.
fn prober(address: IpAddr, port: u16) -> Rig {
    let check = Check { interval: 1500, timeout: 1000, ..check(http(port)) };
    let rig = Rig::start(vec![ToProber::Check { index: 0, check }, target(0, address, 0)], 0, Pinger::None);
    let [(up, cause, latency)] = rig.first_changes(1)[..] else { panic!("one backend") };
    assert_eq!((up, cause), (true, Cause::Passed));
    assert!(latency < 100_000, "the status line came at once: {latency}");
    rig
}

#[test]
fn a_server_sees_a_small_answer_taken() {
    in_network(|| {
        for (name, pieces, length, pause, ends) in [
            ("empty", 0, 0, MS(0), true),
            ("small", 1, 600, MS(50), true),
            ("100 KiB at once", 1, 100 * 1024, MS(0), true),
            ("slow", 20, 1000, MS(40), true),
            ("keeps the connection", 1, 600, MS(0), false),
        ] {
            for address in BOTH.map(|text| text.parse().expect("address")) {
                let (port, seen) = answering(address, pieces, length, pause, ends);
                let rig = prober(address, port);
                let seen = seen.recv_timeout(Duration::from_secs(3)).expect("an answer");
                assert_eq!(seen.error, None, "{name}: {seen:?}");
                assert!(seen.took < MS(1400), "{name}: {seen:?}");
                rig.stop();
            }
        }
    });
}

/// Neither bytes nor time without end, and the next check is in time.
#[test]
fn an_answer_without_end_is_cut_off() {
    /// What is read, and what both ends may have buffered.
    const MOST: usize = 8 * 1024 * 1024;
    in_network(|| {
        for (name, pieces, length, pause) in [("large", 1000, 64 * 1024, MS(0)), ("slow", 10_000, 1, MS(5))] {
            let (port, seen) = answering(LOCAL, pieces, length, pause, true);
            let rig = prober(LOCAL, port);
            let first = seen.recv_timeout(Duration::from_secs(3)).expect("an answer");
            assert!(first.error.is_some() && first.took < MS(1400), "{name}: {first:?}");
            assert!((20..MOST).contains(&first.written), "{name}: {first:?}");
            let began = Instant::now();
            seen.recv_timeout(Duration::from_secs(4)).expect("a second answer");
            assert!(began.elapsed() < MS(2800), "{name}: the next check was in time");
            let changed = |(_, said): &(Instant, FromProber)| matches!(said, FromProber::Changed { .. });
            assert_eq!(rig.listen(MS(100)).iter().filter(|said| changed(said)).count(), 0, "{name}: no other result");
            rig.stop();
        }
    });
}
