//! keepalived.conf: its part on virtual servers. VRRP and whatever else it holds is named and left to keepalived.
//!
//! Source of the grammar: keepalived.conf(5), and keepalived/check/check_parser.c for what it leaves open.

mod body;
mod check;
mod front;
mod lines;

use crate::model::{Model, Note};
use crate::position::Unreadable;
use crate::tree::Statement;
use front::Front;
use loaded_config::Source;
use std::collections::HashMap;

/// A group of virtual servers, and whether one has used it.
struct Group<'s> {
    statement: &'s Statement,
    used: bool,
}

/// Reads a file.
pub(crate) fn read(source: &Source) -> Result<Model, Unreadable> {
    let statements = lines::statements(source)?;
    let mut model = Model::default();
    let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
    for statement in statements.iter().filter(|statement| statement.word(0) == "virtual_server_group") {
        groups.insert(statement.word(1), Group { statement, used: false });
    }
    for statement in &statements {
        match statement.word(0) {
            "virtual_server" => virtual_server(statement, &mut groups, &mut model),
            "virtual_server_group" => {}
            _ => model.notes.push(elsewhere(statement)),
        }
    }
    let mut unused: Vec<_> = groups.values().filter(|group| !group.used).map(|group| group.statement).collect();
    unused.sort_by_key(|statement| statement.at.line);
    model.notes.extend(unused.into_iter().map(|group| Note::lost(&group.at, group.say(), "no virtual_server uses it")));
    Ok(model)
}

/// Why a block that is no virtual server has no counterpart.
fn elsewhere(statement: &Statement) -> Note {
    let word = statement.word(0);
    if word.starts_with('$') {
        return Note::remark(&statement.at, statement.say(), "put in where it is used");
    }
    let why = match word {
        _ if word.starts_with("vrrp") => {
            "loaded moves no address between machines; let keepalived go on doing this and ask loaded health"
        }
        "include" | "includer" | "includem" | "includew" | "includeb" | "includea" => {
            "included files are not opened; migrate each of them by itself"
        }
        "track_file" | "track_process" | "track_bfd" | "bfd_instance" => {
            "it belongs to VRRP, which loaded leaves to keepalived"
        }
        "global_defs" => "settings of keepalived's own processes, mail and VRRP",
        "static_ipaddress" | "static_routes" | "static_rules" => {
            "loaded sets up no addresses and routes; set them up with the host's network"
        }
        _ if word.starts_with('@') => {
            "whether this condition holds only keepalived knows; take the line in or out, then migrate again"
        }
        _ => "loaded has no counterpart",
    };
    Note::lost(&statement.at, statement.say(), why)
}

fn virtual_server(statement: &Statement, groups: &mut HashMap<&str, Group<'_>>, model: &mut Model) {
    let (name, fronts) = match statement.word(1) {
        "group" => match groups.get_mut(statement.word(2)) {
            Some(group) => {
                group.used = true;
                (statement.word(2).to_owned(), members(group.statement, &mut model.notes))
            }
            None => {
                return model.notes.push(Note::lost(&statement.at, statement.say(), "there is no group of this name"));
            }
        },
        "fwmark" => return model.notes.push(Note::lost(&statement.at, statement.say(), FWMARK)),
        _ => {
            match Front::read(
                &statement.words[1..].iter().map(|word| word.text.as_str()).collect::<Vec<_>>(),
                &statement.at,
            ) {
                Some(front) => (statement.arguments().collect::<Vec<_>>().join("-"), vec![front]),
                None => {
                    let why = "it has no IP address and port that loaded could serve";
                    return model.notes.push(Note::lost(&statement.at, statement.say(), why));
                }
            }
        }
    };
    if fronts.is_empty() {
        return model.notes.push(Note::lost(
            &statement.at,
            statement.say(),
            "nothing is left of where clients come to",
        ));
    }
    body::services(statement, &name, fronts, model);
}

const FWMARK: &str =
    "loaded chooses packets by address, protocol and port, not by a mark; write what the mark stands for";

/// The members of a group, those of one port together.
fn members(group: &Statement, notes: &mut Vec<Note>) -> Vec<Front> {
    let mut fronts: Vec<Front> = Vec::new();
    for member in group.inner() {
        let words: Vec<_> = member.words.iter().map(|word| word.text.as_str()).collect();
        let Some(front) = Front::read(&words, &member.at) else {
            let why =
                if member.word(0) == "fwmark" { FWMARK } else { "it is no address, range of addresses, and port" };
            notes.push(Note::lost(&member.at, member.say(), why));
            continue;
        };
        let same = |other: &&mut Front| other.port == front.port && other.vips[0].is_ipv4() == front.vips[0].is_ipv4();
        match fronts.iter_mut().find(same) {
            Some(other) => other.vips.extend(front.vips),
            None => fronts.push(front),
        }
    }
    fronts
}
