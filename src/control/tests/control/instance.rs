//! An instance as far as its control socket goes: the poll loop, with nothing else in it.

use crate::sample;
use loaded_control::{Control, Reply, Request};
use nix::poll::{PollTimeout, poll};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest a turn may hold the loop up. Code that is not optimized needs 15 ms to write 400 kB of JSON.
const TURN: Duration = Duration::from_millis(if cfg!(debug_assertions) { 40 } else { 10 });

/// What the loop has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) answered: u32,
    /// What a turn took at most.
    pub(crate) longest: Duration,
}

pub(crate) struct Instance {
    pub(crate) path: PathBuf,
    directory: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

/// A directory of its own, which others can pass.
pub(crate) fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("loaded-control-{}-{n}", std::process::id()));
    std::fs::create_dir(&path).unwrap();
    path
}

/// To [`Request::Diff`] it answers as many kilobytes as files are named, times 100; to the rest by samples.
pub(crate) fn answer(request: Request) -> Reply {
    match request {
        Request::Health => Reply::Health(Box::default()),
        Request::Status => Reply::Status(Box::new(sample::status())),
        Request::History { last } => Reply::History(sample::history().last(last)),
        Request::Backend { address, .. } => Reply::error(format!("no service has the backend {address}")),
        Request::Drain { .. } | Request::CancelDrain | Request::Amend { .. } | Request::Reload => {
            Reply::Done { lines: Vec::new() }
        }
        Request::Unsaved => Reply::Unsaved { lines: Vec::new(), file: None },
        Request::Explain(tuple) => Reply::error(format!("{} is no virtual IP", tuple.vip)),
        Request::Config => Reply::Config { text: String::new() },
        Request::Flows(_) => Reply::Flows(Box::default()),
        Request::EndFlows(_) => Reply::Ended(loaded_control::EndedFlows::default()),
        Request::Diff { files } => Reply::Diff { lines: vec!["x".repeat(100_000); files.len()] },
    }
}

impl Instance {
    pub(crate) fn start() -> Self {
        let directory = directory();
        let path = directory.join("control.sock");
        let mut control = Control::bind(&path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen { answered: 0, longest: Duration::ZERO };
            while !told.load(Ordering::Relaxed) {
                let most = Instant::now() + Duration::from_millis(20);
                let next = control.next_deadline().unwrap_or(most).min(most);
                let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                let mut wanted = Vec::new();
                control.poll_fds(&mut wanted);
                let _ = poll(&mut wanted, PollTimeout::try_from(wait).unwrap());
                drop(wanted);
                let (begin, before) = (Instant::now(), usage());
                control.serve(begin, |request| {
                    seen.answered += 1;
                    answer(request)
                });
                let (took, after) = (begin.elapsed(), usage());
                // Tests share the machine: a thread that is put aside, or whose virtual core is, has not waited. One that
                // has waited gave its core away by itself.
                let waited = after.voluntary_context_switches() > before.voluntary_context_switches();
                seen.longest = seen.longest.max(if waited { took } else { took.min(used(&after) - used(&before)) });
            }
            seen
        });
        Self { path, directory, stop, thread: Some(thread) }
    }

    /// Ends it. No turn may have held the loop up.
    pub(crate) fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.take().unwrap().join().unwrap();
        assert!(!self.path.exists(), "the socket goes with the instance");
        println!("{seen:?}");
        assert!(seen.longest < TURN, "{seen:?}");
        seen
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn usage() -> Usage {
    getrusage(UsageWho::RUSAGE_THREAD).unwrap()
}

fn used(usage: &Usage) -> Duration {
    let time = |value: TimeVal| Duration::from_micros(value.num_microseconds().unsigned_abs());
    time(usage.user_time()) + time(usage.system_time())
}

pub(crate) fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends, if need be in part, and reads what comes until the end.
pub(crate) fn talk(stream: &mut UnixStream, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes);
    hear(stream)
}

/// A connection that ends with a reset, because not everything was read, has said its words too.
pub(crate) fn hear(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    while let Ok(n) = stream.read(&mut part) {
        if n == 0 {
            break;
        }
        text.extend_from_slice(&part[..n]);
    }
    String::from_utf8(text).unwrap()
}

/// The text of an error as it comes over the socket: one line.
pub(crate) fn error(answer: &str) -> String {
    let line = answer.strip_suffix('\n').unwrap_or_else(|| panic!("no whole line: {answer:?}"));
    assert!(!line.contains('\n'), "{answer:?}");
    match serde_json::from_str(line).unwrap() {
        Reply::Error { text } => text,
        other => panic!("{other:?}"),
    }
}
