//! What stands between the braces of a `virtual_server`.

use super::check::{self, Pace};
use super::front::Front;
use crate::ipvs::{PERSISTENCE, algorithm, granularity};
use crate::model::{AFFINITY, Backend, Model, Note, Service, number};
use crate::tree::Statement;
use loaded_ipc::{Affinity, Mode, Protocol, Strategy};
use std::net::IpAddr;

/// What keepalived and loaded both have, of one virtual server.
struct Body {
    service: Service,
    pace: Pace,
    /// Leading bits of a client: of IPv4 and IPv6.
    prefix: (u8, u8),
    /// Weights are used.
    weighted: bool,
    reals: Vec<Real>,
}

/// A real server, or a sorry server.
struct Real {
    backend: Backend,
    check: check::Found,
    inhibits: bool,
}

/// A service for each of the fronts.
pub(super) fn services(statement: &Statement, name: &str, fronts: Vec<Front>, model: &mut Model) {
    let service = Service::new(&statement.at, name.to_owned(), Protocol::Tcp);
    // IPVS_DEF_SCHED is wlc, include/ipvswrapper.h.
    let service = Service { strategy: Strategy::Weighted, ..service };
    let mut body = Body { service, pace: Pace::default(), prefix: (32, 128), weighted: true, reals: Vec::new() };
    let inner = statement.inner();
    body.pace = Pace::of(inner, &mut body.service.notes);
    let is_real = |line: &&Statement| matches!(line.word(0), "real_server" | "sorry_server");
    // Where a line stands says nothing: first whatever real servers take from around them.
    inner.iter().filter(|line| !is_real(line)).for_each(|line| body.key(line));
    inner.iter().filter(is_real).for_each(|line| body.real(line));
    for (number, front) in fronts.into_iter().enumerate() {
        model.services.push(body.service_at(front, number == 0));
    }
}

impl Body {
    /// The service, where its clients come to. `first`: it has the notes.
    fn service_at(&self, front: Front, first: bool) -> Service {
        let mut service = self.service.clone();
        if let (Some(affinity), (prefix4, prefix6)) = (&mut service.affinity, self.prefix) {
            (affinity.prefix4, affinity.prefix6) = (prefix4, prefix6);
        }
        let own = front.only();
        service.vips = front.vips;
        service.ports = front.port.into_iter().collect();
        for Real { backend, .. } in &self.reals {
            let mut backend = Backend {
                weight: if self.weighted { backend.weight } else { backend.weight.min(1) },
                ..backend.clone()
            };
            if service.mode == Mode::Dsr && backend.port.is_some() && backend.port != own {
                let why =
                    "with lb_kind DR no port is changed, in IPVS as here: the backend gets the port clients come to";
                service.notes.push(Note::remark(&backend.at, format!("real_server {}", backend.address), why));
            }
            backend.port = backend.port.filter(|port| service.mode == Mode::Nat && Some(*port) != own);
            service.backends.push(backend);
        }
        let found: Vec<_> = self.reals.iter().filter(|real| !real.backend.backup).map(|real| &real.check).collect();
        check::settle(&mut service, &found);
        let inhibiting: Vec<_> = self.reals.iter().filter(|real| real.inhibits).collect();
        service.keeps_flows = !inhibiting.is_empty();
        if !inhibiting.is_empty() && self.reals.iter().any(|real| !real.inhibits && !real.backend.backup) {
            let why = "on_backend_down = \"drain\" holds for all backends of a service";
            service.notes.push(Note::remark(&service.at, "inhibit_on_failure", why));
        }
        if !first {
            service.notes.clear();
            service.at = front.at;
        }
        service
    }

    fn note(&mut self, line: &Statement, why: &str) {
        self.service.notes.push(Note::lost(&line.at, line.say(), why));
    }

