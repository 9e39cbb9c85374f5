//! Amendments: backends that an operator has added, removed or given another weight while the instance runs. They stand in no
//! file and lie over what the files say, in the draft, so that the same code judges both.
//!
//! Whoever has spoken last is right. An amendment holds as long as the files say of its backend what they said when it was made;
//! where they say something else, it is forgotten, and that is told.

use super::draft::{Draft, DraftMember, DraftService};
use super::location::{At, Flaw, Mark, Source};
use super::toml::include::unknown_service;
use super::value;
use loaded_ipc::Destination;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What mistakes call the file that holds amendments, which is none.
const NOWHERE: &str = "at run time";

/// What was changed of one backend of a service at run time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// Name of the service.
    pub service: String,
    /// The backend, with the port that its packets get.
    pub backend: Destination,
    /// What was changed.
    pub what: Amended,
}

/// What an amendment changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amended {
    /// A backend that no file has.
    Added {
        /// Its share, 1..=[`crate::plan::MAX_WEIGHT`].
        weight: u16,
        /// Whether it is a backup.
        backup: bool,
    },
    /// A backend that a file has was removed.
    Removed,
    /// It has another weight than the file gives it.
    Weight {
        /// What the file says.
        file: u16,
        /// What holds, 1..=[`crate::plan::MAX_WEIGHT`].
        weight: u16,
    },
}

/// What an operator orders at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Name of the service.
    pub service: String,
    /// The backend. Without a port: to add, one with the service's port; else the one at that address.
    pub backend: Destination,
    /// What to do with it.
    pub act: Act,
}

/// What an operator orders to do with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Add it.
    Add {
        /// Its share; `None`: that of the file if it was removed at run time, or 1.
        weight: Option<u16>,
        /// Whether it is a backup.
        backup: bool,
    },
    /// Remove it.
    Remove,
    /// Give it this share.
    Weight(u16),
}

/// The amendments of a draft that hold, and lines about those that do not.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) kept: Vec<Amendment>,
    pub(super) forgotten: Vec<String>,
}

/// Amendments as commands, one a line, so that a mistake shows the word at fault; and where the words are.
pub(super) struct Commands {
    pub(super) source: Source,
    words: Vec<Words>,
}

/// The words of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    service: Mark,
    backend: Mark,
    weight: Mark,
}

impl Commands {
    /// `place`: the number of this source among all.
    pub(super) fn of(amendments: &[Amendment], place: usize) -> Self {
        let act = |amendment: &Amendment| match amendment.what {
            Amended::Added { weight, backup } => {
                Act::Add { weight: Some(weight).filter(|weight| *weight != 1), backup }
            }
            Amended::Removed => Act::Remove,
            Amended::Weight { weight, .. } => Act::Weight(weight),
        };
        let mut text = String::new();
        let write = |a: &Amendment| command(&mut text, place, &a.service, a.backend, act(a));
        let words = amendments.iter().map(write).collect();
        Self { source: Source::new(NOWHERE, text), words }
    }
}

/// Writes a command as a line.
fn command(text: &mut String, place: usize, service: &str, backend: Destination, act: Act) -> Words {
    let mut word = |before: &str, word: &str| {
        text.push_str(before);
        let start = text.len();
        text.push_str(word);
        Mark::start_of(place).at(start..text.len())
    };
    let (verb, weight, backup) = match act {
        Act::Add { weight, backup } => ("add", weight.map(|weight| (" --weight ", weight)), backup),
        Act::Remove => ("remove", None, false),
        Act::Weight(weight) => ("weight", Some((" ", weight)), false),
    };
    word("loaded backend ", verb);
    // A name is any text here, and a line must stay one.
    let service = word(" ", &service.escape_default().to_string());
    let backend = word(" ", &backend.to_string());
    let weight = weight.map_or(backend, |(before, weight)| word(before, &weight.to_string()));
    word(if backup { " --backup" } else { "" }, "\n");
    Words { service, backend, weight }
}

/// Lays amendments over a draft. `commands` are theirs.
pub(super) fn apply(draft: &mut Draft, amendments: &[Amendment], commands: &Commands) -> Applied {
    let mut applied = Applied::default();
    for (amendment, words) in amendments.iter().zip(&commands.words) {
        match apply_one(draft, amendment, *words) {
            Ok(()) => applied.kept.push(amendment.clone()),
            Err(why) => applied.forgotten.push(format!("{amendment}: forgotten: {why}")),
        }
    }
    applied
}

/// `Err`: what the files say now, over which it does not hold.
fn apply_one(draft: &mut Draft, amendment: &Amendment, words: Words) -> Result<(), String> {
    let service = draft.services.iter_mut().find(|service| service.name.value == amendment.service);
    let service = service.ok_or("the configuration has the service no more")?;
    let place = place(service, amendment.backend);
    match (amendment.what, place) {
        (Amended::Added { weight, backup }, None) => {
            let Destination { address, port } = amendment.backend;
            let at = |value| At { value, mark: words.backend };
            let port = port.map(|value| At { value, mark: words.backend });
            service.members.push(DraftMember { address: at(address), port, weight, backup });
        }
        (Amended::Added { .. }, Some(_)) => return Err("the configuration has it now".to_owned()),
        (_, None) => return Err("the configuration has it no more".to_owned()),
        (Amended::Removed, Some(place)) => drop(service.members.remove(place)),
        (Amended::Weight { file, weight }, Some(place)) => match service.members.get_mut(place) {
            Some(member) if member.weight == file => member.weight = weight,
            Some(member) => return Err(format!("the configuration gives it weight {} now", member.weight)),
            None => {}
        },
    }
    Ok(())
}

