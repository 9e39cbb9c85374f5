//! Takes out what `loaded` would refuse. Its own reader has the last word: it reads the output, and whatever it points at
//! goes, with its reason as a note, until it accepts the rest.

use crate::model::{Backend, Judgement, Model, Note, Service};
use crate::position::Position;
use crate::write::{self, LineOwner};
use loaded_config::plan::{MAX_BACKENDS, MAX_SERVICES, MAX_WEIGHT};
use loaded_config::{ConfigError, Overrides, Source};

/// What the output is called while it is tried.
const NAME: &str = "loaded.toml";
/// After so many refusals whole services go: reading takes time, and a hostile text could ask for much of it.
const PATIENCE: usize = 200;

/// Makes the model acceptable. Nothing is left of it if no service is.
pub(crate) fn settle(mut model: Model) -> Model {
    bound(&mut model);
    for service in &mut model.services {
        weigh(service);
        merge(service);
        promote(service);
    }
    for round in 0_usize.. {
        if model.services.is_empty() {
            model.settings.clear();
            break;
        }
        let page = write::bare(&model);
        let Err(error) = loaded_config::parse(&[Source::new(NAME, page.text)], &Overrides::default()) else { break };
        let (line, why) = match &error {
            // One at a time: the others may follow from it.
            ConfigError::Invalid { mistakes } => mistakes.first().map(|first| (first.at.line, first.message.clone())),
            _ => None,
        }
        .unwrap_or_else(|| (0, error.to_string()));
        let owner = page.owners.get(line.wrapping_sub(1)).copied().unwrap_or(LineOwner::Nobody);
        // Lines of an output that nobody sees mean nothing to the reader.
        let why = why.split(&format!(" (see {NAME}:")).next().unwrap_or_default().to_owned();
        remove(&mut model, if round < PATIENCE { owner } else { widened(owner) }, why);
    }
    model
}

/// Takes one thing out. Always takes something.
fn remove(model: &mut Model, owner: LineOwner, why: String) {
    let number = match owner {
        LineOwner::Setting(number) if number < model.settings.len() => {
            let (key, _) = model.settings.remove(number);
            let at = model.services[0].at.clone();
            return model.notes.push(Note::lost(&at, key, why));
        }
        LineOwner::Nobody | LineOwner::Setting(_) => usize::MAX,
        LineOwner::Service(number)
        | LineOwner::Check(number)
        | LineOwner::Passive(number)
        | LineOwner::Discover(number)
        | LineOwner::Backend(number, _) => number,
    };
    let part = model.services.get_mut(number).and_then(|service| {
        let (at, what) = part(service, owner)?;
        service.notes.push(Note::lost(&at, what, why.clone()));
        Some(())
    });
    if part.is_none() {
        drop_service(model, number, why);
    }
}

/// Takes a part of a service out, if it is no more than that: where it was, and what.
fn part(service: &mut Service, owner: LineOwner) -> Option<(Position, String)> {
    let at = service.at.clone();
    match owner {
        LineOwner::Backend(_, place) if place < service.backends.len() => {
            let backend = service.backends.remove(place);
            Some((backend.at, format!("backend {}", backend.address)))
        }
        LineOwner::Check(_) => service.check.take().map(|_| (at, "its check".to_owned())),
        LineOwner::Discover(_) => service.discover.take().map(|_| (at, "discovery".to_owned())),
        LineOwner::Passive(_) if service.passive != Judgement::Unsaid => {
            service.passive = Judgement::Unsaid;
            Some((at, "failed connections (passive)".to_owned()))
        }
        _ => None,
    }
}

/// Takes a service out, or the last if there is none of this number; its notes stay.
fn drop_service(model: &mut Model, number: usize, why: String) {
    let service = model.services.remove(number.min(model.services.len() - 1));
    model.notes.push(Note::lost(&service.at, format!("service {:?}", service.clean_name()), why));
    model.notes.extend(service.notes);
}

fn widened(owner: LineOwner) -> LineOwner {
    match owner {
        LineOwner::Check(number)
        | LineOwner::Passive(number)
        | LineOwner::Discover(number)
        | LineOwner::Backend(number, _) => LineOwner::Service(number),
        other => other,
    }
}

/// No more services and backends than a plan can have.
fn bound(model: &mut Model) {
    while model.services.len() > MAX_SERVICES {
        let last = model.services.len() - 1;
        drop_service(model, last, format!("loaded serves at most {MAX_SERVICES} services"));
    }
    let mut left = MAX_BACKENDS;
    for service in &mut model.services {
        for backend in service.backends.split_off(left.min(service.backends.len())) {
            let why = format!("loaded has at most {MAX_BACKENDS} backends");
            service.notes.push(Note::lost(&backend.at, format!("backend {}", backend.address), why));
        }
        left -= service.backends.len();
    }
}

/// Weights from 1 to 256, in the same proportion.
fn weigh(service: &mut Service) {
    let (serving, idle): (Vec<_>, Vec<_>) = service.backends.drain(..).partition(|backend| backend.weight > 0);
    service.backends = serving;
    for backend in idle {
        let why = "it has weight 0 and so gets no new clients; add it and then drain or disable it with loaded backend";
        service.notes.push(Note::lost(&backend.at, format!("backend {}", backend.address), why));
    }
    let most = service.backends.iter().map(|backend| backend.weight).max().unwrap_or(1);
    let limit = u32::from(MAX_WEIGHT);
    if most <= limit {
        return;
    }
    for backend in &mut service.backends {
        let share = u64::from(backend.weight) * u64::from(limit) / u64::from(most);
        backend.weight = u32::try_from(share).unwrap_or(limit).max(1);
    }
    let why = format!("weights end at {MAX_WEIGHT}, so all of this service were scaled down");
    service.notes.push(Note::remark(&service.at, format!("weight {most}"), why));
}

/// One backend for each address and port: their weights add up.
fn merge(service: &mut Service) {
    let mut kept: Vec<Backend> = Vec::new();
    for backend in service.backends.drain(..) {
        let same = |other: &&mut Backend| {
            (other.address, other.port, other.backup) == (backend.address, backend.port, backend.backup)
        };
        match kept.iter_mut().find(same) {
            None => kept.push(backend),
            Some(first) => {
                first.weight = first.weight.saturating_add(backend.weight).min(MAX_WEIGHT.into());
                let why = format!("it is there twice (see {}), so its weights were added", first.at);
                service.notes.push(Note::remark(&backend.at, format!("backend {}", backend.address), why));
            }
        }
    }
    service.backends = kept;
}

/// A backup needs somebody to stand in for.
fn promote(service: &mut Service) {
    for is_ipv4 in [true, false] {
        let mut family: Vec<_> = service.backends.iter_mut().filter(|one| one.address.is_ipv4() == is_ipv4).collect();
        if family.is_empty() || family.iter().any(|backend| !backend.backup) {
            continue;
        }
        for backend in &mut family {
            backend.backup = false;
        }
        let why = "there is no other backend for which they could stand in, so they serve at once";
        service.notes.push(Note::lost(&service.at, "backups", why));
    }
}
