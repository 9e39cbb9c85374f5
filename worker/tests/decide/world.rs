//! Configurations, and a decider over tables in a memfd that outlive it.

use super::packets::{ACK, End, SYN, ends, ports, quoted, sound, tcp, udp};
use loaded_ipc::{
    ALL_COUNTERS, Admin, Affinity, AllDown, BackendCounter, BackendIndex, Idle, Mode, OnFailure, Outcome, Policy,
    PortRange, Protocol, Quota, ServiceIndex, Strategy, ToWorker, Unserved, View,
};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, TableSpec, shm};
use loaded_worker::decide::{Decider, PacketBuffer};
use loaded_worker::setup::{Assembly, Setup, flow_timeouts};
use loaded_worker::time::Now;
use loaded_worker::wire::{PacketFacts, SPARE};
use std::fs::File;

/// VIPs and backends by their indices.
pub(crate) const VIPS: [&str; 4] = ["192.0.2.100", "2001:db8:1::100", "192.0.2.101", "2001:db8:1::101"];
pub(crate) const BACKENDS: [&str; 6] =
    ["198.51.100.11", "198.51.100.12", "198.51.100.13", "2001:db8:2::11", "2001:db8:2::12", "2001:db8:2::13"];

/// The same things in both families.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    pub(crate) vip: &'static str,
    pub(crate) second_vip: &'static str,
    pub(crate) backends: [&'static str; 3],
    pub(crate) client: &'static str,
    pub(crate) router: &'static str,
}

pub(crate) const SIDES: [Side; 2] = [
    Side {
        vip: VIPS[0],
        second_vip: VIPS[2],
        backends: [BACKENDS[0], BACKENDS[1], BACKENDS[2]],
        client: "203.0.113.7",
        router: "10.9.9.9",
    },
    Side {
        vip: VIPS[1],
        second_vip: VIPS[3],
        backends: [BACKENDS[3], BACKENDS[4], BACKENDS[5]],
        client: "2001:db8:99::7",
        router: "2001:db8:9::9",
    },
];

impl Side {
    /// Another client than `client`, for each number another.
    pub(crate) fn client(&self, n: u16) -> String {
        if self.client.contains(':') {
            format!("2001:db8:50:{n:x}::1")
        } else {
            format!("10.50.{}.{}", n >> 8, n & 255)
        }
    }
}

/// A service on both first VIPs, with all backends.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) protocol: Protocol,
    pub(crate) mode: Mode,
    pub(crate) strategy: Strategy,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) vips: Vec<u16>,
    pub(crate) ports: Vec<u16>,
    pub(crate) weights: [u16; 6],
    /// The port that packets to each backend get.
    pub(crate) backend_ports: [Option<u16>; 6],
    /// More backends, each by its index, its place in [`BACKENDS`] and its port.
    pub(crate) more: Vec<(BackendIndex, usize, Option<u16>)>,
    pub(crate) policy: Policy,
    pub(crate) backups: Vec<usize>,
    pub(crate) down: Vec<usize>,
    /// Found, and no check has passed.
    pub(crate) found: Vec<usize>,
    pub(crate) admin: [Admin; 6],
    /// Seconds since the first backend came up.
    pub(crate) age: u32,
    /// Its index, if that is not its place.
    pub(crate) index: Option<u16>,
    /// Of the whole configuration; the first service's counts.
    pub(crate) unserved: Unserved,
    pub(crate) malformed: OnFailure,
    /// As `unserved`.
    pub(crate) quota: Option<Quota>,
}

/// What belongs to nobody passes: see `adopt` for what is otherwise.
pub(crate) const POLICY: Policy = Policy { all_down: AllDown::Drop, adopt: false, ..Policy::STANDARD };

pub(crate) const AFFINITY: Affinity = Affinity { prefix4: 32, prefix6: 128, timeout: 3600 };

/// On no VIP, without affinity.
pub(crate) const BARE: Service = Service {
    protocol: Protocol::Any,
    mode: Mode::Nat,
    strategy: Strategy::RoundRobin,
    affinity: None,
    vips: Vec::new(),
    ports: Vec::new(),
    weights: [1; 6],
    backend_ports: [None; 6],
    more: Vec::new(),
    policy: POLICY,
    backups: Vec::new(),
    down: Vec::new(),
    found: Vec::new(),
    admin: [Admin::Enabled; 6],
    age: u32::MAX,
    index: None,
    unserved: Unserved::Pass,
    malformed: OnFailure::Drop,
    quota: None,
};

impl Default for Service {
    fn default() -> Self {
        let (protocol, strategy) = (Protocol::Any, Strategy::RoundRobin);
        Self { protocol, strategy, affinity: Some(AFFINITY), vips: vec![0, 1], ..BARE }
    }
}

