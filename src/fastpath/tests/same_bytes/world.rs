//! A worker's decision and the program over one table, in a network namespace of their own.

use crate::network::{Interface, network};
use crate::packets::{self, ACK, End, SYN, ends, tcp, udp};
use loaded_fastpath::load::{LoadedProgram, Steering, Worker, WorkerMaps, load as load_program};
use loaded_fastpath::program::Header;
use loaded_fastpath::records::{Address, Backend, ComesBy, Fresh, Kind, Ports};
use loaded_fastpath::{Keep, Keeping, Report, Reports};
use loaded_ipc::{
    ALL_COUNTERS, Admin, BackendIndex, Idle, Mode, OnFailure, Outcome, Policy, Protocol, ServiceIndex, Strategy,
    ToWorker, Unserved,
};
use loaded_table::{AffinityTable, Counters, FlowState, FlowTable, Region, TableSpec, shm};
use loaded_worker::decide::{Decider, PacketBuffer};
use loaded_worker::setup::{Assembly, flow_timeouts};
use loaded_worker::time::Now;
use loaded_worker::wire::{PacketFacts, SPARE, from_ip};
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::Ordering::Relaxed;

pub(crate) const VIPS: [&str; 4] = ["192.0.2.100", "2001:db8:1::100", "192.0.2.101", "2001:db8:1::101"];
pub(crate) const BACKENDS: [&str; 6] =
    ["198.51.100.11", "198.51.100.12", "198.51.100.13", "2001:db8:2::11", "2001:db8:2::12", "2001:db8:2::13"];
/// Their ports; the others are met at the port at the virtual IP.
const PORTS: [Option<u16>; 6] = [None, Some(8080), None, None, Some(8081), None];
/// Virtual IPs of two more services, of mode "dsr", and their backends.
pub(crate) const DIRECT_VIPS: [&str; 2] = ["192.0.2.102", "2001:db8:1::102"];
pub(crate) const DIRECT: [&str; 4] = ["198.51.100.14", "198.51.100.15", "2001:db8:2::14", "2001:db8:2::15"];
/// What is added to the indexes of backends in the service for UDP.
const OF_UDP: u16 = 100;
/// Index of this one in the configuration, in the service for TCP.
pub(crate) const fn index_of(backend: usize) -> u16 {
    7 + backend as u16 * 2
}

/// The same of a direct backend.
pub(crate) const fn index_of_direct(backend: usize) -> u16 {
    41 + backend as u16 * 2
}

/// The indexes of a family's direct backends, in both services.
pub(crate) fn direct_indexes(side: usize) -> [u16; 4] {
    let [one, other] = [2 * side, 2 * side + 1].map(index_of_direct);
    [one, other, one + OF_UDP, other + OF_UDP]
}

/// Where packets to a port at a virtual IP go at this backend.
pub(crate) fn at(backend: &str, port: u16) -> End<'_> {
    let place = BACKENDS.iter().position(|known| *known == backend).expect("a backend");
    (backend, PORTS[place].unwrap_or(port))
}

pub(crate) const CAPACITY: usize = 400;
pub(crate) const HASH_KEY: [u8; 16] = *b"0123456789abcdef";
const RING: usize = 1 << 16;
/// TC_ACT_UNSPEC and TC_ACT_REDIRECT (include/uapi/linux/pkt_cls.h).
pub(crate) const MISS: i32 = -1;
pub(crate) const REDIRECT: i32 = 7;

pub(crate) struct World {
    pub(crate) decider: Decider,
    pub(crate) loaded: LoadedProgram,
    pub(crate) keeping: Keeping,
    pub(crate) reports: Reports,
    /// The table once more, to look at.
    table: Region,
    pub(crate) maps: WorkerMaps,
    pub(crate) outside: Interface,
    pub(crate) inside: Interface,
}

pub(crate) fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
    let millis = time.tv_sec() as u64 * 1000;
    Now { seconds: time.tv_sec() as u32, millis }
}

