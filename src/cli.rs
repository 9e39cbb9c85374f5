//! The command line. clap lives here and nowhere else; the rest of the program gets [`Options`].

mod ask;
mod backend;
mod migrate;

pub(crate) use ask::{Ask, DrainLine, EventsLine, HealthLine, TopLine, TopSort};
pub(crate) use migrate::MigrateLine;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use loaded_config::plan::{Fast, LogLevel, MAX_QUEUE_LEN, MetricsAddress};
use loaded_config::{Families, Overrides};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the operator asked for, each value within its range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// The files of `-c`, in order; none: look in the usual places.
    pub(crate) config: Vec<PathBuf>,
    /// Settings of the command line, which override the files.
    pub(crate) overrides: Overrides,
    /// Stay in the foreground and log to stderr.
    pub(crate) foreground: bool,
    /// Write the supervisor's process id there.
    pub(crate) pid_file: Option<PathBuf>,
    /// Seconds that a start waits for the host.
    pub(crate) wait: u32,
    /// Start although the kernel lacks a layer of the sandbox.
    pub(crate) allow_weak_sandbox: bool,
    /// The control socket, absolute; none: its usual place.
    pub(crate) control: Option<PathBuf>,
    /// What to do.
    pub(crate) task: Task,
}

/// What this run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Balance.
    Serve,
    /// Print the plan and end.
    Check,
    /// Print what a reload would change and end.
    Diff,
    /// Ask the instance that runs.
    Ask(Ask),
    /// Decide over a capture.
    Replay(ReplayLine),
    /// Print another balancer's configuration as loaded.toml.
    Migrate(MigrateLine),
    /// Print the configuration in these files, or of the instance that runs if there are none.
    ShowConfig(Vec<PathBuf>),
    /// Write what was changed at run time into the running instance's configuration file.
    SaveConfig,
    /// Print a role's sandbox policy and end.
    PrintSandbox(SandboxedRole),
    /// Run the sandbox's self-test and end.
    Selftest,
    /// Look at the host and end.
    Doctor,
}

/// The subcommands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
enum Errand {
    #[command(flatten)]
    Ask(Ask),
    /// Show what a worker would do with each packet of a capture (pcap or pcapng); needs no instance and no rights
    Replay(ReplayLine),
    /// Print another balancer's configuration as loaded.toml; exit code: 0 all carried over, 1 not all, 2 unreadable
    Migrate(MigrateLine),
    /// Show a configuration whole, with every default
    Config {
        /// The order.
        #[command(subcommand)]
        order: ConfigOrder,
    },
    /// Examine this host: what keeps packets from being balanced, and the command that fixes it; changes nothing
    Doctor {
        /// Examine the host for this configuration
        #[arg(short, long, value_name = "FILE")]
        config: Vec<PathBuf>,
    },
}

/// An order about a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum ConfigOrder {
    /// Print the configuration that the running instance serves by, as a TOML file with every key; what was changed at run time is marked
    Show {
        /// Write what was changed at run time into the instance's file, with its comments and layout, and let it reload
        #[arg(long, conflicts_with = "config")]
        save: bool,
        /// Not the instance's: the one in this file; several classic files make one. Converts the classic format to TOML
        #[arg(short, long, value_name = "FILE")]
        config: Vec<PathBuf>,
    },
}

/// The arguments of `loaded replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ReplayLine {
    /// The capture
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Decide by this configuration; several classic files make one [as for starting]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// Write the packets that would go out to this file, as pcap of raw IP
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Print JSON: one line per packet, then the sums
    #[arg(long)]
    pub(crate) json: bool,
}

/// A process with a sandbox policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxedRole {
    /// Reads packets.
    Worker,
    /// Checks backends.
    Prober,
    /// Shows metrics and status by HTTP.
    Exporter,
    /// Owns rules, queues and children.
    Supervisor,
}

/// Reads the process's arguments. Prints help, version or an error and ends the process where clap does:
/// status 0 for help and version, 2 for an error.
pub(crate) fn read(arguments: &[OsString]) -> Options {
    parse(arguments).unwrap_or_else(|error| error.exit())
}

fn parse<T: Into<OsString> + Clone>(arguments: impl IntoIterator<Item = T>) -> Result<Options, clap::Error> {
    let mut command = CommandLine::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    if let Some(option) = option_beside_a_subcommand(&matches) {
        let text =
            format!("--{} cannot be used with a subcommand: it is for starting an instance", option.replace('_', "-"));
        return Err(command.error(ErrorKind::ArgumentConflict, text));
    }
    Ok(CommandLine::from_arg_matches(&matches)?.into())
}

/// The first option for starting an instance that was given with a subcommand, where it would have no effect.
fn option_beside_a_subcommand(matches: &ArgMatches) -> Option<&str> {
    matches.subcommand_name()?;
    let given = |id: &&str| *id != "control" && matches.value_source(id) == Some(ValueSource::CommandLine);
    // clap lists the group of the tasks beside its members.
    matches.ids().map(clap::Id::as_str).filter(|id| *id != "TaskLine").find(given)
}

/// Reads how long a start waits, in seconds.
fn patience(text: &str) -> Result<u32, String> {
    loaded_config::duration::seconds(text, 0..=3600)
}

