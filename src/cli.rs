//! The command line. clap lives here and nowhere else; the rest of the program gets [`Options`].

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use loaded_config::duration;
use loaded_config::network::Network;
use loaded_config::plan::{MAX_DRAIN, MAX_QUEUE_LEN};
use loaded_config::{Families, Overrides};
use loaded_control::{Action, FlowQuery, HISTORY, MAX_FLOWS, Tuple};
use loaded_ipc::Destination;
use loaded_table::FlowState;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
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
    /// Examine this host: what keeps packets from being balanced, and the command that fixes it; changes nothing
    Doctor {
        /// Examine the host for this configuration
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

/// The subcommands that ask a running instance, with their help.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Ask {
    /// Show the state: problems first, then services, backends, processes with their sandbox, queues, counters
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Exit as `loaded health` does: 0 serving, 1 impaired, 2 not serving, 3 nobody answers
        #[arg(long)]
        exit_code: bool,
        /// Show it again every so many seconds, until q is pressed
        #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
              conflicts_with_all = ["json", "exit_code"], value_parser = clap::value_parser!(u16).range(1..=3600))]
        watch: Option<u16>,
    },
    /// Say in one word whether clients are served. Exit code: 0 serving, 1 impaired, 2 not serving, 3 nobody answers
    Health(HealthLine),
    /// Drain, disable or enable a backend; holds until the next change or the end of the instance
    Backend {
        /// The order.
        #[command(subcommand)]
        order: Order,
    },
    /// Take this balancer out for maintenance: say "not serving", serve on until clients have another one, then end
    Drain(DrainLine),
    /// Show the last changes of membership, each with its cause
    History {
        /// Number of changes, at most 1000
        #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=HISTORY as i64))]
        last: u16,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all numbers in the text format of Prometheus
    Metrics,
    /// Show what would become of a client's next packet, and why; changes nothing
    Explain(ExplainLine),
    /// List the flows that workers know now, and count them
    Flows(FlowsLine),
    /// Watch services and backends: packets, bits and new flows per second, painted again and again
    Top(TopLine),
    /// Follow the history: print each change of membership and of the verdict as it happens
    Events(EventsLine),
}

/// The arguments of `loaded health`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct HealthLine {
    /// Judge this service alone
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// Fewer backends up than this count as not serving, in each service
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_up: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `loaded top`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct TopLine {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) interval: u16,
    /// Print this many frames, one below the other, and end [default on a terminal: until q is pressed]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: Option<u32>,
    /// What comes first; on a terminal a key changes it
    #[arg(long, value_name = "FIGURE", value_enum, default_value_t = TopSort::Config)]
    pub(crate) sort: TopSort,
}

/// What `loaded top` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopSort {
    /// As configured
    Config,
    /// Flows now
    Flows,
    /// New flows per second
    New,
    /// Packets per second
    Packets,
    /// Bits per second
    Bits,
    /// How long the last check took
    Latency,
}

/// The arguments of `loaded events`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct EventsLine {
    /// Begin with this many past events, at most 1000
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=HISTORY as i64))]
    pub(crate) last: u16,
    /// Print JSON, one event a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `loaded drain`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DrainLine {
    /// How long it may serve on: 90s, 5m, 2h, at most 7d [default: the configuration's drain]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(crate) deadline: Option<u32>,
    /// Let an instance that was told to end stay
    #[arg(long, conflicts_with = "deadline")]
    pub(crate) cancel: bool,
}

/// Which flows to list.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct FlowsLine {
    /// Of this client, or of a network of clients: 192.0.2.7, 2001:db8::/64
    #[arg(long, value_name = "ADDR[/LEN]", value_parser = client_network)]
    pub(crate) client: Option<(IpAddr, u8)>,
    /// On this backend; with a port, only if it is on that port
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(crate) backend: Option<Destination>,
    /// Of this service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// In this state
    #[arg(long, value_name = "STATE", value_parser = FlowState::ALL.map(FlowState::label))]
    pub(crate) state: Option<String>,
    /// List at most this many; all are counted
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=MAX_FLOWS as i64))]
    pub(crate) limit: u16,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl FlowsLine {
    /// The question as the instance takes it.
    pub(crate) fn query(self) -> FlowQuery {
        let Self { client, backend, service, state, limit, .. } = self;
        let port = backend.and_then(|backend| backend.port);
        FlowQuery { client, backend: backend.map(|backend| backend.address), port, service, state, limit: limit.into() }
    }
}

