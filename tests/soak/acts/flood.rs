//! Packets of both families, each from another source that hears no answer.

use super::plan::Kind;
use crate::instance::SINK;
use crate::rig::net::Family;
use crate::rig::packet::{TCP, UDP, complete, ip, syn, udp};
use crate::rig::wire::Sender;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Packets a second: few enough that two floods and a stopped worker fill no queue.
const RATE: u32 = 4000;
const TICK: Duration = Duration::from_millis(10);
/// One packet in this many goes to a backend that answers, the others go to the sinks.
const ANSWERED: u32 = 32;
const PAYLOAD: &[u8] = b"flood!";

pub(crate) struct Flood {
    pub(crate) kind: Kind,
    /// Number of the first source.
    pub(crate) first: u32,
    pub(crate) length: Duration,
}

impl Flood {
    /// The most packets it sends; fewer on a busy machine.
    pub(crate) fn most(&self) -> u32 {
        RATE * u32::try_from(self.length.as_secs()).unwrap()
    }

    pub(crate) fn send(&self, sender: &Sender) {
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < self.length {
            let due = u32::try_from(began.elapsed().as_millis()).unwrap() * RATE / 1000;
            // What was not sent in time is made up for gently.
            let most = RATE * u32::try_from(TICK.as_millis()).unwrap() * 2 / 1000;
            let batch = (due - sent).min(most);
            let frames: Vec<_> = (sent..sent + batch).map(|n| sender.frame(&self.packet(self.first + n))).collect();
            sender.send_all(&frames);
            sent += batch;
            sleep(TICK);
        }
    }

    fn packet(&self, n: u32) -> Vec<u8> {
        // Of those that are answered every other one is IPv6, as of all.
        let (is_answered, turn) = if n.is_multiple_of(ANSWERED) { (true, n / ANSWERED) } else { (false, n) };
        let family = Family::BOTH[usize::from(turn % 2 == 1)];
        let from = source(family, n);
        let port = |answered| if is_answered { answered } else { SINK };
        complete(match self.kind {
            Kind::Syn => ip(from, family.vip(), TCP, &syn(40_000, port(80))),
            Kind::Datagram => {
                let length = u16::try_from(8 + PAYLOAD.len()).unwrap();
                ip(from, family.vip(), UDP, &udp(40_000, port(7007), length, PAYLOAD))
            }
        })
    }
}

/// The n-th source: an address of 10.0.0.0/8, starting over after 2^24, or in the n-th /48 of fd00::/8.
fn source(family: Family, n: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(10 << 24 | n & 0xff_ffff).into(),
        Family::V6 => Ipv6Addr::from(0xfd << 120 | u128::from(n) << 80 | 1).into(),
    }
}

#[test]
fn its_packets_are_sound() {
    for kind in [Kind::Syn, Kind::Datagram] {
        let flood = Flood { kind, first: 0, length: Duration::from_secs(1) };
        for n in (0..100).chain([0xff_ffff, 0x100_0001]) {
            assert!(crate::rig::packet::sound(&flood.packet(n)), "{kind:?} {n}");
        }
    }
}
