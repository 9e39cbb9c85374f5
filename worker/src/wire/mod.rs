//! Packets: reading what one is, and changing its addresses. Pure; every byte is hostile.

mod answer;
pub mod checksum;
mod facts;
mod fragment;
mod parse;
mod rewrite;

pub use answer::{SPARE, reset, unreachable};
pub use facts::{ChecksumState, PacketFacts};
pub use fragment::{Fragment, fragment};
pub use parse::{
    Address, Family, Kind, Malformed, Packet, Quoted, is_mapped, lacks_checksum, mapped, parse, parse_first, protocol,
};
pub use rewrite::{Side, replace, replace_in_error};

#[cfg(test)]
mod tests;
