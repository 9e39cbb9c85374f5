//! Where the log goes: stderr in the foreground, syslog for a daemon. Where stderr is the journal, each line says how grave it is.

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The one logger of the process.
struct Output {
    syslog: AtomicBool,
    journal: AtomicBool,
}

static OUTPUT: Output = Output { syslog: AtomicBool::new(false), journal: AtomicBool::new(false) };

/// Starts to log, to stderr.
pub(crate) fn to_stderr() {
    // Fails only if a logger is set already, and this is the only one.
    let _ = log::set_logger(&OUTPUT);
    log::set_max_level(LevelFilter::Info);
    OUTPUT.journal.store(is_journal(), Ordering::Relaxed);
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
        let _ = writeln!(stderr, "{prefix}{line}");
    }
}

/// Severity LOG_ERR for the journal, sd-daemon(3).
const ERROR_PREFIX: &str = "<3>";

/// Logs to syslog from now on, with facility daemon, as the original does.
pub(crate) fn to_syslog() {
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
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Texts from a child or the kernel must not forge lines or move a terminal's cursor.
        let text: String = record.args().to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let (severity, prefix, word) = match record.level() {
            Level::Error => (Severity::LOG_ERR, ERROR_PREFIX, "error: "),
            Level::Warn => (Severity::LOG_WARNING, "<4>", "warning: "),
            _ => (Severity::LOG_INFO, "<6>", ""),
        };
        let prefix = if self.journal.load(Ordering::Relaxed) { prefix } else { "" };
        if self.syslog.load(Ordering::Relaxed) {
            // A failure could be reported nowhere.
            let _ = syslog(severity, text.as_str());
        } else {
            // A pipe that nobody reads must not block the supervisor; the line is then lost.
            let stderr = std::io::stderr();
            let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                let _ = writeln!(&stderr, "{prefix}loaded: {word}{text}");
            }
        }
    }

    fn flush(&self) {}
}
