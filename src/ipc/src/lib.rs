//! What supervisor, workers, prober and exporter say to each other: the messages, and the typed ends of a link.
//!
//! ```text
//!  message     knows the messages, one enum per direction of one link; never who handles them
//!  types       knows the configured values that travel, with their ranges; never where they were configured
//!  policy      knows the values of a service's policy, with their ranges and defaults; never where they were configured
//!  check       knows the kinds of checks and what one can say; never how it is made
//!  explain     knows a question about a packet and its answer; never how a worker finds the answer
//!  outcome     knows every outcome, fault and pressure with its label and meaning; never what counts them
//!  counter     knows which word of a worker's counters is what, and how it is encoded; never who writes or reads it
//!  link        knows how a message is framed, sent and received; never what it says
//!  descriptor  knows the numbers of the descriptors that children are started with; never what they were made by
//!  mark        knows the mark of packets for a backend in mode "dsr"; never who routes by it
//! ```
//!
//! A message that is unknown, too short, too long or out of order ends the link, and the child with it: a peer that is out
//! of step is treated as hostile.
#![forbid(unsafe_code)]

mod check;
mod counter;
mod descriptor;
mod explain;
mod link;
mod mark;
mod message;
mod outcome;
mod policy;
mod types;

pub use bincode::{Decode, Encode};
pub use check::{Cause, Check, CheckKind};
pub use counter::{
    ALL_COUNTERS, BackendCounter, COUNTERS, CURRENT_PACKET, TURN, Turn, VIEWS, View, counter_layout, decode_packet_id,
    encode_packet_id,
};
pub use descriptor::{
    CLIENTS_FD, CONNECTIONS_FD, COUNTERS_FD, EPOLL_FD, EXPORTER_LINK_FD, FLOWS_FD, JOURNAL_FD, KEEPING_FD, LINK_FD,
    LISTENER_FD, MEMBERSHIP_FD, PING4_FD, PING6_FD, PROBER_LINK_FD, QUEUE_FD, REPORTS_FD, WORKERS_FD,
};
pub use explain::{Assumed, ChoiceReason, Chosen, Explained, KnownFlow, Question};
pub use link::{Clipped, Link, LinkError, clip, decode};
pub use mark::{MARK_MASK, mark_of};
pub use message::{
    Document, FromExporter, FromProber, FromSuccessor, FromWorker, MAX_DOCUMENT, MAX_FRAME, MAX_LARGE_FRAME, MAX_PART,
    MAX_TEXT, Membership, Pinger, Silence, ToExporter, ToProber, ToSuccessor, ToWorker, VERSION,
};
pub use outcome::{Fault, Outcome, Pressure, RECEIVED};
pub use policy::{AllDown, Idle, MAX_IDLE, OnBackendDown, Passive, Policy};
pub use types::{
    Admin, Affinity, BackendIndex, Destination, FlowsMeant, MAX_BACKEND_INDEX, Mode, OnFailure, PortRange, Protocol,
    Quota, ServiceIndex, Strategy, TableKey, TableKeys, Unserved,
};

/// The supervisor's end of a link to a worker.
pub type WorkerLink = Link<FromWorker, ToWorker>;

/// A worker's end of its link to the supervisor.
pub type SupervisorLink = Link<ToWorker, FromWorker>;

/// The supervisor's end of its link to the prober.
pub type ProberLink = Link<FromProber, ToProber>;

/// The prober's end of its link to the supervisor.
pub type ProberSupervisorLink = Link<ToProber, FromProber>;

/// A worker's end of the link from the prober: read only.
pub type MembershipReader = Link<Membership, Silence>;

/// The prober's end of the link to a worker: write only.
pub type MembershipWriter = Link<Silence, Membership>;

/// The supervisor's end of its link to the exporter.
pub type ExporterLink = Link<FromExporter, ToExporter, { MAX_LARGE_FRAME + 1 }>;

/// The exporter's end of its link to the supervisor.
pub type ExporterSupervisorLink = Link<ToExporter, FromExporter, { MAX_LARGE_FRAME + 1 }>;
