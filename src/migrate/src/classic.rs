//! stealth/loaded's own files, read by the reader that `loaded` has for them. What only the script in such a file needs is named.

use crate::model::{Backend, Check, Judgement, Kind, Model, Note, Service, clipped};
use crate::position::{Position, Unreadable};
use crate::write::{array, quoted};
use loaded_config::plan::{Discover, Plan};
use loaded_config::{LoadedPlan, Overrides, Source, parse};
use loaded_ipc::{CheckKind, OnBackendDown};

/// The comment that ends the configuration; below it is the script.
const SCRIPT: &str = "# loaded: script";

/// Keys that the script alone needs, or that are checked and then forgotten.
const SCRIPTS: [(&str, &str); 7] = [
    ("VIP4net=", "the script gives the VIP its prefix; loaded.toml has no such key"),
    ("VIP6net=", "the script gives the VIP its prefix; loaded.toml has no such key"),
    ("public_NIC=", "the script's; loaded takes packets from every interface"),
    ("private_NIC=", "the script's; loaded.toml has an interface in discover alone"),
    ("private_GW=", "the script gives this host the address; backends reply through it"),
    ("RIP4=", "the backends' network; loaded.toml has it in discover alone"),
    ("RIP6=", "the backends' network; loaded.toml has it in discover alone"),
];

/// Reads one configuration of one or several files.
pub(crate) fn read(sources: &[Source], failover: bool) -> Result<Model, Unreadable> {
    let LoadedPlan { plan, notes, .. } = parse(sources, &Overrides { failover, ..Overrides::default() })?;
    let mut model = Model { settings: settings(&plan), ..Model::default() };
    let Some(start) = sources.first().map(Position::start) else { return Ok(model) };
    for source in sources {
        scripts(source, &mut model.notes);
    }
    let effectless = notes.iter().filter(|note| note.contains("without failover"));
    model.notes.extend(
        effectless.map(|note| Note::lost(&start, clipped(note), "was it started with -f? Then add --failover")),
    );
    let servers = servers(sources);
    for from in &plan.services {
        let mut service = service(from, &start);
        let at =
            |address: &std::net::IpAddr| servers.iter().find(|(known, _)| known == address).map(|(_, at)| at.clone());
        service.at = service.vips.first().and_then(at).unwrap_or(start.clone());
        for backend in &mut service.backends {
            backend.at = at(&backend.address).unwrap_or_else(|| start.clone());
        }
        interfaces(&mut service);
        model.services.push(service);
    }
    Ok(model)
}

fn settings(plan: &Plan) -> Vec<(&'static str, String)> {
    let default = Plan::empty();
    let mut settings = Vec::new();
    if let Some((low, high)) = plan.cores {
        settings.push(("cores", quoted(&format!("{low}-{high}"))));
    }
    if plan.queue_len != default.queue_len {
        settings.push(("queue_len", plan.queue_len.to_string()));
    }
    if !plan.nameservers.is_empty() {
        let servers: Vec<_> = plan.nameservers.iter().map(|server| quoted(&server.to_string())).collect();
        settings.push(("nameservers", array(&servers)));
    }
    settings
}

/// Notes on what only the script in the file needs.
fn scripts(source: &Source, notes: &mut Vec<Note>) {
    let start = Position::start(source);
    for (number, line) in source.text().lines().enumerate() {
        let body = line.trim_start();
        let at = start.at(number + 1, line.chars().count() - body.chars().count() + 1);
        if body.trim_end() == SCRIPT {
            let why = "the script below sets up addresses, routes and sysctls; keep it, loaded.toml does none of that";
            return notes.push(Note::remark(&at, SCRIPT, why));
        }
        if let Some((_, why)) = SCRIPTS.iter().find(|(key, _)| body.starts_with(key)) {
            notes.push(Note::remark(&at, body, *why));
        }
    }
}

/// Every address of the files, with its position.
fn servers(sources: &[Source]) -> Vec<(std::net::IpAddr, Position)> {
    let mut servers = Vec::new();
    for source in sources {
        let start = Position::start(source);
        for (number, line) in source.text().lines().enumerate() {
            let body = line.trim_start();
            let value = ["VIP4=", "VIP6=", "server4=", "server6="].iter().find_map(|key| body.strip_prefix(key));
            let address =
                value.and_then(|value| value.split([' ', '\t', '#']).next()).and_then(|text| text.parse().ok());
            let at = start.at(number + 1, line.len() - body.len() + 1);
            servers.extend(address.map(|address| (address, at)));
        }
    }
    servers
}

fn service(from: &loaded_config::plan::Service, at: &Position) -> Service {
    let mut service = Service::new(at, from.name.clone(), from.protocol);
    service.vips.clone_from(&from.vips);
    service.ports.clone_from(&from.ports);
    service.mode = from.mode;
    service.strategy = from.strategy;
    service.affinity = from.affinity;
    service.keeps_flows = from.policy.on_backend_down == OnBackendDown::Drain;
    service.check = from.check.as_ref().map(check);
    service.passive = match from.policy.passive {
        Some(passive) => Judgement::On {
            fails: Some(passive.fails),
            timeout: Some(passive.timeout),
            hold: Some(passive.hold),
            port: passive.port,
        },
        None if from.check.is_some() => Judgement::Off,
        None => Judgement::Unsaid,
    };
    service.discover.clone_from(&from.discover);
    service.backends = from.backends.iter().map(|backend| self::backend(backend, at)).collect();
    service
}

fn backend(from: &loaded_config::plan::Backend, at: &Position) -> Backend {
    Backend { at: at.clone(), address: from.address, port: from.port, weight: from.weight.into(), backup: from.backup }
}

/// Those that the classic format can ask for.
fn check(from: &loaded_ipc::Check) -> Check {
    let kind = match &from.kind {
        CheckKind::IcmpTcp { .. } => Kind::IcmpTcp,
        CheckKind::Tcp { .. } => Kind::Tcp,
        _ => Kind::Icmp,
    };
    Check {
        port: from.kind.port().filter(|_| kind != Kind::Icmp),
        kind,
        interval: Some(from.interval),
        timeout: Some(from.timeout),
        rise: None,
        fall: None,
    }
}

/// A table `discover` has one interface; two files can have two.
fn interfaces(service: &mut Service) {
    let Some(Discover { places, .. }) = &mut service.discover else { return };
    let first = places.first().and_then(|place| place.interface.clone());
    if places.iter().any(|place| place.interface != first) {
        let why = "discover has one interface; make a service of each family, or use one interface for both";
        service.notes.push(Note::lost(&service.at, "private_NIC", why));
    }
}