/// The messages of a whole transaction.
pub(crate) fn messages(services: &[Service]) -> Vec<ToWorker> {
    let mut all =
        vec![ToWorker::Begin { generation: 7, unserved: services[0].unserved, malformed: services[0].malformed }];
    all.extend(services[0].quota.map(ToWorker::Quota));
    all.extend((0..).zip(VIPS).map(|(n, vip)| ToWorker::Vip { index: n * 3, address: vip.parse().expect("address") }));
    for (place, service) in (0..).zip(services) {
        let Service { protocol, mode, strategy, affinity, policy, age, .. } = *service;
        let index = service.index.unwrap_or(place);
        all.push(ToWorker::Service { index: ServiceIndex(index), protocol, mode, strategy, affinity, policy });
        all.extend(service.vips.iter().map(|&vip| ToWorker::Listen { vip: vip * 3 }));
        all.extend(service.ports.iter().map(|&port| ToWorker::Port(PortRange { low: port, high: port })));
        let backends = BACKENDS.iter().zip(service.weights).enumerate().filter(|(_, (_, weight))| *weight > 0);
        all.extend(backends.map(|(n, (address, weight))| ToWorker::Backend {
            index: index_of(index, n),
            address: address.parse().expect("address"),
            port: service.backend_ports[n],
            weight,
            backup: service.backups.contains(&n),
            admin: service.admin[n],
            up: !service.down.contains(&n),
            age: if n == 0 { age } else { u32::MAX },
            confirmed: !service.found.contains(&n),
            link: None,
        }));
        all.extend(service.more.iter().map(|&(index, n, port)| plain_backend(index, BACKENDS[n], port)));
    }
    all.push(ToWorker::Commit);
    all
}

/// A backend of weight 1 that is up, enabled and confirmed, and has been for as long as anybody knows.
fn plain_backend(index: BackendIndex, address: &str, port: Option<u16>) -> ToWorker {
    ToWorker::Backend {
        index,
        address: address.parse().expect("address"),
        port,
        weight: 1,
        backup: false,
        admin: Admin::Enabled,
        up: true,
        age: u32::MAX,
        confirmed: true,
        link: None,
    }
}

/// Index of a backend of a service. There are gaps.
pub(crate) fn index_of(service: u16, backend: usize) -> BackendIndex {
    BackendIndex(service * 100 + 7 + u16::try_from(backend).expect("few") * 2)
}

pub(crate) fn setup(services: &[Service]) -> Setup {
    Assembly::whole(messages(services), 0).expect("in step").expect("a setup")
}

/// A decider, the memory of its tables, and the time.
pub(crate) struct World {
    pub(crate) decider: Decider,
    pub(crate) services: Vec<Service>,
    pub(crate) flows: File,
    pub(crate) clients: File,
    pub(crate) specs: [TableSpec; 2],
    pub(crate) counters: File,
    pub(crate) now: u32,
    /// Milliseconds more than `now`.
    pub(crate) millis: u64,
    /// What became of the last packet.
    pub(crate) sent: Vec<u8>,
    /// Where it went by its mark, if it did.
    pub(crate) direct: Option<BackendIndex>,
}

impl World {
    pub(crate) fn new(services: &[Service]) -> Self {
        Self::sized(services, 1000, 1000)
    }

    pub(crate) fn sized(services: &[Service], flows: usize, clients: usize) -> Self {
        let specs = [TableSpec::new(flows, [3; 16]), TableSpec::new(clients, [4; 16])];
        let (flow_memory, client_memory) = (
            shm::create("flows", FlowTable::bytes_for(flows)).expect("create"),
            shm::create("clients", AffinityTable::bytes_for(clients)).expect("create"),
        );
        FlowTable::format(&Region::map(&flow_memory).expect("map"), specs[0]).expect("format");
        AffinityTable::format(&Region::map(&client_memory).expect("map"), specs[1]).expect("format");
        let (flows, clients) = (File::from(flow_memory), File::from(client_memory));
        let counters = shm::create("counters", Counters::bytes_for(ALL_COUNTERS)).expect("create").into();
        let now = Now { seconds: 100_000, millis: 100_000_000 };
        let decider = decider(services, specs, (&flows, &clients, &counters), now);
        let (now, millis, sent, direct) = (now.seconds, 0, vec![], None);
        Self { decider, services: services.to_vec(), flows, clients, specs, counters, now, millis, sent, direct }
    }

    /// The worker dies; another one begins over the same memory.
    pub(crate) fn respawn(&mut self) {
        self.decider = decider(&self.services, self.specs, (&self.flows, &self.clients, &self.counters), self.time());
    }

    pub(crate) fn time(&self) -> Now {
        Now { seconds: self.now, millis: u64::from(self.now) * 1000 + self.millis }
    }

    /// Time passes for the backends.
    pub(crate) fn wait(&mut self, millis: u64) {
        self.millis += millis;
        self.decider.tick(self.time());
    }

    /// The checks speak of a backend of the first service, by its place in [`BACKENDS`].
    pub(crate) fn check(&mut self, backend: usize, up: bool) {
        let now = self.time();
        self.decider.set_up(index_of(0, backend), up, now).expect("known");
    }

    /// The operator speaks of it.
    pub(crate) fn admin(&mut self, backend: usize, admin: Admin) {
        let now = self.time();
        self.decider.set_admin(index_of(0, backend), admin, now).expect("known");
    }