pub(crate) fn decider(flows: Region, spec: TableSpec) -> Decider {
    let policy = Policy::STANDARD;
    let (strategy, affinity) = (Strategy::RoundRobin, None);
    let mut all = vec![ToWorker::Begin { generation: 7, unserved: Unserved::Pass, malformed: OnFailure::Drop }];
    let vips = (0..).zip(VIPS.into_iter().chain(DIRECT_VIPS));
    all.extend(vips.map(|(n, vip)| ToWorker::Vip { index: n * 3, address: vip.parse().expect("address") }));
    let backend = |index: u16, address: &str, port| ToWorker::Backend {
        index: BackendIndex(index),
        address: address.parse().expect("address"),
        port,
        weight: 1,
        backup: false,
        admin: Admin::Enabled,
        up: true,
        age: u32::MAX,
        confirmed: true,
        link: None,
    };
    for (of_udp, protocol) in [(0, Protocol::Tcp), (OF_UDP, Protocol::Udp)] {
        let index = ServiceIndex(of_udp);
        all.push(ToWorker::Service { index, protocol, mode: Mode::Nat, strategy, affinity, policy });
        all.extend((0..4).map(|n| ToWorker::Listen { vip: n * 3 }));
        all.extend(BACKENDS.iter().enumerate().map(|(n, address)| backend(index_of(n) + of_udp, address, PORTS[n])));
        let index = ServiceIndex(of_udp + 1);
        all.push(ToWorker::Service { index, protocol, mode: Mode::Dsr, strategy, affinity, policy });
        all.extend((4..6).map(|n| ToWorker::Listen { vip: n * 3 }));
        all.extend(DIRECT.iter().enumerate().map(|(n, address)| backend(index_of_direct(n) + of_udp, address, None)));
    }
    all.push(ToWorker::Commit);
    let mut assembly = Assembly::default();
    let setup = all.into_iter().find_map(|message| assembly.take(message, 0).expect("in step")).expect("a setup");
    let clients = shm::create("clients", AffinityTable::bytes_for(CAPACITY)).expect("create");
    let few = TableSpec::new(CAPACITY, [4; 16]);
    AffinityTable::format(&Region::map(&clients).expect("map"), few).expect("format");
    let clients = AffinityTable::open(Region::map(&clients).expect("map"), few, |_| {}).expect("open");
    let counters = shm::create("counters", Counters::bytes_for(ALL_COUNTERS)).expect("create");
    let flows = FlowTable::open(flows, spec, flow_timeouts(&Idle::STANDARD)).expect("open");
    Decider::new(setup, flows, clients, Counters::map(&counters).expect("map"), now())
}

/// The program over tables of these workers, for the configuration of [`decider`].
pub(crate) fn load(workers: &[(&WorkerMaps, TableSpec)], steering: &Steering, inside: Interface) -> LoadedProgram {
    let workers: Vec<_> =
        workers.iter().map(|(maps, spec)| Worker { maps: maps.duplicate().expect("dup"), spec: *spec }).collect();
    let address = |text: &str| from_ip(text.parse().expect("address"));
    let both = Ports { stay: true, change: true };
    let all_vips = VIPS.into_iter().chain(DIRECT_VIPS);
    let vips =
        (0..).zip(all_vips).map(|(n, vip)| Address { address: address(vip), kind: Kind::Vip(n * 3), ports: both });
    let backends = BACKENDS.iter().zip(PORTS).map(|(backend, port)| Address {
        address: address(backend),
        kind: Kind::Backend,
        ports: Ports { stay: port.is_none(), change: port.is_some() },
    });
    let addresses: Vec<_> = vips.chain(backends).collect();
    let loaded = load_program(&workers, steering, &addresses, [0x1234_5678_9abc_def1, 0x0fed_cba9_8765_4321]);
    let loaded = loaded.unwrap_or_else(|error| panic!("{error}"));
    let Idle { tcp, udp, half_open, closing, .. } = Idle::STANDARD;
    let fresh = Fresh::of(tcp, udp, half_open, closing, None);
    for (n, backend) in BACKENDS.iter().enumerate() {
        let (comes_by, port) = (ComesBy::This(inside.index), PORTS[n]);
        let backend = Backend { address: address(backend), port, direct: false, comes_by, fresh };
        for index in [index_of(n), index_of(n) + OF_UDP] {
            loaded.program.set_backend(index, Some(&backend));
        }
    }
    for (n, backend) in DIRECT.iter().enumerate() {
        let backend = Backend { address: address(backend), port: None, direct: true, comes_by: ComesBy::None, fresh };
        for index in [index_of_direct(n), index_of_direct(n) + OF_UDP] {
            loaded.program.set_backend(index, Some(&backend));
        }
    }
    loaded
}

