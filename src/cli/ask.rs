//! The commands that ask a running instance, with their arguments.

use super::backend::{BackendOrder, deadline};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use loaded_config::network::Network;
use loaded_control::{FlowQuery, HISTORY, MAX_FLOWS, Tuple};
use loaded_ipc::Destination;
use loaded_table::FlowState;
use std::net::{IpAddr, SocketAddr};

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
    /// Add, remove or weigh a backend of a service; drain, disable or enable one. Holds over reload, upgrade and a killed
    /// supervisor, until the next change or the end of the instance
    Backend {
        /// The order.
        #[command(subcommand)]
        order: BackendOrder,
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
    /// List the flows that workers know now, and count them; or end them
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

/// Which flows to list, or to end.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(group(ArgGroup::new("which").args(["client", "backend", "service", "state"]).multiple(true)))]
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
    /// End them: TCP by a reset to each side that sends, UDP as on_backend_down says; needs one of the filters above
    #[arg(long, conflicts_with = "limit", requires = "which")]
    pub(crate) end: bool,
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
    #[allow(rustdoc::broken_intra_doc_links, reason = "what --help says")]
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
pub(super) fn endpoint(text: &str) -> Result<AddressAndPort, String> {
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
