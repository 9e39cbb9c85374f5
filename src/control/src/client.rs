//! The client: finds the instance, sends one request, and waits for the answer with a timeout.

use super::socket::{SocketState, candidates, monitor_path, state};
use super::{DIRECTORY, MAX_ANSWER, MAX_REQUEST, Reply, Request};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for a connection, and then for an answer: a thousand other requests may come first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No instance runs.
    #[error("no instance answers at {}: loaded is not running, or was killed and its workers continue until it is \
             started again; --control names another socket", .0.display())]
    NoInstance(PathBuf),
    /// Several instances run.
    #[error("{} instances answer: name one with --control\n{}", .0.len(), listed(.0))]
    Several(Vec<PathBuf>),
    /// No permission for the socket.
    #[error("{}: permission denied: root may ask, and what changes nothing the members of the configuration's monitor_group", .0.display())]
    Denied(PathBuf),
    /// The request cannot be sent.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// The kernel refused something.
    #[error("{}: {act}: {source}", path.display())]
    Socket {
        /// Of which path.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No complete answer in time.
    #[error("{}: no complete answer in time", .0.display())]
    Silent(PathBuf),
    /// The connection ended.
    #[error("{}: the instance ended the connection without an answer", .0.display())]
    Closed(PathBuf),
    /// The answer does not parse: another program or version.
    #[error("{}: the answer is not understood: {reason}; does the instance run another version?", path.display())]
    Strange {
        /// Who said so.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The instance refused.
    #[error("{0}")]
    Refused(String),
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("  --control {}", path.display())).collect::<Vec<_>>().join("\n")
}

/// Asks the instance at `path`, or the only one running. Never returns [`Reply::Error`]: that becomes an error.
///
/// # Errors
/// If nobody answers, or the instance refuses.
pub fn ask(path: Option<&Path>, request: &Request) -> Result<Reply, AskError> {
    ask_within(path, request, ANSWER_TIMEOUT)
}

/// The same with another limit, for connecting and again for the answer.
///
/// # Errors
/// If nobody answers in time, or the instance refuses.
pub fn ask_within(path: Option<&Path>, request: &Request, limit: Duration) -> Result<Reply, AskError> {
    let path = path.map_or_else(|| find(Path::new(DIRECTORY)), |path| Ok(path.to_owned()))?;
    let mut bytes = serde_json::to_vec(request).map_err(|error| AskError::Request(error.to_string()))?;
    if bytes.len() > MAX_REQUEST {
        return Err(AskError::Request(format!("it is longer than {MAX_REQUEST} bytes; name fewer files")));
    }
    bytes.push(b'\n');
    // A member of monitor_group has a socket of its own to ask by.
    let mut stream = open(&path, limit).or_else(|error| match error {
        AskError::Denied(path) => open(&monitor_path(&path), limit).map_err(|_| AskError::Denied(path)),
        other => Err(other),
    })?;
    // If we were turned away we cannot send, but there is a line to read that says why.
    let sent = stream.write_all(&bytes);
    match receive(&mut stream, &path, limit)? {
        Some(answer) => match serde_json::from_slice(&answer) {
            Ok(Reply::Error { text }) => Err(AskError::Refused(text)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(AskError::Strange { path, reason: error.to_string() }),
        },
        None => match sent {
            Err(source) => Err(AskError::Socket { path, act: "send the request", source }),
            Ok(()) => Err(AskError::Closed(path)),
        },
    }
}

/// The only running instance.
fn find(directory: &Path) -> Result<PathBuf, AskError> {
    let mut live = candidates(directory);
    live.retain(|path| state(path) == SocketState::Live);
    if live.len() > 1 {
        return Err(AskError::Several(live));
    }
    live.pop().ok_or_else(|| AskError::NoInstance(directory.to_owned()))
}

fn open(path: &Path, limit: Duration) -> Result<UnixStream, AskError> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let connected = fd.and_then(|fd| {
        // connect waits as long as this when the backlog is full (unix_stream_connect, net/unix/af_unix.c).
        setsockopt(&fd, SendTimeout, &TimeVal::seconds(i64::try_from(limit.as_secs()).unwrap_or(i64::MAX)))?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(UnixStream::from(fd))
    });
    connected.map_err(|errno| match errno {
        Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR => AskError::NoInstance(path.to_owned()),
        Errno::EACCES | Errno::EPERM => AskError::Denied(path.to_owned()),
        Errno::EAGAIN => AskError::Silent(path.to_owned()),
        errno => AskError::Socket { path: path.to_owned(), act: "connect", source: errno.into() },
    })
}

/// The answer without its newline; `None`: the connection ended before one.
fn receive(stream: &mut UnixStream, path: &Path, limit: Duration) -> Result<Option<Vec<u8>>, AskError> {
    let fail = |source| AskError::Socket { path: path.to_owned(), act: "read the answer", source };
    let end = Instant::now() + limit;
    let mut answer = Vec::new();
    let mut part = vec![0; 65536];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(AskError::Silent(path.to_owned()));
        }
        stream.set_read_timeout(Some(left)).map_err(fail)?;
        let n = match stream.read(&mut part) {
            Ok(0) => return Ok(None),
            Ok(n) => n,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock => continue,
                // What it has not read of the request makes its close a reset (unix_release_sock).
                ErrorKind::ConnectionReset => return Ok(None),
                _ => return Err(fail(error)),
            },
        };
        if let Some(newline) = part[..n].iter().position(|byte| *byte == b'\n') {
            answer.extend_from_slice(&part[..newline]);
            return Ok(Some(answer));
        }
        answer.extend_from_slice(&part[..n]);
        if answer.len() > MAX_ANSWER {
            let reason = format!("it is longer than {MAX_ANSWER} bytes");
            return Err(AskError::Strange { path: path.to_owned(), reason });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_only_living_instance_is_found() {
        let directory = std::env::temp_dir().join(format!("loaded-find-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |name| directory.join(name);
        assert!(matches!(find(&path("none")), Err(AskError::NoInstance(_))));
        drop(UnixListener::bind(path("control-1.sock")).unwrap());
        std::fs::write(path("control-2.sock"), "").unwrap();
        let _other = UnixListener::bind(path("other.sock")).unwrap();
        assert!(matches!(find(&directory), Err(AskError::NoInstance(at)) if at == directory));
        let _first = UnixListener::bind(path("control-3.sock")).unwrap();
        assert_eq!(find(&directory).unwrap(), path("control-3.sock"));
        let _second = UnixListener::bind(path("control-4.sock")).unwrap();
        let text = find(&directory).unwrap_err().to_string();
        assert!(text.starts_with("2 instances answer: name one with --control\n"), "{text}");
        assert!(text.contains("control-3.sock") && text.contains("control-4.sock"), "{text}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
