//! `loaded events`: follows the history of an instance, also over its restarts.

use crate::cli::EventsLine;
use crate::{AnyError, UNASKED};
use loaded_control::{Event, HISTORY, Reply, Request, ask, text};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Events asked for at first: more only if these are all new.
const FEW: usize = 32;

/// Prints events as they come, until nobody reads them any more. Returns the exit code.
///
/// # Errors
/// If there is no instance at first.
pub(crate) fn run(socket: Option<&Path>, line: &EventsLine) -> Result<i32, AnyError> {
    let mut seen = history(socket, HISTORY)?;
    let shown = &seen[seen.len().saturating_sub(line.last.into())..];
    let mut open = print(shown, line.json);
    let mut silent = false;
    while open {
        std::thread::sleep(EVERY);
        let new = match history(socket, FEW) {
            Ok(few) if few.len() == FEW && after(&seen, &few).len() == FEW => history(socket, HISTORY),
            other => other,
        };
        match new {
            Ok(events) => {
                open = print(after(&seen, &events), line.json);
                if !events.is_empty() {
                    seen = events;
                }
                silent = false;
            }
            Err(error) if !silent => {
                silent = true;
                let text = text::plain(&error.to_string());
                let _ = writeln!(io::stderr(), "loaded: {text}; waiting for it");
            }
            Err(_) => {}
        }
    }
    Ok(0)
}

fn history(socket: Option<&Path>, last: usize) -> Result<Vec<Event>, AnyError> {
    match ask(socket, &Request::History { last })? {
        Reply::History(events) => Ok(events),
        _ => Err(UNASKED.into()),
    }
}

/// Those of `events` that have come after all of `seen`. Where none of these is left, those of a later time.
fn after<'a>(seen: &[Event], events: &'a [Event]) -> &'a [Event] {
    let Some(last) = seen.last() else { return events };
    match events.iter().rposition(|event| event == last) {
        Some(at) => &events[at + 1..],
        None => &events[events.partition_point(|event| event.at <= last.at)..],
    }
}

/// Whether somebody reads.
fn print(events: &[Event], json: bool) -> bool {
    let line = |event: &Event| match json {
        true => serde_json::to_string(event).map_or_else(|error| error.to_string(), |json| text::plain(&json)),
        false => text::event(event),
    };
    let lines: String = events.iter().map(|event| format!("{}\n", line(event))).collect();
    let mut out = io::stdout().lock();
    out.write_all(lines.as_bytes()).and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use loaded_control::By;

    fn event(at: u64, what: &str) -> Event {
        let (service, cause, what) = (None, String::new(), what.to_owned());
        Event { at, service, address: None, port: None, what, cause, by: By::Kernel }
    }

    #[test]
    fn each_event_is_shown_once() {
        let all: Vec<_> = [(1, "a"), (2, "b"), (2, "c"), (3, "d")].map(|(at, what)| event(at, what)).to_vec();
        assert_eq!(after(&[], &all), &all[..]);
        assert_eq!(after(&all[..2], &all), &all[2..]);
        assert!(after(&all, &all).is_empty());
        // Another instance, which knows nothing of before.
        assert_eq!(after(&all[..3], &all[3..]), &all[3..]);
        assert!(after(&all, &[event(1, "z")]).is_empty());
    }
}
