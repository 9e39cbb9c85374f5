//! The operator's terminal: a screen of its own, keys as they are pressed, and everything as it was at the end. Escape
//! sequences are those of ECMA-48, and of xterm for the other screen ("ctlseqs", DECSET 1049 and 25).

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Enters the other screen and hides the cursor; the other way round.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Home; clear to the end of the line; clear to the end of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The terminal, as long as the screen is shown.
#[derive(Debug)]
pub(super) struct Terminal {
    before: Termios,
    /// A signal has come that ends a program.
    ended: Arc<AtomicBool>,
}

/// What the operator has pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    /// By a page.
    Up(bool),
    Down(bool),
    Letter(u8),
}

/// Whether there is somebody to look at a screen and to press keys.
pub(super) fn is_there() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// Columns and lines of the terminal; `None`: there is none.
pub(super) fn size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(io::stdout())?;
    Some((width.0.into(), height.0.into()))
}

/// Whether the locale says that text is UTF-8 (locale(7)).
pub(super) fn shows_utf8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(std::env::var_os).find(|value| !value.is_empty());
    set.is_some_and(|value| {
        let value = value.to_string_lossy().to_ascii_lowercase();
        value.ends_with("utf-8") || value.ends_with("utf8")
    })
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&ended))?;
        }
        // So that poll(2) returns, and the screen is painted in its new size.
        signal_hook::flag::register(SIGWINCH, Arc::default())?;
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        let terminal = Self { before, ended };
        write(ENTER)?;
        Ok(terminal)
    }

    /// Paints these lines over those of before, in one write so that nothing flickers.
    pub(super) fn paint(&mut self, lines: &[String]) -> io::Result<()> {
        write(&format!("{HOME}{}{CLEAR_LINE}{CLEAR_BELOW}", lines.join(&format!("{CLEAR_LINE}\r\n"))))
    }

    /// What is pressed within this time: several keys, if they were pressed quickly.
    pub(super) fn keys(&mut self, wait: Duration) -> io::Result<Vec<Key>> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let ready = match poll(&mut fds, wait) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        if self.ended.load(Ordering::Relaxed) {
            return Ok(vec![Key::Quit]);
        }
        if ready == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 64];
        // Not by the buffer of `Stdin`: what it held back poll(2) would not tell of.
        let count = nix::unistd::read(stdin.as_fd(), &mut bytes)?;
        // The terminal has gone if there is nothing.
        Ok(if count == 0 { vec![Key::Quit] } else { keys(&bytes[..count]) })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = write(LEAVE);
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The keys that send these bytes. In raw mode control-C is one too.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let (key, length) = match bytes {
            [b'q' | b'Q' | 3 | 4, ..] | [0x1b] => (Some(Key::Quit), 1),
            [0x1b, b'[' | b'O', b'A', ..] => (Some(Key::Up(false)), 3),
            [0x1b, b'[' | b'O', b'B', ..] => (Some(Key::Down(false)), 3),
            [0x1b, b'[', b'5', b'~', ..] => (Some(Key::Up(true)), 4),
            [0x1b, b'[', b'6', b'~', ..] => (Some(Key::Down(true)), 4),
            [0x1b, b'[' | b'O', rest @ ..] => (None, 2 + sequence(rest)),
            [b'k', ..] => (Some(Key::Up(false)), 1),
            [b'j', ..] => (Some(Key::Down(false)), 1),
            [letter @ (b' ' | b'a'..=b'z'), ..] => (Some(Key::Letter(*letter)), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    keys
}

/// Length of the rest of a control sequence: up to its final byte (ECMA-48 §5.4).
fn sequence(rest: &[u8]) -> usize {
    rest.iter().position(|byte| (0x40..=0x7e).contains(byte)).map_or(rest.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        for (bytes, expected) in [
            (&b"q"[..], &[Key::Quit][..]),
            (b"\x03", &[Key::Quit]),
            (b"\x1b", &[Key::Quit]),
            (b"\x1b[A", &[Key::Up(false)]),
            (b"\x1bOB", &[Key::Down(false)]),
            (b"\x1b[5~", &[Key::Up(true)]),
            (b"j", &[Key::Down(false)]),
            (b" ", &[Key::Letter(b' ')]),
            (b"\x1b[Z", &[]),
            (b"\x1b[1;5C\x1b[", &[]),
            (b"\xff\xfe", &[]),
            (b"", &[]),
            // Pressed quickly, or typed ahead of a machine that is busy.
            (b"b\x1b[B q", &[Key::Letter(b'b'), Key::Down(false), Key::Letter(b' '), Key::Quit]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }
}
