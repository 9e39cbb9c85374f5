//! Packets in another's name, from attackers who hear no answer: no worker takes them at their word.
//!
//! `E2E_ATTACK` multiplies what they send. With 10 or more, the tables are also tried at their default size.

mod full_tables;
mod openings;
mod refusals;
mod sweeps;

use crate::rig::lab::{Lab, setting};
use crate::rig::net::{Family, get};
use crate::rig::packet::{TCP, complete, ip, upper};
use crate::rig::queues::kernel;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// So many packets may wait in the queues before an attacker does: a full queue is another matter.
const WAITING: u64 = 2048;
/// A live connection answers in some milliseconds.
const ALIVE: Duration = Duration::from_millis(1500);

/// How many times as many packets are sent.
fn times() -> u32 {
    u32::try_from(setting("E2E_ATTACK", 1)).unwrap()
}

/// A TCP segment without payload.
#[derive(Debug, Clone, Copy)]
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    sequence: u32,
    acknowledged: u32,
}

impl Segment {
    /// The packet, with right checksums.
    fn sound(self) -> Vec<u8> {
        complete(self.packet())
    }

    /// Its TCP checksum is wrong: workers do not look at it, and no backend answers it.
    fn wrong(self) -> Vec<u8> {
        let mut packet = self.sound();
        let (at, _) = upper(&packet);
        packet[at + 16] ^= 0x5a;
        packet
    }

    /// Its hop limit ends at the balancer, after the worker.
    fn dying(self) -> Vec<u8> {
        let mut packet = self.packet();
        let field = if self.from.is_ipv4() { 8 } else { 7 };
        packet[field] = 1;
        complete(packet)
    }

    fn packet(self) -> Vec<u8> {
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let numbers = [self.sequence.to_be_bytes(), self.acknowledged.to_be_bytes()].concat();
        let rest = [0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0];
        ip(self.from.ip(), self.to.ip(), TCP, &[&ports[..], &numbers, &rest].concat())
    }
}

/// Waits until the workers have dealt with most of what was sent.
fn let_workers_catch_up(lab: &Lab) {
    while kernel(lab).waiting > WAITING {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks on all connections at once. Those that do not answer are closed and left out; returns how many.
fn ask_all(streams: &mut Vec<TcpStream>) -> usize {
    let before = streams.len();
    let asked = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(ALIVE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n").is_ok()
    };
    streams.retain_mut(asked);
    streams.retain_mut(|stream| answer(stream).is_ok());
    before - streams.len()
}

/// Reads an answer to GET /, which ends with the client's address; the name of the backend.
fn answer(stream: &mut TcpStream) -> std::io::Result<String> {
    let end = format!(" {}\n", stream.local_addr()?.ip());
    let (mut text, mut part) = (String::new(), [0; 2048]);
    while !text.ends_with(&end) {
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => text.push_str(&String::from_utf8_lossy(&part[..length])),
        }
    }
    let body = text.rsplit("\r\n").next().unwrap_or_default();
    Ok(body.split(' ').next().unwrap_or_default().to_owned())
}

/// Twenty clients, ten of each family, all at once; those that are not served.
fn newcomers(lab: &Lab, first: u16) -> Vec<String> {
    let clients: Vec<_> = Family::BOTH.into_iter().flat_map(|f| (first..first + 10).map(move |n| (f, n))).collect();
    lab.within("client", || {
        std::thread::scope(|scope| {
            let one = |(family, n): (Family, u16)| {
                let client = family.client(n);
                get(client, family.vip(), 80).err().map(|error| format!("{client}: {error}"))
            };
            let threads: Vec<_> = clients.into_iter().map(|client| scope.spawn(move || one(client))).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        })
    })
}
