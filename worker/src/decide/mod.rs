//! The decision about a packet: which flow it belongs to, which backend it goes to, and what it looks like then. No I/O,
//! no clock, no random source; nothing the network sends can make it panic, loop or allocate.
//!
//! | file | what it knows |
//! |---|---|
//! | `decider` | the three stages of a decision, and what a worker holds to make them |
//! | `keys` | how the addresses and ports of a packet name a flow and a client |
//! | `lookup` | which flow a packet belongs to, and what becomes of packets without one or without their end |
//! | `request` | packets to a virtual IP: forward, reset, or begin a new flow |
//! | `admit` | letting a new flow in: service, client affinity, strategy, tables |
//! | `clash` | flows that cannot have one backend together |
//! | `reply` | packets of backends to clients |
//! | `adopt` | replies of connections that another balancer has begun |
//! | `own` | connections that backends open or accept themselves, and what belongs to nobody |
//! | `icmp_error` | ICMP errors about packets of flows |
//! | `fragment`, `fragment_table` | fragments: where the others go once the first has come, and for how long |
//! | `hear` | packets that the kernel path has sent on and reports |
//! | `flow_state` | the state machine of a flow, by protocol and direction |
//! | `end` | flows that the operator ends, a piece of the table at a time |
//! | `flow_counts` | counters, expiry, and taking over the tables of an earlier worker |
//! | `explain`, `summary` | answers for the operator and for `loaded replay`; they change nothing |

mod admit;
mod adopt;
mod clash;
mod decider;
mod end;
#[cfg(test)]
mod example;
mod explain;
mod flow_counts;
mod flow_state;
mod fragment;
mod fragment_table;
mod hear;
mod icmp_error;
mod key_port;
mod keys;
mod lookup;
mod own;
mod reply;
mod request;
mod summary;

pub use decider::{Decided, Decider, Lookup, PacketBuffer, Prepared};
pub use fragment_table::Datagram;
pub use summary::FlowSummary;

#[cfg(test)]
pub(crate) use example::example;