    pub(crate) fn count(&self, counter: BackendCounter, backend: BackendIndex) -> u64 {
        self.decider.counters().get(counter.index(backend)).expect("a counter")
    }

    pub(crate) fn view(&self, backend: usize) -> View {
        View::from_word(self.count(BackendCounter::View, index_of(0, backend))).expect("a view")
    }

    /// A packet comes in; it is changed as the worker changes it.
    pub(crate) fn send(&mut self, bytes: &mut [u8]) -> Outcome {
        self.send_as(bytes, PacketFacts::WHOLE)
    }

    pub(crate) fn send_as(&mut self, bytes: &mut [u8], facts: PacketFacts) -> Outcome {
        let lookup = self.decider.lookup(bytes, facts);
        self.decider.prefetch(&lookup);
        let mut space = [&bytes[..], &[0xaa; SPARE]].concat();
        let decided =
            self.decider.decide(&lookup, PacketBuffer { space: &mut space, length: bytes.len(), facts }, self.time());
        space.truncate(decided.length);
        let same = bytes.len().min(space.len());
        bytes[..same].copy_from_slice(&space[..same]);
        (self.sent, self.direct) = (space, decided.direct);
        decided.outcome
    }

    /// Takes out whatever has expired.
    pub(crate) fn sweep(&mut self) {
        self.decider.sweep(self.now, usize::MAX);
    }

    /// Sends a packet that must be forwarded; returns the backend's address.
    pub(crate) fn forward(&mut self, mut bytes: Vec<u8>, expected: Outcome) -> String {
        assert_eq!(self.send(&mut bytes), expected);
        let (_, destination) = ends(&bytes);
        assert!(BACKENDS.contains(&destination.as_str()), "{destination} is no backend");
        assert!(sound(&bytes));
        destination
    }

    /// Sends a backend's packet of a flow, which must come back as the VIP's.
    pub(crate) fn answer(&mut self, mut bytes: Vec<u8>) {
        assert_eq!(self.send(&mut bytes), Outcome::Returned);
        let (source, _) = ends(&bytes);
        assert!(VIPS.contains(&source.as_str()), "{source} is no VIP");
        assert!(sound(&bytes));
    }

    /// Opens a new TCP connection, all three packets of it; returns the backend's address.
    pub(crate) fn open(&mut self, client: End<'_>, vip: End<'_>) -> String {
        let backend = self.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
        self.answer(tcp((&backend, ports(&self.sent).1), client, SYN | ACK));
        assert_eq!(self.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
        backend
    }

    /// The port at which a backend meets an open connection.
    pub(crate) fn port_at_backend(&mut self, client: End<'_>, vip: End<'_>) -> u16 {
        self.forward(tcp(client, vip, ACK), Outcome::Forwarded);
        ports(&self.sent).1
    }

    /// A new UDP flow: one datagram and its answer; returns the backend's address.
    pub(crate) fn ask(&mut self, client: End<'_>, vip: End<'_>) -> String {
        let backend = self.forward(udp(client, vip), Outcome::ForwardedNew);
        self.answer(udp((&backend, ports(&self.sent).1), client));
        backend
    }

    /// The same, and the client speaks once more, as who has heard the answer does.
    pub(crate) fn talk(&mut self, client: End<'_>, vip: End<'_>) -> String {
        let backend = self.ask(client, vip);
        assert_eq!(self.forward(udp(client, vip), Outcome::Forwarded), backend);
        backend
    }

    /// Sends a packet that must stay as it is.
    pub(crate) fn unchanged(&mut self, mut bytes: Vec<u8>, expected: Outcome) {
        let before = bytes.clone();
        assert_eq!(self.send(&mut bytes), expected, "{before:02x?}");
        assert_eq!(bytes, before);
    }
}

fn decider(
    services: &[Service],
    specs: [TableSpec; 2],
    (flows, clients, counters): (&File, &File, &File),
    now: Now,
) -> Decider {
    let flows =
        FlowTable::open(Region::map(flows).expect("map"), specs[0], flow_timeouts(&Idle::STANDARD)).expect("open");
    let clients = AffinityTable::open(Region::map(clients).expect("map"), specs[1], |_| {}).expect("open");
    Decider::new(setup(services), flows, clients, Counters::map(counters).expect("map"), now)
}

/// A packet that goes on changed names a backend as its destination if it is a request or an error about a reply, and
/// else nowhere: not as its source, and not in what it quotes.
pub(crate) fn only_requests_name_backends(after: &[u8], outcome: Outcome) {
    let (source, destination) = ends(after);
    let backend = |address: &String| BACKENDS.contains(&address.as_str());
    match outcome {
        Outcome::Forwarded | Outcome::ForwardedNew | Outcome::ErrorForwarded => assert!(backend(&destination)),
        _ => assert!(!backend(&source), "{outcome:?} from {source}"),
    }
    if matches!(outcome, Outcome::ErrorReturned | Outcome::ErrorRelayed) {
        let (source, destination) = ends(quoted(after));
        assert!(!backend(&source) && !backend(&destination));
    }
}