/// A worker keeps all flows.
pub(crate) fn keep_all(maps: &WorkerMaps) -> Keeping {
    let keeping = Keeping::map(&maps.keeping).expect("map");
    (0..6).for_each(|n| keep(&keeping, n, Keep::Yes));
    (0..2).flat_map(direct_indexes).for_each(|index| keeping.set(index, Keep::Yes));
    keeping
}

/// What a worker does with the flows of a backend, in both services.
pub(crate) fn keep(keeping: &Keeping, backend: usize, how: Keep) {
    keeping.set(index_of(backend), how);
    keeping.set(index_of(backend) + OF_UDP, how);
}

/// The backend with this index; `None`: a direct one.
pub(crate) fn backend_of(index: u16) -> Option<&'static str> {
    BACKENDS.get(usize::from((index - index_of(0)) % OF_UDP / 2)).copied()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::sized(CAPACITY)
    }

    /// With room for so many flows.
    pub(crate) fn sized(capacity: usize) -> Self {
        let [outside, inside] = network();
        let bytes = FlowTable::bytes_for(capacity);
        let maps = WorkerMaps::new(bytes, RING).expect("maps");
        let map = || Region::map_array(&maps.table, bytes).expect("map");
        let spec = TableSpec::new(capacity, HASH_KEY);
        FlowTable::format(&map(), spec).expect("format");
        let decider = decider(map(), spec);
        let steering = Steering { mask4: !0, mask6: [!0; 4], keys: [1; 6] };
        let loaded = load(&[(&maps, spec)], &steering, inside);
        let keeping = keep_all(&maps);
        let reports = Reports::map(&maps.ring, RING).expect("map");
        let table = map();
        Self { decider, loaded, keeping, reports, table, maps, outside, inside }
    }

    /// A worker that knows no flow, with the same program.
    pub(crate) fn begin_anew(&mut self) {
        let map = || Region::map_array(&self.maps.table, FlowTable::bytes_for(CAPACITY)).expect("map");
        let spec = TableSpec::new(CAPACITY, HASH_KEY);
        FlowTable::format(&map(), spec).expect("format");
        self.decider = decider(map(), spec);
        self.keeping = keep_all(&self.maps);
        self.heard();
    }

    /// The words of the table: header, and buckets of 40.
    pub(crate) fn table(&self) -> Vec<u64> {
        self.table.words().iter().map(|word| word.load(Relaxed)).collect()
    }

    /// Lets all flows be in this state, and last seen at this second.
    pub(crate) fn set_all(&self, state: FlowState, seen: u32) {
        // Words of a bucket: tags, eight times, eight states, checks, entries (src/table/src/layout.rs).
        for bucket in self.table.words()[16..].chunks_exact(40) {
            bucket[2..6].iter().for_each(|two| two.store(u64::from(seen) << 32 | u64::from(seen), Relaxed));
            bucket[6].store(u64::from_le_bytes([state as u8; 8]), Relaxed);
        }
    }

    /// Makes the table what it was.
    pub(crate) fn restore(&self, table: &[u64]) {
        self.table.words().iter().zip(table).for_each(|(place, word)| place.store(*word, Relaxed));
    }

    /// What the worker makes of an IP packet.
    pub(crate) fn decide(&mut self, bytes: &[u8], now: Now) -> (Outcome, Vec<u8>) {
        let facts = PacketFacts::WHOLE;
        let lookup = self.decider.lookup(bytes, facts);
        let mut space = [bytes, &[0xaa; SPARE]].concat();
        let decided = self.decider.decide(&lookup, PacketBuffer { space: &mut space, length: bytes.len(), facts }, now);
        space.truncate(decided.length);
        (decided.outcome, space)
    }

    /// What the program makes of an IP packet that comes in by an interface: what it says, and the IP packet after it.
    pub(crate) fn try_packet(&self, bytes: &[u8], from: Interface) -> (i32, Vec<u8>) {
        self.try_with(bytes, from, 1).0
    }

    /// The same `repeat` times, with the time that one took.
    pub(crate) fn try_with(&self, bytes: &[u8], from: Interface, repeat: u32) -> ((i32, Vec<u8>), std::time::Duration) {
        try_with(&self.loaded, bytes, from, repeat)
    }

    pub(crate) fn heard(&mut self) -> Vec<Report> {
        self.reports.by_ref().collect()
    }

    /// Begins a TCP flow as of this time; returns the backend, if there was room.
    pub(crate) fn begin(&mut self, client: End<'_>, vip: End<'_>, now: Now) -> Option<String> {
        let (outcome, sent) = self.decide(&tcp(client, vip, SYN), now);
        (outcome == Outcome::ForwardedNew).then(|| ends(&sent).1)
    }

    /// Opens it.
    pub(crate) fn open(&mut self, client: End<'_>, vip: End<'_>, now: Now) -> Option<String> {
        let backend = self.begin(client, vip, now)?;
        if !DIRECT_VIPS.contains(&vip.0) {
            self.decide(&tcp(at(&backend, vip.1), client, SYN | ACK), now);
        }
        self.decide(&tcp(client, vip, ACK), now);
        Some(backend)
    }

    /// Begins a UDP flow, as far as `steps` datagrams lead.
    pub(crate) fn talk(&mut self, client: End<'_>, vip: End<'_>, steps: u32, now: Now) -> Option<String> {
        let (outcome, sent) = self.decide(&udp(client, vip), now);
        if outcome != Outcome::ForwardedNew {
            return None;
        }
        let backend = ends(&sent).1;
        if steps > 1 && !DIRECT_VIPS.contains(&vip.0) {
            self.decide(&udp(at(&backend, vip.1), client), now);
        }
        if steps > 2 {
            self.decide(&udp(client, vip), now);
        }
        Some(backend)
    }
}

