//! As much HTTP/1.1 as a check needs: one request, and of the answer the status line (RFC 9112 §4) behind any interim
//! answers. The rest is read and forgotten, so that the server sees its answer taken and not a reset.

use super::socket::cause_of;
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// A status line must end within this many bytes.
const MAX_LINE: usize = 4096;
/// All interim answers, and the status line behind them, must end within this many bytes.
const MAX_INTERIM: usize = 16 * 1024;
/// Bytes of an answer that are read after the status line. A longer answer is cut off: its server sees a reset.
const MAX_REST: usize = 256 * 1024;
/// Bytes of the rest read before other checks get their turn.
const REST_AT_ONCE: usize = 16 * 1024;
/// More than any request has: method, path and host, 16, 128 and 128 bytes; field names; a backend, 58 bytes at most.
pub(super) const MAX_REQUEST: usize = 512;
/// `HTTP/1.1 200` and the byte behind it.
const HEAD: usize = 13;
const VERSION: &[u8] = b"HTTP/1.";

/// Builds the request; if it is not whole, [`to_checker`] ends it. Refuses parts that would change it or smuggle in a second one.
pub(super) fn request(method: &str, path: &str, host: &str, is_whole: bool) -> Result<Vec<u8>, &'static str> {
    let sound =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b > b' ' && b != 0x7f);
    if !sound(method, 16) || !sound(path, 128) || !sound(host, 128) {
        return Err("an HTTP method, path or host is empty, too long, or has a blank or control character");
    }
    let end = if is_whole { "\r\n" } else { "" };
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: loaded\r\n{end}");
    Ok(request.into_bytes())
}

/// Ends a request to a checker with the backend that it is about. `space` is for the whole.
pub(super) fn to_checker<'s>(
    request: &[u8],
    backend: SocketAddr,
    space: &'s mut [u8; MAX_REQUEST],
) -> Option<&'s [u8]> {
    let mut rest = space.as_mut_slice();
    rest.write_all(request).and_then(|()| write!(rest, "Loaded-Backend: {backend}\r\n\r\n")).ok()?;
    let left = rest.len();
    space.get(..MAX_REQUEST - left)
}

/// The beginning of an answer, as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct AnswerHead {
    /// The beginning of the current status line.
    start: [u8; HEAD],
    /// Length of the current line so far; of a field line, without carriage returns.
    line: usize,
    received: usize,
    /// Whether the lines are fields of an interim answer, which an empty line ends.
    in_fields: bool,
}

/// How far an answer has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The final status line is incomplete.
    More,
    /// It is complete; this is the status.
    Status(u16),
    /// No answer will come, or it is not HTTP.
    Failed(Cause),
}

/// Reads once.
pub(super) fn receive(socket: &OwnedFd, head: &mut AnswerHead) -> Progress {
    let mut bytes = [0; MAX_LINE];
    match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        Ok(0) => Progress::Failed(Cause::Closed),
        Ok(length) => head.feed(&bytes[..length]),
        Err(Errno::EAGAIN | Errno::EINTR) => Progress::More,
        Err(Errno::ETIMEDOUT) => Progress::Failed(Cause::AnswerTimeout),
        Err(errno) => Progress::Failed(cause_of(errno)),
    }
}

/// Reads the rest of an answer once; `read` counts its bytes. Returns whether the connection can be closed: the server
/// has closed it, or the answer is too long.
pub(super) fn read_rest(socket: &OwnedFd, read: &mut usize) -> bool {
    let mut bytes = [0; REST_AT_ONCE];
    // MSG_TRUNC takes the bytes off the socket and copies none (tcp_recvmsg_locked, net/ipv4/tcp.c).
    match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_TRUNC) {
        Ok(0) => true,
        Ok(length) => {
            *read = read.saturating_add(length);
            *read >= MAX_REST
        }
        Err(Errno::EAGAIN | Errno::EINTR) => false,
        Err(_) => true,
    }
}

impl AnswerHead {
    /// Takes the next bytes.
    fn feed(&mut self, bytes: &[u8]) -> Progress {
        for byte in bytes {
            if self.received == MAX_INTERIM {
                return Progress::Failed(Cause::WrongAnswer);
            }
            self.received += 1;
            if self.in_fields {
                self.field(*byte);
                continue;
            }
            match self.status_line(*byte) {
                Progress::More => {}
                end => return end,
            }
        }
        Progress::More
    }

    fn field(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.in_fields = self.line > 0;
                self.line = 0;
            }
            b'\r' => {}
            _ => self.line += 1,
        }
    }

    fn status_line(&mut self, byte: u8) -> Progress {
        let wrong = Progress::Failed(Cause::WrongAnswer);
        if VERSION.get(self.line).is_some_and(|wanted| *wanted != byte) {
            return wrong;
        }
        if let Some(place) = self.start.get_mut(self.line) {
            *place = byte;
        }
        self.line += 1;
        if byte != b'\n' {
            return if self.line == MAX_LINE { wrong } else { Progress::More };
        }
        match status(&self.start[..self.line.min(HEAD)]) {
            None => wrong,
            Some(status) if is_interim(status) => {
                (self.line, self.in_fields) = (0, true);
                Progress::More
            }
            Some(status) => Progress::Status(status),
        }
    }
}

