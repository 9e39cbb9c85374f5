//! `loaded status --watch`: the status, painted again and again.

use super::terminal::{self, Key, Terminal};
use super::{HEIGHT, PAGE, WIDTH, status};
use crate::{AnyError, say};
use loaded_control::text;
use std::path::Path;
use std::time::{Duration, Instant};

/// Shows the status until the operator ends it; without a terminal, until nobody reads. Returns the exit code.
///
/// # Errors
/// If there is no instance at first, or the terminal cannot be used.
pub(crate) fn watch(socket: Option<&Path>, every: Duration) -> Result<i32, AnyError> {
    let mut shown = text::status(&*status(socket)?);
    if !terminal::is_there() {
        while say(&format!("{shown}\n")) == 0 {
            std::thread::sleep(every);
            shown = text::status(&*status(socket)?);
        }
        return Ok(0);
    }
    let (mut terminal, mut due, mut skipped) = (Terminal::open()?, Instant::now() + every, 0);
    loop {
        let (width, height) = terminal::size().unwrap_or((WIDTH, HEIGHT));
        let lines: Vec<String> = shown.lines().map(|line| line.chars().take(width).collect()).collect();
        skipped = lines.len().saturating_sub(height).min(skipped);
        terminal.paint(&lines[skipped..lines.len().min(skipped + height)])?;
        for key in terminal.keys(due.saturating_duration_since(Instant::now()))? {
            match key {
                Key::Quit => return Ok(0),
                Key::Up(page) => skipped = skipped.saturating_sub(if page { PAGE } else { 1 }),
                Key::Down(page) => skipped += if page { PAGE } else { 1 },
                Key::Letter(_) => {}
            }
        }
        if Instant::now() >= due {
            due = Instant::now() + every;
            // An instance that does not answer may be upgraded or started again.
            shown = match status(socket) {
                Ok(status) => text::status(&status),
                Err(error) => format!("no answer: {}\n", text::plain(&error.to_string())),
            };
        }
    }
}
