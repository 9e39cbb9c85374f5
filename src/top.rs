//! `loaded top`: what services and backends do right now, painted again and again. Asks as every other command does; the
//! instance does nothing for it but answer.

mod status;
mod terminal;

pub(crate) use status::watch;

use crate::cli::{TopLine, TopSort};
use crate::{AnyError, UNASKED};
use loaded_control::live::{Frame, Live, Sort, View, screen};
use loaded_control::{Reply, Request, Status, ask, text};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use terminal::{Key, Terminal};

/// Columns and lines where nothing tells them.
const WIDTH: usize = 80;
const HEIGHT: usize = 24;
/// Lines that a page key scrolls.
const PAGE: usize = 10;

/// Shows the instance until the operator ends it, or as often as asked for. Returns the exit code.
///
/// # Errors
/// If there is no instance at first, or the terminal cannot be used.
pub(crate) fn run(socket: Option<&Path>, line: &TopLine) -> Result<i32, AnyError> {
    let every = Duration::from_secs(line.interval.into());
    match line.count.is_none() && terminal::is_there() {
        true => Screen::open(line.sort)?.run(socket, every),
        false => print(socket, line, every),
    }
}

/// For a pipe, or a number of times: frame after frame, with no escape sequence.
fn print(socket: Option<&Path>, line: &TopLine, every: Duration) -> Result<i32, AnyError> {
    let width = terminal::size().map_or(WIDTH, |(width, _)| width);
    let view = View { width, height: None, skipped: 0, sort: line.sort.into(), colour: false, unicode: false };
    let mut live = Live::default();
    // The first has no rates yet.
    let _ = live.frame(Instant::now(), &*status(socket)?);
    for _ in 0..line.count.unwrap_or(u32::MAX) {
        std::thread::sleep(every);
        let lines = screen(&live.frame(Instant::now(), &*status(socket)?), &view);
        let mut out = io::stdout().lock();
        if writeln!(out, "{}\n", lines.join("\n")).and_then(|()| out.flush()).is_err() {
            // Whoever reads has enough.
            break;
        }
    }
    Ok(0)
}

fn status(socket: Option<&Path>) -> Result<Box<Status>, AnyError> {
    match ask(socket, &Request::Status)? {
        Reply::Status(status) => Ok(status),
        _ => Err(UNASKED.into()),
    }
}

/// The terminal, and what is seen on it.
#[derive(Debug)]
struct Screen {
    terminal: Terminal,
    view: View,
    live: Live,
    frame: Option<Frame>,
    trouble: Option<String>,
    paused: bool,
}

impl Screen {
    fn open(sort: TopSort) -> io::Result<Self> {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let unicode = terminal::shows_utf8();
        let view = View { width: WIDTH, height: None, skipped: 0, sort: sort.into(), colour, unicode };
        let terminal = Terminal::open()?;
        Ok(Self { terminal, view, live: Live::default(), frame: None, trouble: None, paused: false })
    }

    fn run(mut self, socket: Option<&Path>, every: Duration) -> Result<i32, AnyError> {
        let mut due = Instant::now();
        loop {
            if Instant::now() >= due {
                due = Instant::now() + every;
                if !self.paused {
                    self.look(socket)?;
                }
            }
            self.paint()?;
            for key in self.terminal.keys(due.saturating_duration_since(Instant::now()))? {
                match key {
                    Key::Quit => return Ok(0),
                    key => self.obey(key),
                }
            }
        }
    }

    /// An instance that does not answer may be upgraded or started again: its last frame stays. The first look must succeed.
    fn look(&mut self, socket: Option<&Path>) -> Result<(), AnyError> {
        match status(socket) {
            Ok(status) => {
                self.frame = Some(self.live.frame(Instant::now(), &status));
                self.trouble = None;
            }
            Err(error) if self.frame.is_none() => return Err(error),
            Err(error) => self.trouble = Some(error.to_string()),
        }
        Ok(())
    }

    fn paint(&mut self) -> io::Result<()> {
        let Some(frame) = &self.frame else { return Ok(()) };
        let (width, height) = terminal::size().unwrap_or((WIDTH, HEIGHT));
        let below = match (&self.trouble, self.paused) {
            (Some(trouble), _) => format!("no answer: {}", text::plain(trouble).replace('\n', " ")),
            (None, true) => "paused; space goes on".to_owned(),
            (None, false) => "sort: n config f flows c new p packets b bits l latency; space pauses, q ends".to_owned(),
        };
        self.view = View { width, height: Some(height.saturating_sub(1)), ..self.view };
        let mut lines = screen(frame, &self.view);
        lines.push(below.chars().take(width).collect());
        self.terminal.paint(&lines)
    }

    fn obey(&mut self, key: Key) {
        let skipped = &mut self.view.skipped;
        // As many rows as there can be are an end to scrolling.
        let rows =
            self.frame.iter().flat_map(|frame| &frame.services).map(|(_, backends)| backends.len() + 1).sum::<usize>();
        match key {
            Key::Up(page) => *skipped = skipped.saturating_sub(if page { PAGE } else { 1 }),
            Key::Down(page) => *skipped = (*skipped + if page { PAGE } else { 1 }).min(rows),
            Key::Letter(b' ') => self.paused = !self.paused,
            Key::Letter(letter) => {
                if let Some(sort) = sort_of(letter) {
                    (self.view.sort, *skipped) = (sort, 0);
                }
            }
            Key::Quit => {}
        }
    }
}

fn sort_of(letter: u8) -> Option<Sort> {
    Some(match letter {
        b'n' => Sort::Config,
        b'f' => Sort::Flows,
        b'c' => Sort::New,
        b'p' => Sort::Packets,
        b'b' => Sort::Bits,
        b'l' => Sort::Latency,
        _ => return None,
    })
}

impl From<TopSort> for Sort {
    fn from(sort: TopSort) -> Self {
        match sort {
            TopSort::Config => Self::Config,
            TopSort::Flows => Self::Flows,
            TopSort::New => Self::New,
            TopSort::Packets => Self::Packets,
            TopSort::Bits => Self::Bits,
            TopSort::Latency => Self::Latency,
        }
    }
}
