//! The kernel path of an instance: loaded before the rights are trimmed, and from then on kept in step with the roster through
//! its maps. Never knows how a packet is read.

use crate::Error;
use crate::children::memory::random;
use crate::children::worker::Worker;
use crate::roster::{BackendEntry, Roster};
use loaded_fastpath::load::{self, Program};
use loaded_fastpath::records::{Backend, Fresh, Kind};
use loaded_fastpath::{MAX_BACKENDS, MAX_VIPS};
use loaded_ipc::{BackendIndex, Idle, Mode};
use loaded_netfilter::Steering;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The loaded program.
#[derive(Debug)]
pub(crate) struct FastPath {
    program: Program,
}

impl FastPath {
    /// Loads the program over the tables of these workers, for this roster.
    ///
    /// # Errors
    /// If the kernel refuses; nothing is left of it then.
    pub(crate) fn load(workers: &[Worker], steering: &Steering, roster: &Roster) -> Result<Self, Error> {
        let of = |worker: &Worker| {
            Some(load::Worker { maps: worker.memory.maps()?.duplicate().ok()?, spec: worker.memory.flow_spec() })
        };
        let workers: Vec<_> = workers.iter().filter_map(of).collect();
        let (mask4, mask6, keys) = steering.numbers();
        let steering = load::Steering { mask4, mask6, keys };
        let addresses: Vec<_> = addresses(roster);
        let seed = [u64::from_ne_bytes(random()?), u64::from_ne_bytes(random()?)];
        let program = Program::load(&workers, &steering, &addresses, seed)?;
        let this = Self { program };
        this.follow(roster);
        Ok(this)
    }

    /// Tells the program what the roster says of backends and virtual IPs.
    pub(crate) fn follow(&self, roster: &Roster) {
        let kernel_backend = |(index, backend): (BackendIndex, &BackendEntry)| {
            let service = &roster.service(backend.service)?.service;
            let Idle { tcp, udp, half_open, closing, .. } = service.policy.idle;
            let fresh = Fresh::of(tcp, udp, half_open, closing, service.affinity.map(|affinity| affinity.timeout));
            let backend = Backend { address: mapped(backend.address), interface: 0, fresh };
            (service.mode == Mode::Nat).then_some((index.0, backend))
        };
        let backends: BTreeMap<_, _> = roster.backends().filter_map(kernel_backend).collect();
        for index in 0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX) {
            let backend = backends.get(&index);
            if backend.is_some() || self.program.knows_backend(index) {
                self.program.set_backend(index, backend);
            }
        }
        for (address, kind) in addresses(roster) {
            if !self.program.add_address(&address, kind) {
                log::warn!("kernel path: no room for the address of {kind:?}: its packets go by the queue");
            }
        }
    }

    /// Tells the program of tables that were made anew.
    pub(crate) fn tell_tables(&self, workers: &[Worker]) {
        for worker in workers {
            self.program.set_table(worker.position, worker.memory.flow_spec());
        }
    }

    /// Attaches the program to every interface. One that takes none is left to the queue.
    pub(crate) fn attach(&mut self) {
        for name in interfaces() {
            match self.program.attach(&name) {
                Ok(()) => log::info!("kernel path: attached to {name}"),
                Err(error) => log::warn!("{error}; packets that come in by {name} go by the queue"),
            }
        }
    }

    /// Detaches it everywhere.
    pub(crate) fn detach(&mut self) {
        for name in interfaces() {
            load::detach(&name);
        }
    }

    /// Packets and bytes sent on, to and from all backends; and why others were not.
    pub(crate) fn summary(&self) -> String {
        let (mut to, mut from) = (0, 0);
        for index in 0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX) {
            let totals = self.program.totals(index);
            to += totals.packets_to;
            from += totals.packets_from;
        }
        let missed =
            loaded_fastpath::Miss::ALL.iter().map(|why| format!("{} {}", why.label(), self.program.missed(*why)));
        format!(
            "kernel path: {to} packets to backends, {from} from them; left to the queue: {}",
            missed.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Every address of interest, once. A virtual IP whose number is too high stays with the queue.
fn addresses(roster: &Roster) -> Vec<([u8; 16], Kind)> {
    let vips = roster.vips().filter(|(index, _)| usize::from(*index) < MAX_VIPS);
    let mut all: Vec<_> = vips.map(|(index, address)| (mapped(address), Kind::Vip(index))).collect();
    let mut backends: Vec<_> = roster.backends().map(|(_, backend)| mapped(backend.address)).collect();
    backends.sort_unstable();
    backends.dedup();
    all.extend(backends.into_iter().map(|address| (address, Kind::Backend)));
    all
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// All but loopback.
fn interfaces() -> Vec<String> {
    let all = nix::net::if_::if_nameindex();
    let names = all.iter().flatten().filter_map(|interface| interface.name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "lo").collect()
}
