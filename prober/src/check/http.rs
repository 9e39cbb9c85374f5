//! As much HTTP/1.1 as a check needs: one request, and of the answer the status line (RFC 9112 §4).

use super::cause_of;
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsRawFd, OwnedFd};

/// The status line must end within this many bytes.
const MAX_LINE: usize = 4096;
/// `HTTP/1.1 200` and the byte behind it.
const HEAD: usize = 13;
const VERSION: &[u8] = b"HTTP/1.";

/// Builds the request. Refuses parts that would change it or smuggle in a second one.
pub(super) fn request(method: &str, path: &str, host: &str) -> Result<Vec<u8>, &'static str> {
    let sound =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b > b' ' && b != 0x7f);
    if !sound(method, 16) || !sound(path, 128) || !sound(host, 128) {
        return Err("an HTTP method, path or host is empty, too long, or has a blank or control character");
    }
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: loaded\r\n\r\n");
    Ok(request.into_bytes())
}

/// The beginning of an answer, as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct StatusLine {
    head: [u8; HEAD],
    received: usize,
}

/// How far an answer has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The status line is incomplete.
    More,
    /// The status line is complete; this is the status.
    Status(u16),
    /// No answer will come, or it is not HTTP.
    Failed(Cause),
}

/// Reads once.
pub(super) fn receive(socket: &OwnedFd, line: &mut StatusLine) -> Progress {
    let mut bytes = [0; MAX_LINE];
    match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
        Ok(0) => Progress::Failed(Cause::Closed),
        Ok(length) => line.feed(&bytes[..length]),
        Err(Errno::EAGAIN | Errno::EINTR) => Progress::More,
        Err(Errno::ETIMEDOUT) => Progress::Failed(Cause::AnswerTimeout),
        Err(errno) => Progress::Failed(cause_of(errno)),
    }
}

impl StatusLine {
    /// Takes the next bytes.
    fn feed(&mut self, bytes: &[u8]) -> Progress {
        let bytes = &bytes[..bytes.len().min(MAX_LINE - self.received)];
        for (place, byte) in self.head.iter_mut().skip(self.received).zip(bytes) {
            *place = *byte;
        }
        self.received += bytes.len();
        let head = &self.head[..self.received.min(HEAD)];
        if head.iter().zip(VERSION).any(|(found, wanted)| found != wanted) {
            return Progress::Failed(Cause::WrongAnswer);
        }
        if bytes.contains(&b'\n') {
            return status(head).map_or(Progress::Failed(Cause::WrongAnswer), Progress::Status);
        }
        if self.received == MAX_LINE { Progress::Failed(Cause::WrongAnswer) } else { Progress::More }
    }
}

/// `HTTP/1.x NNN`, and then a blank or the end of the line.
fn status(head: &[u8]) -> Option<u16> {
    let [minor, b' ', digits @ .., b' ' | b'\r' | b'\n'] = head.strip_prefix(VERSION)? else { return None };
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
        StatusLine::default().feed(answer)
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
        let mut line = StatusLine::default();
        assert_eq!(line.feed(b"HTTP/1.1 200 "), Progress::More);
        assert_eq!(line.feed(&[b'x'; MAX_LINE - 14]), Progress::More);
        assert_eq!(line.feed(&[b'x'; 100]), Progress::Failed(Cause::WrongAnswer));
    }

    #[test]
    fn a_request_cannot_be_smuggled() {
        let request = request("GET", "/health?x=1", "a.example").expect("good");
        assert_eq!(
            request,
            b"GET /health?x=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nUser-Agent: loaded\r\n\r\n"
        );
        for (method, path, host) in [("", "/", "h"), ("GET", "/ x", "h"), ("GET", "/", "h\r\nX: y"), ("G\t", "/", "h")]
        {
            assert!(super::request(method, path, host).is_err());
        }
    }

    proptest! {
        #[test]
        fn pieces_say_what_the_whole_says(
            answer in prop_oneof![
                "HTTP/1\\.[0-9] [0-9]{3}( [a-z]{0,20})?\r?\n[a-z]{0,30}".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..60),
            ],
            cut in 1usize..20,
        ) {
            let mut line = StatusLine::default();
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
