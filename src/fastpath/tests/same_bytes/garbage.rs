//! A worker that was taken over writes whatever it likes into its table, and its backends' bytes: what the program sends on goes to
//! configured addresses alone, and is counted.

use crate::is_root;
use crate::packets::{ACK, ends, tcp, udp};
use crate::world::{BACKENDS, CAPACITY, DIRECT_VIPS, HASH_KEY, REDIRECT, VIPS, World, forwarded, index_of, now};
use loaded_fastpath::{Keep, MAX_BACKENDS};
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts};
use loaded_worker::wire::from_ip;
use std::sync::atomic::Ordering::Relaxed;

const SPEC: TableSpec = TableSpec::new(CAPACITY, HASH_KEY);
const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
const CLIENTS: [(&str, u16); 2] = [("10.50.0.1", 40_000), ("2001:db8:50::1", 40_000)];
const PORT: u16 = 443;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Indexes at every edge of what the supervisor's records hold.
fn indexes() -> impl Iterator<Item = u16> {
    let edges = [1023, 1024, 4095, 4096, 8191, 8192, 8193, 0x7fff, 0x8000, u16::MAX];
    (0..256).chain(edges)
}

/// Those that are configured, in the service for TCP.
fn configured() -> impl Iterator<Item = u16> {
    (0..BACKENDS.len()).map(index_of)
}

/// What came of a frame: whether it was sent on.
fn judge(world: &mut World, frames: &[(Vec<u8>, bool)]) -> u64 {
    let mut sent_on = 0;
    for (packet, reply) in frames {
        let side = if *reply { world.inside } else { world.outside };
        let (said, sent) = world.try_packet(packet, side);
        if said != REDIRECT {
            assert_eq!(&sent, packet, "changed, though it was not sent on");
            continue;
        }
        sent_on += 1;
        let (from, to) = ends(&sent);
        match reply {
            // To a direct backend it goes as it is.
            false if sent == forwarded(packet.clone()) => assert!(is_client(&from) && is_vip(&to), "{from} to {to}"),
            false => assert!(is_client(&from) && BACKENDS.contains(&to.as_str()), "{from} to {to}"),
            true => assert!(is_client(&to) && is_vip(&from), "{from} to {to}"),
        }
    }
    let _ = world.heard();
    sent_on
}

fn is_vip(address: &str) -> bool {
    VIPS.contains(&address) || DIRECT_VIPS.contains(&address)
}

fn is_client(address: &str) -> bool {
    CLIENTS.iter().any(|(client, _)| *client == address)
}

fn counted(world: &World) -> u64 {
    let backends = 0..u16::try_from(MAX_BACKENDS).expect("16 bits");
    let totals = backends.map(|index| world.loaded.program.totals(index));
    totals.map(|total| total.packets_to + total.packets_from).sum()
}

fn frames() -> Vec<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    for client in CLIENTS {
        let same = |other: &&&str| other.contains(':') == client.0.contains(':');
        for vip in VIPS.iter().filter(same) {
            all.push((tcp(client, (vip, PORT), ACK), false));
            all.push((udp(client, (vip, PORT)), false));
        }
        for backend in BACKENDS.iter().filter(same) {
            for port in [PORT, 8080, 8081] {
                all.push((tcp((backend, port), client, ACK), true));
                all.push((udp((backend, port), client), true));
            }
        }
    }
    all
}

#[test]
fn whatever_a_worker_writes_packets_go_to_configured_addresses_alone() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    let map = |world: &World| Region::map_array(&world.maps.table, FlowTable::bytes_for(CAPACITY)).expect("map");
    let frames = frames();
    (0..u16::try_from(MAX_BACKENDS).expect("16 bits")).for_each(|index| world.keeping.set(index, Keep::Yes));
    let before = counted(&world);
    let mut sent_on = 0;
    // Entries that are whole, of every index, state and key that could be looked for.
    for (n, index) in indexes().enumerate() {
        let region = map(&world);
        FlowTable::format(&region, SPEC).expect("format");
        let mut table = FlowTable::open(map(&world), SPEC, TIMEOUTS).expect("open");
        for ((address, client_port), protocol) in CLIENTS.into_iter().flat_map(|client| [(client, TCP), (client, UDP)])
        {
            let state = if protocol == TCP { FlowState::Established } else { FlowState::Datagram };
            let client = from_ip(address.parse().expect("address"));
            let service_port = if n % 2 == 0 { PORT } else { 0 };
            let key = FlowKey { protocol, client, client_port, service_port };
            for (vip, backend) in configured().map(|backend| (index, backend)).chain([(0, index), (index, index)]) {
                let flow = Flow { vip, backend, vip_port: PORT, state };
                let _ = table.insert(&table.prepare(&key), &key, flow, now().seconds);
            }
        }
        sent_on += judge(&mut world, &frames);
    }
    assert!(sent_on > 0, "nothing was followed, so nothing is shown");
    // Any bytes, above all: tags that lead to any entry, and times of the future.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..64 {
        for word in map(&world).words() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.store(random, Relaxed);
        }
        sent_on += judge(&mut world, &frames);
    }
    // The same word everywhere: each tag is every tag's.
    for word in [0, 1, u64::MAX, 0x0001_0001_0001_0001] {
        map(&world).words().iter().for_each(|place| place.store(word, Relaxed));
        sent_on += judge(&mut world, &frames);
    }
    assert_eq!(counted(&world) - before, sent_on, "not each packet that was sent on is counted, once");
}