/// Whether another answer follows (RFC 9110 §15.2). 101 ends the conversation in HTTP, and no check asks for that.
fn is_interim(status: u16) -> bool {
    (100..200).contains(&status) && status != 101
}

/// `HTTP/1.x NNN`, and then a blank or the end of the line.
fn status(start: &[u8]) -> Option<u16> {
    let [minor, b' ', digits @ .., b' ' | b'\r' | b'\n'] = start.strip_prefix(VERSION)? else { return None };
    let [_, _, _] = digits else { return None };
    if !minor.is_ascii_digit() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(answer: &[u8]) -> Progress {
        AnswerHead::default().feed(answer)
    }

    #[test]
    fn a_status_is_read_or_the_answer_is_wrong() {
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\nServer: x"), Progress::Status(200));
        assert_eq!(whole(b"HTTP/1.0 503\r\n"), Progress::Status(503));
        assert_eq!(whole(b"HTTP/1.1 204\n"), Progress::Status(204));
        assert_eq!(whole(b"HTTP/1.1 200 OK"), Progress::More);
        for wrong in [
            "SSH-2.0-x\r\n",
            "HTTP/2 200\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1\t200 \n",
            "\r\n",
            "HTTP/1.x 200 \n",
            "HTTP/1.1 2x0 \n",
            "HTTP/1.\n",
        ] {
            assert_eq!(whole(wrong.as_bytes()), Progress::Failed(Cause::WrongAnswer), "{wrong:?}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_wrong_after_four_kilobytes() {
        let mut line = AnswerHead::default();
        assert_eq!(line.feed(b"HTTP/1.1 200 "), Progress::More);
        assert_eq!(line.feed(&[b'x'; MAX_LINE - 14]), Progress::More);
        assert_eq!(line.feed(&[b'x'; 100]), Progress::Failed(Cause::WrongAnswer));
    }

    #[test]
    fn the_answer_behind_interim_ones_counts() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        let bare = "HTTP/1.0 199\nA: b\n\n";
        for (interim, last, progress) in [
            (vec![hints], "HTTP/1.1 200 OK\r\n", Progress::Status(200)),
            (vec![go_on, hints, bare, go_on], "HTTP/1.1 503 No\r\n", Progress::Status(503)),
            (vec![go_on; 500], "HTTP/1.1 204\n", Progress::Status(204)),
            (vec![hints], "HTTP/1.1 101 Switching Protocols\r\n", Progress::Status(101)),
            (vec![hints], "", Progress::More),
            (vec![hints], "x", Progress::Failed(Cause::WrongAnswer)),
            (vec![hints; 400], "", Progress::Failed(Cause::WrongAnswer)),
        ] {
            let answer = interim.concat() + last;
            for cut in [1, 7, 4096] {
                let mut head = AnswerHead::default();
                let mut pieces = answer.as_bytes().chunks(cut).map(|piece| head.feed(piece));
                let end = pieces.find(|progress| *progress != Progress::More).unwrap_or(Progress::More);
                assert_eq!(end, progress, "{} interim answers, then {last:?}, cut at {cut}", interim.len());
            }
        }
    }

    #[test]
    fn an_interim_answer_that_never_ends_is_wrong_after_sixteen_kilobytes() {
        let mut head = AnswerHead::default();
        assert_eq!(head.feed(b"HTTP/1.1 102 \r\n"), Progress::More);
        assert_eq!(head.feed(&[b'x'; MAX_INTERIM - 15]), Progress::More);
        assert_eq!(head.feed(b"x"), Progress::Failed(Cause::WrongAnswer));
    }

    #[test]
    fn a_request_cannot_be_smuggled() {
        let request = request("GET", "/health?x=1", "a.example", true).expect("good");
        assert_eq!(
            request,
            b"GET /health?x=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nUser-Agent: loaded\r\n\r\n"
        );
        for (method, path, host) in [("", "/", "h"), ("GET", "/ x", "h"), ("GET", "/", "h\r\nX: y"), ("G\t", "/", "h")]
        {
            assert!(super::request(method, path, host, true).is_err());
        }
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            answer in prop_oneof![
                "(HTTP/1\\.1 10[0-3]\r\n([a-z]{1,9}\r?\n){0,2}\r\n){0,3}HTTP/1\\.[0-9] [0-9]{3}( [a-z]{0,20})?\r?\n[a-z]{0,30}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..60),
            ],
            cut in 1usize..20,
        ) {
            let mut line = AnswerHead::default();
            let mut progress = Progress::More;
            for piece in answer.chunks(cut) {
                progress = line.feed(piece);
                if progress != Progress::More {
                    break;
                }
            }
            prop_assert_eq!(progress, whole(&answer));
        }
    }
}