/// The packet in question: an ACK of a TCP connection that is open, a SYN of any other.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ExplainLine {
    /// tcp, udp, sctp, icmp (an echo request), esp, gre, or a number
    #[arg(value_name = "PROTO", value_parser = protocol)]
    pub(crate) protocol: u8,
    /// The sender: 192.0.2.7:40000, [2001:db8::7]:40000; for icmp ADDR[:ID], for protocols without ports ADDR
    #[arg(value_name = "CLIENT:PORT", value_parser = endpoint)]
    pub(crate) client: AddressAndPort,
    /// The virtual IP it is sent to, and the port
    #[arg(value_name = "VIP:PORT", value_parser = endpoint)]
    pub(crate) vip: AddressAndPort,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// An address, and a port where one was given.
pub(crate) type AddressAndPort = (IpAddr, Option<u16>);

impl ExplainLine {
    /// The question as the instance takes it.
    ///
    /// # Errors
    /// If a port is missing or there is one too many.
    pub(crate) fn tuple(&self) -> Result<Tuple, String> {
        let Self { protocol, client: (client, client_port), vip: (vip, vip_port), .. } = *self;
        match (protocol, client_port, vip_port) {
            (6 | 17 | 132, Some(_), Some(_)) | (1 | 58, _, None) => {}
            (6 | 17 | 132, ..) => return Err("both ends need a port, such as 192.0.2.7:40000".to_owned()),
            (1 | 58, ..) => return Err("icmp has no port at the virtual IP".to_owned()),
            (_, None, None) => {}
            _ => return Err("this protocol has no ports: name two addresses".to_owned()),
        }
        Ok(Tuple { protocol, client, client_port: client_port.unwrap_or(0), vip, vip_port: vip_port.unwrap_or(0) })
    }
}

/// An order about one backend.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Order {
    /// Give it no new flows; its flows go on until the deadline
    Drain {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
        /// How long its flows may go on: 90s, 5m, 2h, at most 7d [default: the configuration's drain]
        #[arg(long, value_name = "TIME", value_parser = deadline)]
        deadline: Option<u32>,
    },
    /// Use it again, as its checks allow
    Enable {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
    },
    /// Give it no flows at all; its flows are treated as if it were down
    Disable {
        /// The backend.
        #[command(flatten)]
        backend: BackendLine,
    },
}

/// The backend an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackendLine {
    /// Its address; with a port, only the backend on that port: 198.51.100.11:8080, [2001:db8::11]:8080
    #[arg(value_name = "ADDR[:PORT]")]
    pub(crate) named: Destination,
    /// In this service only; without it, in every service that has the backend
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
}

impl Order {
    /// The order as the instance takes it.
    pub(crate) fn parts(self) -> (Action, BackendLine) {
        match self {
            Self::Drain { backend, deadline } => (Action::Drain { deadline }, backend),
            Self::Enable { backend } => (Action::Enable, backend),
            Self::Disable { backend } => (Action::Disable, backend),
        }
    }
}

/// A process with a sandbox policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxedRole {
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

/// Reads a protocol's name or number.
fn protocol(text: &str) -> Result<u8, String> {
    Ok(match text {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        "icmp" => 1,
        "icmp6" => 58,
        "esp" => 50,
        "gre" => 47,
        number => number
            .parse()
            .map_err(|_| format!("{number:?} is not a protocol; write tcp, udp, sctp, icmp, esp, gre, or 0 to 255"))?,
    })
}

/// Reads an address with or without a port; an IPv6 address with a port is in brackets.
fn endpoint(text: &str) -> Result<AddressAndPort, String> {
    let bare = || text.parse().or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    match text.parse::<SocketAddr>() {
        Ok(end) => Ok((end.ip(), Some(end.port()))),
        Err(_) => bare()
            .map(|address| (address, None))
            .map_err(|_| format!("{text:?} is not an address and port; write 192.0.2.7:40000 or [2001:db8::7]:40000")),
    }
}

/// Reads an address, alone or with a prefix length.
fn client_network(text: &str) -> Result<(IpAddr, u8), String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok((address, if address.is_ipv4() { 32 } else { 128 })),
        Err(_) => Network::split(text),
    }
}

/// Reads a duration such as `90s`, `5m`, `2h` or `1d`; in seconds.
fn deadline(text: &str) -> Result<u32, String> {
    duration::seconds(text, 1..=MAX_DRAIN)
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
    /// Start even if this kernel lacks a layer of the sandbox; the log names the layer
    #[arg(long)]
    allow_weak_sandbox: bool,
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
    /// Print the sandbox policy of a role (worker, prober or supervisor), and exit
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
                failover: line.failover,
            },
            foreground: line.foreground,
            pid_file: line.pid_file,
            allow_weak_sandbox: line.allow_weak_sandbox,
            // A daemon changes its directory.
            control: line.control.map(|path| std::path::absolute(&path).unwrap_or(path)),
            task: match (line.errand, line.diff) {
                (Some(Errand::Ask(ask)), _) => Task::Ask(ask),
                (Some(Errand::Doctor { .. }), _) => Task::Doctor,
                (Some(Errand::Replay(line)), _) => Task::Replay(line),
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
