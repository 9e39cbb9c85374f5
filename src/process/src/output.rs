//! Where the log goes: stderr in the foreground, syslog for a daemon, and the journal where stderr leads there. How grave a line
//! is: its level of the crate `log`; one that has the key `event` is in the history too, and a notice if it is no warning.

use super::journal;
use loaded_config::plan::LogLevel;
use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The one logger of the process.
struct Output {
    syslog: AtomicBool,
    journal: AtomicBool,
    /// The [`LogLevel`] that is written at least.
    level: AtomicU8,
}

static OUTPUT: Output = Output {
    syslog: AtomicBool::new(false),
    journal: AtomicBool::new(false),
    level: AtomicU8::new(LogLevel::Info as u8),
};

/// Starts to log, to stderr.
pub fn to_stderr() {
    // Fails only if a logger is set already, and this is the only one.
    let _ = log::set_logger(&OUTPUT);
    set_level(LogLevel::default());
    OUTPUT.journal.store(is_journal(), Ordering::Relaxed);
}

/// Logs from now on what is so grave or graver.
pub fn set_level(level: LogLevel) {
    OUTPUT.level.store(level as u8, Ordering::Relaxed);
    log::set_max_level(match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warning => LevelFilter::Warn,
        LogLevel::Notice | LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
    });
}

/// How grave a line is.
fn level_of(record: &Record<'_>) -> LogLevel {
    match record.level() {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warning,
        Level::Info if record.key_values().get("event".into()).is_some() => LogLevel::Notice,
        Level::Info => LogLevel::Info,
        Level::Debug | Level::Trace => LogLevel::Debug,
    }
}

/// Whether stderr leads to the journal: the service manager says which file that is, and stderr may be another by now
/// (systemd.exec(5), JOURNAL_STREAM).
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().and_then(|fd| std::fs::File::from(fd).metadata());
    stderr.is_ok_and(|meta| named == format!("{}:{}", meta.dev(), meta.ino()))
}

/// Says on stderr why the process ends.
pub fn last_words(text: &str) {
    let mut stderr = std::io::stderr();
    for line in text.lines() {
        let prefix = if is_journal() { ERROR_PREFIX } else { "" };
        let _ = stderr.write_all(format!("{prefix}{line}\n").as_bytes());
    }
}

/// Severity LOG_ERR for the journal, sd-daemon(3).
const ERROR_PREFIX: &str = "<3>";

/// Logs to syslog from now on, with facility daemon, as the original does.
pub fn to_syslog() {
    if !Path::new("/dev/log").exists() {
        log::warn!(
            "there is no /dev/log: this daemon's log is lost until a syslog daemon creates it; -D logs to stderr"
        );
    }
    match openlog(Some(c"loaded"), LogFlags::LOG_PID, Facility::LOG_DAEMON) {
        Ok(()) => OUTPUT.syslog.store(true, Ordering::Relaxed),
        Err(errno) => log::error!("open syslog: {errno}; the log stays on stderr"),
    }
}

impl Log for Output {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = level_of(record);
        if level as u8 > self.level.load(Ordering::Relaxed) {
            return;
        }
        // Texts from a child or the kernel must not forge lines or move a terminal's cursor.
        let text = journal::plain(record.args());
        let to_journal = self.journal.load(Ordering::Relaxed);
        if self.syslog.load(Ordering::Relaxed) {
            // A failure could be reported nowhere.
            let _ = syslog(severity(level), text.as_str());
        } else if !to_journal || journal::send(level, &text, record).is_err() {
            let prefix = if to_journal { format!("<{}>", level as u8) } else { String::new() };
            write_to_stderr(&format!("{prefix}loaded: {}{text}", word(level)));
        }
    }

    fn flush(&self) {}
}

/// A pipe that nobody reads must not block the supervisor; the line is then lost.
fn write_to_stderr(line: &str) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        // At once, its end too: a predecessor or successor may write to the same file.
        let _ = (&stderr).write_all(format!("{line}\n").as_bytes());
    }
}

/// What a line on stderr begins with.
fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error: ",
        LogLevel::Warning => "warning: ",
        LogLevel::Notice | LogLevel::Info => "",
        LogLevel::Debug => "debug: ",
    }
}

fn severity(level: LogLevel) -> Severity {
    match level {
        LogLevel::Error => Severity::LOG_ERR,
        LogLevel::Warning => Severity::LOG_WARNING,
        LogLevel::Notice => Severity::LOG_NOTICE,
        LogLevel::Info => Severity::LOG_INFO,
        LogLevel::Debug => Severity::LOG_DEBUG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_about_an_event_is_a_notice_unless_it_is_graver() {
        let event = [("event", "verdict")];
        let level =
            |level, values: &[(&str, &str)]| level_of(&Record::builder().level(level).key_values(&values).build());
        assert_eq!(level(Level::Info, &event), LogLevel::Notice);
        assert_eq!(level(Level::Info, &[]), LogLevel::Info);
        assert_eq!(level(Level::Error, &event), LogLevel::Error);
        assert_eq!(level(Level::Debug, &event), LogLevel::Debug);
    }
}
