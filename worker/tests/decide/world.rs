//! Configurations, and a decider over tables in a memfd that outlive it.

use super::packets::{ACK, End, SYN, ends, sound, tcp, udp};
use loaded_ipc::{Affinity, BackendIndex, Outcome, PortRange, Protocol, ServiceIndex, Strategy, ToWorker};
use loaded_queue::Meta;
use loaded_table::{AffinityTable, FlowTable, Region, Timeouts, shm};
use loaded_worker::decide::Decider;
use loaded_worker::setup::{Assembly, Setup};
use std::fs::File;

/// VIPs and backends by their indices.
pub(crate) const VIPS: [&str; 4] = ["192.0.2.100", "2001:db8:1::100", "192.0.2.101", "2001:db8:1::101"];
pub(crate) const BACKENDS: [&str; 6] =
    ["198.51.100.11", "198.51.100.12", "198.51.100.13", "2001:db8:2::11", "2001:db8:2::12", "2001:db8:2::13"];

pub(crate) const WHOLE: Meta = Meta { cut: false, partial: false, gso: false };

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
    pub(crate) strategy: Strategy,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) vips: Vec<u16>,
    pub(crate) ports: Vec<u16>,
    pub(crate) weights: [u16; 6],
}

pub(crate) const AFFINITY: Affinity = Affinity { prefix4: 32, prefix6: 128, timeout: 3600 };

impl Default for Service {
    fn default() -> Self {
        let (protocol, strategy) = (Protocol::Any, Strategy::RoundRobin);
        Self { protocol, strategy, affinity: Some(AFFINITY), vips: vec![0, 1], ports: vec![], weights: [1; 6] }
    }
}

/// The messages of a whole transaction.
pub(crate) fn messages(services: &[Service]) -> Vec<ToWorker> {
    let mut all = vec![ToWorker::Begin { generation: 7 }];
    all.extend((0..).zip(VIPS).map(|(index, vip)| ToWorker::Vip { index, address: vip.parse().expect("address") }));
    let backends = (0..).zip(BACKENDS).map(|(n, b)| (BackendIndex(n), b.parse().expect("address")));
    all.extend(backends.map(|(index, address)| ToWorker::Backend { index, address }));
    for (index, service) in (0..).zip(services) {
        let Service { protocol, strategy, affinity, .. } = *service;
        all.push(ToWorker::Service { index: ServiceIndex(index), protocol, strategy, affinity });
        all.extend(service.vips.iter().map(|&vip| ToWorker::Listen { vip }));
        all.extend(service.ports.iter().map(|&port| ToWorker::Port(PortRange { low: port, high: port })));
        let members = (0..).zip(service.weights).filter(|(_, weight)| *weight > 0);
        all.extend(members.map(|(n, weight)| ToWorker::Member { backend: BackendIndex(n), weight }));
    }
    all.push(ToWorker::Commit);
    all
}

pub(crate) fn setup(services: &[Service]) -> Setup {
    let mut assembly = Assembly::default();
    let mut taken = messages(services).into_iter().map(|m| assembly.take(m, 0).expect("in step"));
    taken.find_map(|setup| setup).expect("a setup")
}

/// A decider, the memory of its tables, and the time.
pub(crate) struct World {
    pub(crate) decider: Decider,
    pub(crate) services: Vec<Service>,
    pub(crate) flows: File,
    pub(crate) clients: File,
    pub(crate) now: u32,
}

impl World {
    pub(crate) fn new(services: &[Service]) -> Self {
        Self::sized(services, 1000, 1000)
    }

    pub(crate) fn sized(services: &[Service], flows: usize, clients: usize) -> Self {
        let (flow_memory, client_memory) = (
            shm::create("flows", FlowTable::bytes_for(flows)).expect("create"),
            shm::create("clients", AffinityTable::bytes_for(clients)).expect("create"),
        );
        FlowTable::format(&Region::map(&flow_memory).expect("map"), flows, [3; 16]).expect("format");
        AffinityTable::format(&Region::map(&client_memory).expect("map"), clients, [4; 16]).expect("format");
        let (flows, clients) = (File::from(flow_memory), File::from(client_memory));
        let decider = decider(services, &flows, &clients);
        Self { decider, services: services.to_vec(), flows, clients, now: 100_000 }
    }

    /// The worker dies; another one begins over the same memory.
    pub(crate) fn respawn(&mut self) {
        self.decider = decider(&self.services, &self.flows, &self.clients);
    }

    /// A packet comes in; it is changed as the worker changes it.
    pub(crate) fn send(&mut self, bytes: &mut [u8]) -> Outcome {
        self.send_as(bytes, WHOLE)
    }

    pub(crate) fn send_as(&mut self, bytes: &mut [u8], meta: Meta) -> Outcome {
        let look = self.decider.look(bytes, meta.cut);
        self.decider.prefetch(&look);
        self.decider.decide(&look, bytes, meta, self.now)
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
        self.answer(tcp((&backend, vip.1), client, SYN | ACK));
        assert_eq!(self.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
        backend
    }

    /// A new UDP flow: one datagram and its answer; returns the backend's address.
    pub(crate) fn ask(&mut self, client: End<'_>, vip: End<'_>) -> String {
        let backend = self.forward(udp(client, vip), Outcome::ForwardedNew);
        self.answer(udp((&backend, vip.1), client));
        backend
    }

    /// Sends a packet that must stay as it is.
    pub(crate) fn unchanged(&mut self, mut bytes: Vec<u8>, expected: Outcome) {
        let before = bytes.clone();
        assert_eq!(self.send(&mut bytes), expected, "{before:02x?}");
        assert_eq!(bytes, before);
    }
}

fn decider(services: &[Service], flows: &File, clients: &File) -> Decider {
    let flows = FlowTable::open(Region::map(flows).expect("map"), Timeouts::default()).expect("open");
    let clients = AffinityTable::open(Region::map(clients).expect("map"), |_| {}).expect("open");
    Decider::new(setup(services), flows, clients)
}
