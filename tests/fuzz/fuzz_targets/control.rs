//! Bytes on the control socket: a request is read as it was written, and each connection gets one line or its end,
//! however its bytes are cut up and however slow they come.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use loaded_control::{Control, MAX_REQUEST, REQUEST_DEADLINE, Reply, Request, TAKE_DEADLINE};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Arbitrary)]
struct Input<'b> {
    /// Spaces before the text: as long as a request may be, and longer.
    spaces: u16,
    text: &'b [u8],
    /// Where the bytes are cut, and the milliseconds between the parts.
    cuts: Vec<(u16, u16)>,
    ends: bool,
    /// A second client comes between.
    other: bool,
}

thread_local! {
    static CONTROL: RefCell<(Control, PathBuf)> = RefCell::new({
        let directory = std::env::temp_dir().join(format!("loaded-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("control.sock");
        (Control::bind(&path).expect("bind"), path)
    });
}

fn answer(request: &Request) -> Reply {
    match request {
        Request::Diff { files } => Reply::Diff { lines: files.iter().map(|file| file.display().to_string()).collect() },
        other => Reply::Done { lines: vec![format!("{other:?}")] },
    }
}

/// What was answered; an answer is one line.
fn hear(stream: &mut UnixStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // What the client wrote too much was not read.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("it is over, yet: {error}"),
    }
    let (end, line) = bytes.split_last()?;
    assert!(*end == b'\n' && !line.contains(&b'\n'));
    Some(serde_json::from_slice(line).expect("a reply"))
}

fn connect(path: &PathBuf) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_nonblocking(true).expect("nonblocking");
    stream
}

fuzz_target!(|input: Input<'_>| {
    let spaces = usize::from(input.spaces) % (MAX_REQUEST + 8);
    let mut sent = vec![b' '; if input.spaces.is_multiple_of(4) { spaces } else { 0 }];
    sent.extend(input.text);
    let line = sent.split(|byte| *byte == b'\n').next().expect("one at least");
    let parsed = Request::parse(line);
    if let Ok(request) = &parsed {
        assert!(line.len() <= MAX_REQUEST);
        let text = serde_json::to_vec(request).expect("it can be written");
        if text.len() <= MAX_REQUEST {
            assert_eq!(Request::parse(&text).as_ref(), Ok(request));
        }
    }
    CONTROL.with_borrow_mut(|(control, path)| {
        let (mut now, mut asked) = (Instant::now(), Vec::new());
        let begin = now;
        let mut stream = connect(path);
        let mut other = input.other.then(|| connect(path));
        let mut rest = &sent[..];
        for &(cut, pause) in input.cuts.iter().take(8) {
            let (part, later) = rest.split_at(rest.len().min(cut.into()));
            rest = later;
            let _ = stream.write(part);
            control.serve(now, |request| {
                let reply = answer(&request);
                asked.push(request);
                reply
            });
            now += Duration::from_millis(u64::from(pause % 600));
        }
        let _ = stream.write(rest);
        if input.ends {
            let _ = stream.shutdown(Shutdown::Write);
        }
        if let Some(other) = &mut other {
            let _ = other.write(b"\"status\"\n");
        }
        // One request a turn; the deadlines are over in the end.
        for step in 0..4 {
            control.serve(now, |request| {
                let reply = answer(&request);
                asked.push(request);
                reply
            });
            if step == 1 {
                now = now.max(begin) + REQUEST_DEADLINE;
            } else if step == 2 {
                now += TAKE_DEADLINE;
            }
        }
        assert!(control.next_deadline().is_none(), "every connection is over");
        let most = usize::from(input.other) + 1;
        assert!(asked.len() <= most);
        for stream in [Some(&mut stream), other.as_mut()].into_iter().flatten() {
            match hear(stream) {
                Some(Reply::Error { text }) => assert!(!text.is_empty()),
                Some(reply) => {
                    let place = asked.iter().position(|request| answer(request) == reply).expect("it was asked");
                    asked.remove(place);
                }
                None => {}
            }
        }
        if let Some(request) = asked.first() {
            // Answered, and the client's own fault that it was not heard: it had written more than it might.
            assert!(parsed.as_ref() == Ok(request) || *request == Request::Status);
        }
    });
});