/// The command of an order, as source number `place`, and its words.
pub(super) fn command_of(order: &Order, place: usize) -> (Source, Words) {
    let mut text = String::new();
    let words = command(&mut text, place, &order.service, order.backend, order.act);
    (Source::new(NOWHERE, text), words)
}

/// The amendments after one more order. `draft` is what the files say, `amendments` lie over it, and `words` are the order's.
///
/// # Errors
/// The flaw of the order.
pub(super) fn ordered(
    draft: &Draft,
    amendments: &[Amendment],
    order: &Order,
    words: Words,
) -> Result<Vec<Amendment>, Flaw> {
    if let Act::Add { weight: Some(weight), .. } | Act::Weight(weight) = order.act {
        value::weight(weight).map_err(|text| words.weight.flaw(text))?;
    }
    judged(draft, amendments, order, words)
}

fn judged(draft: &Draft, amendments: &[Amendment], order: &Order, words: Words) -> Result<Vec<Amendment>, Flaw> {
    let mut now = draft.clone();
    apply(&mut now, amendments, &Commands::of(amendments, words.service.source));
    let find = |draft: &Draft| draft.services.iter().position(|service| service.name.value == order.service);
    let names: Vec<_> = draft.services.iter().map(|service| service.name.value.clone()).collect();
    let named = At { value: order.service.clone(), mark: words.service };
    let place_of_service = find(draft).ok_or_else(|| unknown_service(&named, &names))?;
    let (of_files, in_force) = (&draft.services[place_of_service], &now.services[place_of_service]);
    let backend = match order.act {
        Act::Add { .. } => new(in_force, order, words)?,
        Act::Remove | Act::Weight(_) => meant(in_force, order, words)?,
    };
    let in_file = place(of_files, backend).and_then(|place| of_files.members.get(place));
    let is_same = |amendment: &&Amendment| amendment.service == order.service && amendment.backend == backend;
    let before = amendments.iter().find(is_same).map(|amendment| amendment.what);
    let what = match (order.act, in_file, before) {
        (Act::Add { backup, .. }, Some(member), _) if member.backup != backup => {
            let wants = if member.backup { "with --backup" } else { "without --backup" };
            let text =
                format!("the configuration has {backend}, removed at run time; add it as it stands there: {wants}");
            return Err(words.backend.flaw(text));
        }
        (Act::Add { weight, .. }, Some(member), _) => weighed(member.weight, weight.unwrap_or(member.weight)),
        (Act::Add { weight, backup }, None, _) => Some(Amended::Added { weight: weight.unwrap_or(1), backup }),
        (Act::Remove, in_file, _) => in_file.map(|_| Amended::Removed),
        (Act::Weight(weight), Some(member), _) => weighed(member.weight, weight),
        (Act::Weight(weight), None, Some(Amended::Added { backup, .. })) => Some(Amended::Added { weight, backup }),
        (Act::Weight(_), None, _) => None,
    };
    let (service, place) = (order.service.clone(), amendments.iter().position(|amendment| is_same(&amendment)));
    let mut all = amendments.to_vec();
    match (place.and_then(|place| all.get_mut(place)), what) {
        (Some(known), Some(what)) => known.what = what,
        (None, Some(what)) => all.push(Amendment { service, backend, what }),
        (Some(_), None) => all.retain(|amendment| !is_same(&amendment)),
        (None, None) => {}
    }
    Ok(all)
}

/// `None` if the file says so already.
fn weighed(file: u16, weight: u16) -> Option<Amended> {
    (file != weight).then_some(Amended::Weight { file, weight })
}

/// The backend to add.
fn new(service: &DraftService, order: &Order, words: Words) -> Result<Destination, Flaw> {
    let Destination { address, port } = order.backend;
    let backend = Destination { address, port: port.or(service.port.map(|port| port.value)) };
    match place(service, backend) {
        None => Ok(backend),
        Some(_) => {
            let text = format!(
                "service {:?} has the backend {backend} already; loaded backend weight changes its weight",
                order.service
            );
            Err(words.backend.flaw(text))
        }
    }
}

/// The one backend that an order means.
fn meant(service: &DraftService, order: &Order, words: Words) -> Result<Destination, Flaw> {
    let named = order.backend;
    let all = service.members.iter().map(|member| destination(service, member));
    let all: Vec<_> =
        all.filter(|b| b.address == named.address && (named.port.is_none() || b.port == named.port)).collect();
    match all.as_slice() {
        [one] => Ok(*one),
        [] => Err(words.backend.flaw(format!(
            "service {:?} has no backend {named}; loaded config show lists those it has. One that discovery has found is given \
             no flows by loaded backend disable",
            order.service
        ))),
        several => {
            let list: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(words.backend.flaw(format!("service {:?} has {}; name one of them", order.service, list.join(", "))))
        }
    }
}

fn destination(service: &DraftService, member: &DraftMember) -> Destination {
    Destination { address: member.address.value, port: service.port_of(member).map(|port| port.value) }
}

fn place(service: &DraftService, backend: Destination) -> Option<usize> {
    service.members.iter().position(|member| destination(service, member) == backend)
}

impl fmt::Display for Amendment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, backend, what } = self;
        write!(f, "service {service}: backend {backend} {what}")
    }
}

impl fmt::Display for Amended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { weight, backup } => {
                write!(f, "added at run time (weight {weight}{})", if *backup { ", backup" } else { "" })
            }
            Self::Removed => f.write_str("removed at run time"),
            Self::Weight { file, weight } => write!(f, "has weight {weight} at run time (configuration: {file})"),
        }
    }
}