const AFTER: &str = "\
Without -c the configuration is the first of: loaded.config, loaded.conf, /etc/loaded/loaded.toml,
/etc/loaded/loaded.config. A name ending in .toml is TOML; every other file is the classic format.

  loaded --check -c loaded.config                        validate it, print what would be served
  loaded -D -U nobody -c loaded.config                   serve, in the foreground
  loaded -U nobody -c loaded.config -c loaded.config6    serve both families in the background
  loaded --check --diff                                  what would HUP change?
  loaded backend drain 198.51.100.11 --deadline 5m       take a backend out gently
  loaded drain                                           take this balancer out of service gently
  loaded explain tcp 192.0.2.7:40000 203.0.113.1:443     where would this client's next packet go, and why?

Signals: HUP reloads the configuration, and changes nothing if it is wrong; TERM, INT and QUIT end the
instance and remove its rules, once its virtual IPs have left this host (stop_hold); USR1 logs the counters; USR2 upgrades: the binary now at this one's path takes over without losing
a packet. If the supervisor was killed, start it again: it takes over the workers that went on. Under a service
manager (NOTIFY_SOCKET) it stays in the foreground.";

/// Balances IPv4 and IPv6 traffic over NFQUEUE with sandboxed workers.
#[derive(Debug, Parser)]
#[command(name = "loaded", version, after_help = AFTER, max_term_width = 110)]
struct CommandLine {
    /// Serve IPv4 only, even if the files name IPv6 too
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Serve IPv6 only, even if the files name IPv4 too
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Read this configuration; several classic files make one
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Check backends and take dead ones out
    #[arg(short, long)]
    failover: bool,
    /// Stay in the foreground and log to stderr; otherwise detach and log to syslog
    #[arg(short = 'D', long)]
    foreground: bool,
    /// Packets that may wait in the kernel for one worker [default: the configuration's, or 16384]
    #[arg(short = 'Q', long, value_name = "LEN", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_QUEUE_LEN)))]
    queue_len: Option<u32>,
    /// Netfilter queue of core 0; core n answers queue N + n [default: the configuration's, or 0]
    #[arg(long, value_name = "N")]
    queue_base: Option<u16>,
    /// Run the workers as this account, never root [default: the configuration's, or nobody]
    #[arg(short = 'U', long, value_name = "USER")]
    user: Option<String>,
    /// Write the process id of the supervisor to this file
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// Wait so long (30s, 2m, at most 1h) for sysctls and networks before a start that fails without them gives up
    #[arg(long, value_name = "TIME", value_parser = patience, default_value = "0s", hide_default_value = true)]
    wait: u32,
    /// Start even if this kernel lacks a layer of the sandbox; the log names the layer
    #[arg(long)]
    allow_weak_sandbox: bool,
    /// Let the kernel send packets of known flows on where it can: auto or off [default: the configuration's, or auto]
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(["auto", "off"]).try_map(|text| Fast::read(&text)))]
    fast: Option<Fast>,
    /// Log what is so grave or graver: error, warning, notice, info or debug [default: the configuration's, or info]
    #[arg(long, value_name = "LEVEL", hide_possible_values = true,
          value_parser = PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::name)).try_map(|text| LogLevel::read(&text)))]
    log_level: Option<LogLevel>,
    /// Serve metrics and a status page by HTTP there: an address with a port, or unix:/PATH [default: the configuration's,
    /// or nowhere]
    #[arg(long, value_name = "ADDRESS", value_parser = MetricsAddress::read)]
    metrics: Option<MetricsAddress>,
    /// The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]
    #[arg(long, value_name = "PATH", global = true)]
    control: Option<PathBuf>,
    #[command(flatten)]
    task: TaskLine,
    /// With --check: print what a reload of the running instance would change
    #[arg(long, requires = "check", conflicts_with_all = ["print_sandbox", "selftest"])]
    diff: bool,
    #[command(subcommand)]
    errand: Option<Errand>,
}

/// At most one of these; none means to serve.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct TaskLine {
    /// Validate the configuration, print what would be served, and exit; changes nothing
    #[arg(long)]
    check: bool,
    /// Print the sandbox policy of a role (worker, prober, exporter or supervisor), and exit
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    print_sandbox: Option<SandboxedRole>,
    /// Try every forbidden act inside the sandbox, print what happened, and exit
    #[arg(long)]
    selftest: bool,
}

impl From<CommandLine> for Options {
    fn from(line: CommandLine) -> Self {
        let families = match (line.ipv4, line.ipv6) {
            (true, _) => Families::V4,
            (_, true) => Families::V6,
            _ => Families::Both,
        };
        let config = match &line.errand {
            Some(Errand::Doctor { config }) => config.clone(),
            _ => line.config,
        };
        Self {
            config,
            overrides: Overrides {
                families,
                queue_len: line.queue_len,
                queue_base: line.queue_base,
                user: line.user,
                fast: line.fast,
                log_level: line.log_level,
                metrics: line.metrics,
                failover: line.failover,
            },
            foreground: line.foreground,
            pid_file: line.pid_file,
            wait: line.wait,
            allow_weak_sandbox: line.allow_weak_sandbox,
            // A daemon changes its directory.
            control: line.control.map(|path| std::path::absolute(&path).unwrap_or(path)),
            task: match (line.errand, line.diff) {
                (Some(Errand::Ask(ask)), _) => Task::Ask(ask),
                (Some(Errand::Doctor { .. }), _) => Task::Doctor,
                (Some(Errand::Replay(line)), _) => Task::Replay(line),
                (Some(Errand::Migrate(line)), _) => Task::Migrate(line),
                (Some(Errand::Config { order: ConfigOrder::Show { save: true, .. } }), _) => Task::SaveConfig,
                (Some(Errand::Config { order: ConfigOrder::Show { config, .. } }), _) => Task::ShowConfig(config),
                (None, true) => Task::Diff,
                (None, false) => line.task.into(),
            },
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
mod shipped;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