/// What the kernel's forwarding makes of a packet: a hop less (`ip_decrease_ttl` in include/net/ip.h).
pub(crate) fn forwarded(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[0] >> 4 == 6 {
        bytes[7] -= 1;
        return bytes;
    }
    let sum = u32::from(u16::from_be_bytes([bytes[10], bytes[11]])) + 0x0100;
    packets::put(&mut bytes, 10, (sum + u32::from(sum >= 0xffff)) as u16);
    bytes[8] -= 1;
    bytes
}

/// Whether tables are the same but for the times at which flows were last seen, and the proof in each entry's last 16 bits, which
/// the program keeps elsewhere.
pub(crate) fn same_flows(one: &[u64], other: &[u64]) -> bool {
    let differ = |at: usize| match at.checked_sub(16).map(|at| at % 40) {
        Some(2..6) => false,
        Some(word @ 8..) if word % 4 == 3 => (one[at] ^ other[at]) << 16 != 0,
        _ => one[at] != other[at],
    };
    one == other || !(0..one.len()).any(differ)
}

/// What a program makes of an IP packet that comes in by an interface, so many times.
pub(crate) fn try_with(
    loaded: &LoadedProgram,
    bytes: &[u8],
    from: Interface,
    repeat: u32,
) -> ((i32, Vec<u8>), std::time::Duration) {
    let kind: [u8; 2] = if bytes.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    let frame = [&from.mac[..], &[2, 0, 0, 0, 0, 1], &kind, bytes].concat();
    let mut context = [0; 192];
    // struct __sk_buff: ifindex.
    context[40..44].copy_from_slice(&from.index.to_ne_bytes());
    let mut out = vec![0; frame.len() + 64];
    let (said, length, time) = loaded
        .try_frame(Header::Ethernet, &frame, &mut out, (&context, repeat))
        .unwrap_or_else(|error| panic!("{error}"));
    out.truncate(length);
    assert_eq!(out[..14], frame[..14]);
    ((said, out.split_off(14)), time)
}
