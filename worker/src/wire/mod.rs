//! Packets: reading what one is, and changing its addresses. Pure; every byte is hostile.

mod answer;
pub mod checksum;
mod fragment;
mod parse;
mod rewrite;

pub use answer::{reset, unreachable};
pub use fragment::{Fragment, fragment};
pub use parse::{
    Address, Family, Kind, Malformed, Packet, Quoted, is_mapped, lacks_checksum, mapped, parse, parse_first, protocol,
};
pub use rewrite::{Field, Side, replace, replace_in_error};

#[cfg(test)]
mod tests;
