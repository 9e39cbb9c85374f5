//! Packets: reading what one is, changing its addresses, and turning it into an answer. Pure; every byte is hostile.

mod address;
mod answer;
pub mod checksum;
mod facts;
mod fragment;
mod ip;
mod packet;
mod parse;
mod rewrite;
mod sctp;
mod segment;

pub use address::{Address, Family, from_ip, is_mapped, mapped, to_ip};
pub use answer::{SPARE, reset, unreachable};
pub use facts::{ChecksumState, PacketFacts};
pub use fragment::{Fragment, fragment};
pub use packet::{Kind, Malformed, ParsedPacket, Quoted, protocol};
pub use parse::{lacks_checksum, parse, parse_first};
pub use rewrite::{Endpoint, Replacement, replace, replace_in_error};
pub use segment::{TcpSegment, low_half, upper_half};

#[cfg(test)]
mod tests;
