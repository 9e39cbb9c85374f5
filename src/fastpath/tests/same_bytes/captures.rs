//! The captures that tests/replay.rs has, packet for packet.

use crate::generated::Made;
use crate::is_root;
use crate::judge::{Seen, judge};
use crate::packets::{self, ends, put};
use crate::world::{BACKENDS, VIPS, World, at};
use loaded_fastpath::Miss;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// Of a file, a record and LINKTYPE_LINUX_SLL2 (www.tcpdump.org/linktypes).
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;
const LINK_HEADER: usize = 20;
const SLL2: u32 = 276;
/// A longer packet is more than BPF_PROG_TEST_RUN takes: a page, with the buffer's own (net/bpf/test_run.c).
const LONGEST: usize = 3000;

fn read(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/captures").join(name);
    let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let four = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    assert_eq!((four(0), four(20)), (0xa1b2_c3d4, SLL2), "{name}");
    let (mut all, mut next) = (vec![], FILE_HEADER);
    while next < file.len() {
        let begin = next + RECORD_HEADER;
        next = begin + four(next + 8) as usize;
        // IPv4 and IPv6; the rest is ARP.
        if matches!(file[begin..begin + 2], [8, 0] | [0x86, 0xdd]) {
            all.push(file[begin + LINK_HEADER..next].to_vec());
        }
    }
    all
}

/// Ports of a whole packet of TCP or UDP without options or extension headers.
fn ports_of(bytes: &[u8]) -> Option<(u16, u16)> {
    let (protocol, header) = match bytes[0] >> 4 {
        4 if bytes[0] & 15 == 5 && bytes[6] & 0x3f == 0 && bytes[7] == 0 => (bytes[9], 20),
        6 => (bytes[6], 40),
        _ => return None,
    };
    (matches!(protocol, packets::TCP | packets::UDP) && bytes.len() >= header + 4).then(|| packets::ports(bytes))
}

/// Lets a reply come from the backend that the client has here, not from the one that it had in the lab. The sum over the
/// segment stays what it was: neither the program nor the worker looks at it, any sum is changed alike.
fn come_from(bytes: &mut [u8], backend: &str, port: u16) {
    let (address, port) = at(backend, port);
    match address.parse().unwrap() {
        IpAddr::V4(v4) => {
            bytes[12..16].copy_from_slice(&v4.octets());
            put(bytes, 20, port);
            put(bytes, 10, 0);
            let sum = packets::plain(&[&bytes[..20]]);
            put(bytes, 10, !sum);
        }
        IpAddr::V6(v6) => {
            bytes[8..24].copy_from_slice(&v6.octets());
            put(bytes, 40, port);
        }
    }
}

#[test]
fn what_was_captured_goes_on_as_the_worker_would_have_sent_it() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::default();
    let mut missed = vec![0; Miss::ALL.len()];
    let mut too_long = 0;
    for name in ["closed", "http", "path-mtu", "ping", "time-exceeded", "udp"] {
        let mut world = World::new();
        let mut backend_of: HashMap<(String, u16), String> = HashMap::new();
        for (n, mut bytes) in read(&format!("{name}.pcap")).into_iter().enumerate() {
            let (from, to) = ends(&bytes);
            let reply = !VIPS.contains(&to.as_str());
            let ports = ports_of(&bytes);
            let client = ports.map(|(source, destination)| if reply { (to, destination) } else { (from, source) });
            if let (true, Some((port, _)), Some(backend)) =
                (reply, ports, client.as_ref().and_then(|c| backend_of.get(c)))
            {
                come_from(&mut bytes, backend, port);
            }
            if bytes.len() > LONGEST {
                // It counts for the worker all the same.
                world.decide(&bytes, crate::now());
                too_long += 1;
                continue;
            }
            let context = format!("{name}.pcap packet {}: {bytes:02x?}", n + 1);
            let made = Made { bytes, reply };
            let sent = judge(&mut world, &made, [true; 6], &mut seen, &context);
            let client = client.filter(|_| !reply && BACKENDS.contains(&ends(&sent).1.as_str()));
            client.map(|client| backend_of.insert(client, ends(&sent).1));
        }
        Miss::ALL.iter().zip(&mut missed).for_each(|(why, sum)| *sum += world.loaded.program.missed(*why));
    }
    let missed: Vec<_> = Miss::ALL.iter().map(|why| why.label()).zip(missed).collect();
    println!("{seen:?}, {too_long} too long; {missed:?}");
    // It is no test if nothing goes on.
    assert!(seen.silent > 15 && seen.told > 15, "{seen:?}");
}
