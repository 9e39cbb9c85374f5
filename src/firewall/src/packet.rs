//! The packets that rules are asked about: the first of a connection, in either direction, on one leg of its round trip.

use loaded_host::Paths;
use loaded_netfilter::Family;
use std::cell::Cell;
use std::net::IpAddr;

/// A packet, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) family: Family,
    /// `None`: of any protocol.
    pub(crate) protocol: Option<u8>,
    /// `None`: some client's.
    pub(crate) source: Option<IpAddr>,
    pub(crate) destination: Option<IpAddr>,
    /// From the lowest to the highest it may have.
    pub(crate) source_port: (u16, u16),
    pub(crate) destination_port: (u16, u16),
    /// TCP's flags, if it is known to be TCP.
    pub(crate) flags: Option<u8>,
    /// `None`: it is not known by which it comes.
    pub(crate) input: Option<&'a str>,
    /// `None` before routing.
    pub(crate) output: Option<Option<&'a str>>,
    /// Whether our rules have made it untracked; before that connection tracking has not seen it.
    pub(crate) untracked: bool,
    pub(crate) world: &'a World,
}

/// What is known of the host, and how much work may still be done.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) paths: Paths,
    work: Cell<u64>,
}

/// Matches that may be asked for one judgement: a second's work, more than any rules need that people write.
const MOST_WORK: u64 = 30_000_000;

impl World {
    pub(crate) fn new(paths: Paths) -> Self {
        Self::limited(paths, MOST_WORK)
    }

    /// With so much work to be done at most.
    pub(crate) fn limited(paths: Paths, most: u64) -> Self {
        Self { paths, work: Cell::new(most) }
    }

    /// Notes so much work.
    pub(crate) fn spend(&self, work: usize) {
        self.work.set(self.work.get().saturating_sub(u64::try_from(work).unwrap_or(u64::MAX)));
    }

    /// Whether no more work is to be done.
    pub(crate) fn is_spent(&self) -> bool {
        self.work.get() == 0
    }
}

pub(crate) const ANY_PORT: (u16, u16) = (0, u16::MAX);
/// Protocol numbers (IANA): TCP, UDP, SCTP.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
/// TCP's flags (RFC 9293, section 3.1).
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

#[cfg(test)]
pub(crate) mod fixture {
    use super::*;

    /// A request from eth0 to port 80 of 198.51.100.11 behind eth1, rewritten by a worker.
    pub(crate) fn request(world: &World) -> Packet<'_> {
        Packet {
            family: Family::V4,
            protocol: Some(TCP),
            source: None,
            destination: Some(IpAddr::from([198, 51, 100, 11])),
            source_port: ANY_PORT,
            destination_port: (80, 80),
            flags: Some(SYN),
            input: Some("eth0"),
            output: Some(Some("eth1")),
            untracked: true,
            world,
        }
    }
}