    fn key(&mut self, line: &Statement) {
        match line.word(0) {
            "lb_algo" | "lvs_sched" => self.algorithm(line),
            "lb_kind" | "lvs_method" => self.kind(line),
            "protocol" => match line.word(1).to_ascii_uppercase().as_str() {
                "TCP" => self.service.protocol = Protocol::Tcp,
                "UDP" => self.service.protocol = Protocol::Udp,
                "SCTP" => self.service.protocol = Protocol::Sctp,
                _ => self.note(line, "loaded has no such protocol; it takes TCP"),
            },
            "persistence_timeout" => {
                let seconds = if line.word(1).is_empty() { Some(PERSISTENCE) } else { number(line.word(1), &AFFINITY) };
                match seconds {
                    Some(timeout) => self.service.affinity = Some(Affinity { prefix4: 32, prefix6: 128, timeout }),
                    None => self.note(line, "it is no number of seconds up to a year"),
                }
            }
            "persistence_granularity" => match granularity(line.word(1)) {
                Some((bits, true)) => self.prefix.0 = bits,
                Some((bits, false)) => self.prefix.1 = bits,
                None => self.note(line, "it is neither a netmask nor the length of a prefix"),
            },
            key if Pace::KEYS.contains(&key) => {}
            key if check::is_check(key) => self.note(line, "a check stands within a real_server"),
            "weight" | "virtualhost" | "inhibit_on_failure" => {
                self.note(line, "a default for all real servers; write it into each of them, then migrate again");
            }
            "ha_suspend" => {
                self.note(line, "loaded serves whether or not the VIP is here: packets come only where it is");
            }
            "quorum" | "hysteresis" | "quorum_up" | "quorum_down" | "alpha" | "omega" | "smtp_alert" => {
                self.note(
                    line,
                    "no script or mail is sent by loaded; let a service of your own ask loaded health --min-up N",
                );
            }
            "ops" | "flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port" | "mh-fallback" => {
                self.note(line, "a flag of IPVS; affinity = \"none\" balances each flow by itself");
            }
            _ => self.note(line, "loaded has no counterpart"),
        }
    }

    fn algorithm(&mut self, line: &Statement) {
        let (strategy, weighted, lost) = algorithm(line.word(1));
        self.service.strategy = strategy;
        self.weighted = weighted;
        if line.word(1) == "sh" || line.word(1) == "mh" {
            let affinity = Affinity { prefix4: 32, prefix6: 128, timeout: loaded_config::AFFINITY_TIMEOUT };
            self.service.affinity.get_or_insert(affinity);
        }
        if let Some(why) = lost {
            self.note(line, why);
        }
    }

    fn kind(&mut self, line: &Statement) {
        match line.word(1) {
            "NAT" => self.service.mode = Mode::Nat,
            "DR" => self.service.mode = Mode::Dsr,
            "TUN" => {
                self.service.mode = Mode::Dsr;
                self.note(line, "loaded has no tunnels; with mode \"dsr\" backends must be on a network of this host");
            }
            _ => self.note(line, "loaded knows NAT and DR; it takes NAT"),
        }
    }

    fn real(&mut self, line: &Statement) {
        let Ok(address) = line.word(1).parse::<IpAddr>() else {
            return self.note(line, "a backend has an IP address");
        };
        let port = match line.word(2) {
            "" | "0" => None,
            text => match number(text, &(1..=u16::MAX)) {
                Some(port) => Some(port),
                None => return self.note(line, "its port is no number from 1 to 65535"),
            },
        };
        let backup = line.word(0) == "sorry_server";
        if backup {
            let why = "a backup of loaded is checked as the others are";
            self.service.notes.push(Note::remark(&line.at, line.say(), why));
        }
        let mut real = Real {
            backend: Backend { at: line.at.clone(), address, port, weight: 1, backup },
            check: check::Found { at: line.at.clone(), check: None },
            inhibits: false,
        };
        let pace = self.pace.within(line.inner(), &mut self.service.notes);
        for key in line.inner() {
            match key.word(0) {
                "weight" => match number(key.word(1), &(0..=65_535)) {
                    Some(weight) => real.backend.weight = weight,
                    None => self.note(key, "it is no weight from 0 to 65535"),
                },
                "inhibit_on_failure" => real.inhibits = true,
                word if Pace::KEYS.contains(&word) => {}
                word if check::is_check(word) => {
                    let found = check::read(key, &pace, real.backend.address, &mut self.service.notes);
                    match (&real.check.check, found) {
                        (None, found) => real.check.check = found,
                        (Some(_), Some(_)) => self.note(key, "loaded has one check for a service; the first is used"),
                        (Some(_), None) => {}
                    }
                }
                "notify_up" | "notify_down" | "smtp_alert" => {
                    self.note(key, "loaded runs no scripts; follow loaded events");
                }
                "uthreshold" | "lthreshold" => self.note(key, "loaded has no limit of connections to a backend"),
                _ => self.note(key, "loaded has no counterpart"),
            }
        }
        self.reals.push(real);
    }
}
