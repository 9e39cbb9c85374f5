//! The kernel path of an instance: loaded before the rights are trimmed, and from then on kept in step with roster and host
//! through its maps and by netlink. Never knows how a packet is read.

mod next;
mod off;

pub(crate) use next::off;
pub(crate) use off::Off;

use crate::Error;
use crate::children::child::dup;
use crate::children::memory::random;
use crate::children::worker::Worker;
use crate::handover::PathHandover;
use crate::roster::{BackendEntry, Roster};
use loaded_control::status::KernelPathStatus;
use loaded_fastpath::filter::{Attached, Filters};
use loaded_fastpath::load::{self, identity};
use loaded_fastpath::program::{DESCRIPTORS, Header, Program, Totals};
use loaded_fastpath::records::{Address, Backend, ComesBy, Fresh, Kind, Ports};
use loaded_fastpath::{MAX_BACKENDS, MAX_VIPS, Miss, REPORTS_BYTES, Towards};
use loaded_host::{Interface, LinkHeader, reachable_interfaces};
use loaded_ipc::{BackendIndex, Idle, Mode};
use loaded_netfilter::Steering;
use loaded_table::{FlowTable, TableSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// The loaded program, and where it is attached.
#[derive(Debug)]
pub(crate) struct FastPath {
    program: Program,
    filters: Filters,
    towards: Towards,
    /// By the index of the interface.
    attached: BTreeMap<u32, Place>,
    /// Names of interfaces that take no program, and have been told of.
    refused: BTreeMap<u32, String>,
    /// What did not fit, so that it is told once.
    left_out: BTreeSet<IpAddr>,
    /// What an earlier instance has attached to, and what is left there of it.
    leftovers: Leftovers,
    is_open: bool,
}

/// An interface with our filter.
#[derive(Debug)]
struct Place {
    name: String,
    /// Its `clsact` is there for our sake.
    ours: bool,
}

impl FastPath {
    /// Loads the program over the tables of these workers, for this roster.
    ///
    /// # Errors
    /// If the kernel refuses; nothing is left of it then.
    pub(crate) fn load(workers: &[Worker], steering: &Steering, roster: &Roster, base: u16) -> Result<Self, Error> {
        let of = |worker: &Worker| {
            Some(load::Worker { maps: worker.memory.maps()?.duplicate().ok()?, spec: worker.memory.flow_spec() })
        };
        let workers: Vec<_> = workers.iter().filter_map(of).collect();
        let (mask4, mask6, keys) = steering.numbers();
        let steering = load::Steering { mask4, mask6, keys };
        let addresses: Vec<_> = addresses(roster).into_iter().filter(is_numbered).collect();
        let seed = [u64::from_ne_bytes(random()?), u64::from_ne_bytes(random()?)];
        let loaded = load::load(&workers, &steering, &addresses, seed)?;
        let mut this = Self::of(loaded.program, base)?;
        this.follow(roster);
        Ok(this)
    }

    /// The program of a predecessor. `None`: this binary has another one.
    ///
    /// # Errors
    /// If its maps cannot be mapped.
    pub(crate) fn inherit(
        handover: PathHandover,
        descriptors: [OwnedFd; DESCRIPTORS],
        base: u16,
    ) -> Result<Option<Self>, Error> {
        if handover.program != identity() {
            return Ok(None);
        }
        Self::of(Program::of(descriptors, handover.seed)?, base).map(Some)
    }

    fn of(program: Program, base: u16) -> Result<Self, Error> {
        Ok(Self {
            program,
            filters: Filters::open(base)?,
            towards: Towards::open()?,
            attached: BTreeMap::new(),
            refused: BTreeMap::new(),
            left_out: BTreeSet::new(),
            leftovers: Leftovers::default(),
            is_open: false,
        })
    }

    /// What a successor needs.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn descriptors(&self) -> Result<Vec<OwnedFd>, Error> {
        self.program.descriptors().iter().map(dup).collect()
    }

    /// What a successor has to know.
    pub(crate) fn handover(&self) -> PathHandover {
        PathHandover { program: identity(), seed: self.program.seed() }
    }

    /// Tells the program what roster and host say of backends and virtual IPs.
    pub(crate) fn follow(&mut self, roster: &Roster) {
        // By which interfaces replies of an address are believed, as the rules do it: see `Reach::is_checked`.
        let is_asymmetric = |backend: &BackendEntry| {
            roster.service(backend.service).is_some_and(|entry| entry.service.policy.asymmetric)
        };
        let asymmetric = roster.backends().map(|(_, backend)| backend).filter(|backend| is_asymmetric(backend));
        let mut ways: BTreeMap<IpAddr, ComesBy> = asymmetric.map(|backend| (backend.address, ComesBy::Any)).collect();
        let mut backends = BTreeMap::new();
        for (index, backend) in roster.backends() {
            let towards = |address: &IpAddr| self.towards.interface(*address).map_or(ComesBy::None, ComesBy::This);
            let by = *ways.entry(backend.address).or_insert_with_key(towards);
            if let Some(backend) = of_entry(roster, backend, by) {
                backends.insert(index.0, backend);
            }
        }
        for index in 0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX) {
            let backend = backends.get(&index);
            if backend.is_some() || self.program.knows_backend(index) {
                self.program.set_backend(index, backend);
            }
        }
        for address in addresses(roster) {
            if !self.program.set_address(&address) && self.left_out.insert(plain(&address)) {
                log::warn!("kernel path: no room for {}: its packets go by the queue", plain(&address));
            }
        }
    }

    /// Tells the program of tables that were made anew.
    pub(crate) fn tell_tables(&self, workers: &[Worker]) {
        for worker in workers {
            self.program.set_table(worker.position, worker.memory.flow_spec());
        }
    }

    /// Whether it is attached wherever packets may come in.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// From now on the program is attached wherever packets may come in.
    pub(crate) fn open(&mut self, roster: &Roster) {
        self.is_open = true;
        self.look(roster);
    }

    /// Looks at the host: interfaces that are new, renamed or gone, and routes that have changed.
    pub(crate) fn look(&mut self, roster: &Roster) {
        if self.is_open {
            self.follow(roster);
            self.look_at_interfaces();
        }
    }

    /// Looks at interfaces that are new, renamed or gone.
    pub(crate) fn look_at_interfaces(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a list nothing is known to be gone: it is looked at again soon.
        let Ok(interfaces) = reachable_interfaces() else { return };
        let is_there = |index: &u32| interfaces.iter().any(|interface| interface.index == *index);
        self.refused.retain(|index, _| is_there(index));
        let gone: Vec<_> = self.attached.keys().copied().filter(|index| !is_there(index)).collect();
        for index in gone {
            // Gone, or a port of a bridge now.
            if let Some(place) = self.attached.remove(&index) {
                log::info!("kernel path: detached from {}", place.name);
                self.detach_from(index, &place);
            }
        }
        for interface in interfaces {
            self.attach_to(interface);
        }
    }

    fn attach_to(&mut self, interface: Interface) {
        let Interface { name, index, header } = interface;
        if self.refused.contains_key(&index) {
            return;
        }
        // A qdisc may be removed with all its filters: it is looked at each time.
        let is_there = self.filters.is_attached(index).unwrap_or(false);
        if let Some(place) = self.attached.get_mut(&index)
            && is_there
        {
            place.name = name;
            return;
        }
        let header = match header {
            Some(LinkHeader::Ethernet) => Header::Ethernet,
            Some(LinkHeader::None) => Header::None,
            None => {
                log::info!("kernel path: packets that come in by {name} go by the queue: its link header is not known");
                self.refused.insert(index, name);
                return;
            }
        };
        match self.filters.attach(index, self.program.entry(header)) {
            Ok(attached) => {
                log::info!("kernel path: attached to {name}");
                let was_ours = self.attached.get(&index).is_some_and(|place| place.ours);
                let ours = attached == Attached::ToOurs || was_ours || self.leftovers.0.contains(&index);
                self.attached.insert(index, Place { name, ours });
            }
            Err(error) => {
                log::warn!("{name}: {error}; packets that come in by it go by the queue");
                self.refused.insert(index, name);
            }
        }
    }

    /// Detaches it everywhere, until it is opened again. Packets pass, so what that needs stays: see [`Leftovers`].
    pub(crate) fn close(&mut self) {
        self.is_open = false;
        for (index, place) in std::mem::take(&mut self.attached) {
            if place.ours {
                self.leftovers.0.insert(index);
            }
            self.detach_from(index, &Place { ours: false, ..place });
        }
    }

    /// Detaches it everywhere, for good.
    pub(crate) fn detach(&mut self) {
        self.is_open = false;
        for (index, place) in std::mem::take(&mut self.attached) {
            self.leftovers.0.remove(&index);
            self.detach_from(index, &place);
        }
        std::mem::take(&mut self.leftovers).remove_by(&mut self.filters);
    }

    /// What an earlier instance has left is this one's to remove.
    pub(crate) fn take_over(&mut self, leftovers: Leftovers) {
        self.leftovers.0.extend(leftovers.0);
    }

    /// Interfaces whose `clsact` is this instance's to remove.
    pub(crate) fn clsacts(&self) -> Vec<u32> {
        let attached = self.attached.iter().filter(|(_, place)| place.ours).map(|(index, _)| *index);
        let all: BTreeSet<u32> = attached.chain(self.leftovers.0.iter().copied()).collect();
        all.into_iter().collect()
    }

    fn detach_from(&mut self, index: u32, place: &Place) {
        if let Err(error) = self.filters.detach(index, place.ours) {
            log::warn!("{}: {error}", place.name);
        }
    }

    /// What an operator wants to know of it.
    pub(crate) fn status(&self) -> KernelPathStatus {
        let missed = Miss::ALL.iter().filter(|why| why.is_counted());
        KernelPathStatus {
            off: None,
            off_reason: None,
            interfaces: self.attached.values().map(|place| place.name.clone()).collect(),
            refused: self.refused.values().cloned().collect(),
            missed: missed.map(|why| (why.label().to_owned(), self.program.missed(*why))).collect(),
        }
    }

    /// What was sent on to a backend and from it.
    pub(crate) fn totals(&self, backend: BackendIndex) -> Totals {
        self.program.totals(backend.0)
    }

    /// Packets sent on to all backends, and from them.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let of = (0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX)).map(|index| self.program.totals(index));
        of.fold((0, 0), |(to, from), one| (to + one.packets_to, from + one.packets_from))
    }

    /// Packets sent on, to and from all backends; and why others were not.
    pub(crate) fn summary(&self) -> String {
        let (to, from) = self.sums();
        let missed = Miss::ALL
            .iter()
            .filter(|why| why.is_counted())
            .map(|why| format!("{} {}", why.label(), self.program.missed(*why)));
        format!(
            "kernel path: {to} packets to backends, {from} from them; left to the queue: {}",
            missed.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Interfaces with a `clsact` that an earlier instance has made. It stays while packets pass: the kernel deactivates an interface
/// to add or remove one, and drops what it has to send meanwhile (`qdisc_graft` in net/sched/sch_api.c).
#[derive(Debug, Default)]
pub(crate) struct Leftovers(BTreeSet<u32>);

impl Leftovers {
    /// Those that a predecessor has written down.
    pub(crate) fn of(clsacts: &[u32]) -> Self {
        Self(clsacts.iter().copied().collect())
    }

    pub(crate) fn clsacts(&self) -> Vec<u32> {
        self.0.iter().copied().collect()
    }

    /// Both.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Detaches what an earlier instance of this base has left. Its packets go by the queue then.
    pub(crate) fn detach(base: u16) -> Self {
        let mut this = Self::default();
        let mut filters = match Filters::open(base) {
            Ok(filters) => filters,
            Err(error) => {
                log::warn!("{error}");
                return this;
            }
        };
        let interfaces = reachable_interfaces().unwrap_or_else(|error| {
            log::warn!(
                "kernel path: interfaces are not listed, and what an earlier instance has left there stays: {error}"
            );
            Vec::new()
        });
        for Interface { name, index, .. } in interfaces {
            match filters.is_attached(index) {
                Ok(true) => {
                    log::info!("kernel path: what an earlier instance has attached to {name} is detached");
                    if let Err(error) = filters.detach(index, false) {
                        log::warn!("{name}: {error}");
                    }
                    this.0.insert(index);
                }
                Ok(false) => {}
                Err(error) => log::warn!("{name}: {error}"),
            }
        }
        this
    }

    /// Removes what is left of it, and nobody else uses.
    pub(crate) fn remove(self, base: u16) {
        if self.0.is_empty() {
            return;
        }
        match Filters::open(base) {
            Ok(mut filters) => self.remove_by(&mut filters),
            Err(error) => log::warn!("{error}"),
        }
    }

    fn remove_by(self, filters: &mut Filters) {
        for error in self.0.into_iter().filter_map(|index| filters.detach(index, true).err()) {
            log::warn!("{error}");
        }
    }
}

/// Whether this kernel takes the program: loads it over an empty table, as a start does, and lets go of it.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn trial() -> Result<(), loaded_fastpath::Error> {
    const ENTRIES: usize = 1024;
    let maps = load::WorkerMaps::new(FlowTable::bytes_for(ENTRIES), REPORTS_BYTES)?;
    let worker = load::Worker { maps, spec: TableSpec::new(ENTRIES, [0; 16]) };
    let steering = load::Steering { mask4: u32::MAX, mask6: [u32::MAX; 4], keys: [1; 6] };
    load::load(&[worker], &steering, &[], [1, 1]).map(drop)
}

fn of_entry(roster: &Roster, backend: &BackendEntry, comes_by: ComesBy) -> Option<Backend> {
    let service = &roster.service(backend.service)?.service;
    let Idle { tcp, udp, half_open, closing, .. } = service.policy.idle;
    let fresh = Fresh::of(tcp, udp, half_open, closing, service.affinity.map(|affinity| affinity.timeout));
    let direct = service.mode == Mode::Dsr;
    Some(Backend { address: mapped(backend.address), port: backend.port, direct, comes_by, fresh })
}

/// Every address of interest, once.
fn addresses(roster: &Roster) -> Vec<Address> {
    let is_nat =
        |backend: &BackendEntry| roster.service(backend.service).is_some_and(|entry| entry.service.mode == Mode::Nat);
    let mut of_all = Ports::default();
    let mut by_address: BTreeMap<IpAddr, Ports> = BTreeMap::new();
    for (_, backend) in roster.backends() {
        let ports = Ports { stay: backend.port.is_none(), change: backend.port.is_some() };
        of_all.add(ports);
        // Replies of others take another way.
        if is_nat(backend) {
            by_address.entry(backend.address).or_default().add(ports);
        }
    }
    let vip = |(index, address)| Address { address: mapped(address), kind: Kind::Vip(index), ports: of_all };
    let mut all: Vec<_> = roster.vips().map(vip).collect();
    let backend = |(address, ports)| Address { address: mapped(address), kind: Kind::Backend, ports };
    all.extend(by_address.into_iter().map(backend));
    all
}

/// Whether the program has a number for it; others stay with the queue.
fn is_numbered(address: &Address) -> bool {
    !matches!(address.kind, Kind::Vip(index) if usize::from(index) >= MAX_VIPS)
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn plain(address: &Address) -> IpAddr {
    IpAddr::from(address.address).to_canonical()
}
