//! The command line. clap lives here and nowhere else; the rest of the program gets [`Options`].

use clap::{Args, Parser, ValueEnum};
use loaded_supervisor::config::{Families, Overrides};
use loaded_supervisor::plan::MAX_QUEUE_LEN;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the operator asked for, each value within its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The files of `-c`, in order; none: look in the usual places.
    pub(crate) config: Vec<PathBuf>,
    /// What the command line says beside the files.
    pub(crate) overrides: Overrides,
    /// Stay in the foreground and log to stderr.
    pub(crate) foreground: bool,
    /// Write the supervisor's process id there.
    pub(crate) pid_file: Option<PathBuf>,
    /// Start although the kernel lacks a layer of the sandbox.
    pub(crate) allow_weak_sandbox: bool,
    /// What to do.
    pub(crate) task: Task,
}

/// What this run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Balance.
    Serve,
    /// Print the plan and end.
    Check,
    /// Print a role's sandbox policy and end.
    PrintSandbox(Role),
    /// Try the fence and end.
    Selftest,
}

/// A process with a sandbox policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Reads packets.
    Worker,
    /// Checks backends.
    Prober,
    /// Owns rules, queues and children.
    Supervisor,
}

/// Reads the process's arguments. Prints help, version or an error and ends the process where clap does:
/// status 0 for help and version, 2 for an error.
pub(crate) fn read(arguments: &[OsString]) -> Options {
    Line::parse_from(arguments).into()
}

const AFTER: &str = "\
Without -c the configuration is the first of: loaded.config, loaded.conf, /etc/loaded/loaded.toml,
/etc/loaded/loaded.config. A name ending in .toml is TOML; every other file is the classic format.

  loaded --check -c loaded.config                        is it right? what would be served?
  loaded -D -U nobody -c loaded.config                   serve, in the foreground
  loaded -U nobody -c loaded.config -c loaded.config6    serve both families in the background

Signals: TERM, INT and QUIT take the rules out and end it; USR1 logs the counters; HUP and USR2 are not part of this
version and do nothing. Under a service manager (NOTIFY_SOCKET) it stays in the foreground.";

/// Balances IPv4 and IPv6 traffic over NFQUEUE with sandboxed workers.
#[derive(Debug, Parser)]
#[command(name = "loaded", version, after_help = AFTER, max_term_width = 110)]
struct Line {
    /// Serve IPv4 only, whatever else the files name
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Serve IPv6 only, whatever else the files name
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Read this configuration; several classic files make one
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Check backends and replace dead ones: not part of this version, refused
    #[arg(short, long)]
    failover: bool,
    /// Stay in the foreground and log to stderr; otherwise detach and log to syslog
    #[arg(short = 'D', long)]
    foreground: bool,
    /// Packets that may wait in the kernel for one worker [configuration, or 16384]
    #[arg(short = 'Q', long, value_name = "LEN", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_QUEUE_LEN)))]
    queue_len: Option<u32>,
    /// Netfilter queue of core 0; core n answers queue N + n [configuration, or 0]
    #[arg(long, value_name = "N")]
    queue_base: Option<u16>,
    /// Run the workers as this account, never root [configuration, or nobody]
    #[arg(short = 'U', long, value_name = "USER")]
    user: Option<String>,
    /// Write the process id of the supervisor to this file
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// Start although this kernel lacks a layer of the sandbox; the log names the layer
    #[arg(long)]
    allow_weak_sandbox: bool,
    #[command(flatten)]
    task: TaskLine,
}

/// At most one; none means to serve.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct TaskLine {
    /// Validate the configuration, print what would be served, and end; changes nothing
    #[arg(long)]
    check: bool,
    /// Print the sandbox policy of a role (worker, prober or supervisor), and end
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    print_sandbox: Option<Role>,
    /// Try every forbidden act inside the sandbox, print what happened, and end
    #[arg(long)]
    selftest: bool,
}

impl From<Line> for Options {
    fn from(line: Line) -> Self {
        let families = match (line.ipv4, line.ipv6) {
            (true, _) => Families::V4,
            (_, true) => Families::V6,
            _ => Families::Both,
        };
        Self {
            config: line.config,
            overrides: Overrides {
                families,
                queue_len: line.queue_len,
                queue_base: line.queue_base,
                user: line.user,
                failover: line.failover,
            },
            foreground: line.foreground,
            pid_file: line.pid_file,
            allow_weak_sandbox: line.allow_weak_sandbox,
            task: line.task.into(),
        }
    }
}

impl From<TaskLine> for Task {
    fn from(line: TaskLine) -> Self {
        match line {
            TaskLine { check: true, .. } => Self::Check,
            TaskLine { print_sandbox: Some(role), .. } => Self::PrintSandbox(role),
            TaskLine { selftest: true, .. } => Self::Selftest,
            _ => Self::Serve,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn options(arguments: &str) -> Result<Options, ErrorKind> {
        let words = std::iter::once("loaded").chain(arguments.split_whitespace());
        Line::try_parse_from(words).map(Options::from).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn the_originals_letters_and_long_forms_agree() {
        let letters = options("-4 -c a -c b -f -D -Q 5 -U nobody").unwrap();
        let words = "--ipv4 --config a --config b --failover --foreground --queue-len 5 --user nobody";
        assert_eq!(letters, options(words).unwrap());
        assert_eq!(letters.config, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(letters.overrides.families, Families::V4);
        assert!(letters.foreground && letters.overrides.failover);
        assert_eq!(letters.task, Task::Serve);
        assert_eq!(options("").unwrap().overrides, Overrides::default());
        assert_eq!(options("-6").unwrap().overrides.families, Families::V6);
    }

    #[test]
    fn contradictions_and_ranges_are_refused() {
        assert_eq!(options("-4 -6"), Err(ErrorKind::ArgumentConflict));
        assert_eq!(options("--check --selftest"), Err(ErrorKind::ArgumentConflict));
        assert_eq!(options("-Q 0"), Err(ErrorKind::ValueValidation));
        assert_eq!(options("-Q 10485761"), Err(ErrorKind::ValueValidation));
        assert_eq!(options("--queue-base 65536"), Err(ErrorKind::ValueValidation));
        assert_eq!(options("--print-sandbox kernel"), Err(ErrorKind::InvalidValue));
        assert_eq!(options("loaded.config"), Err(ErrorKind::UnknownArgument));
    }

    #[test]
    fn one_task_at_a_time() {
        assert_eq!(options("--check").unwrap().task, Task::Check);
        assert_eq!(options("--selftest").unwrap().task, Task::Selftest);
        assert_eq!(options("--print-sandbox worker").unwrap().task, Task::PrintSandbox(Role::Worker));
        assert_eq!(options("-V"), Err(ErrorKind::DisplayVersion));
    }
}
