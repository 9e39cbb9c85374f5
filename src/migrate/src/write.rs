//! The model as TOML. Every text of somebody else's is quoted or in a comment without control characters.

use crate::model::{Backend, Check, Judgement, Kind, Model, Note, Service, clipped};
use crate::position::Position;
use loaded_config::plan::Discover;
use loaded_ipc::{Affinity, Mode, PortRange, Protocol, Strategy};
use std::collections::HashSet;
use std::fmt::Display;
use toml_writer::{ToTomlValue, TomlStringBuilder};

/// Longest line of a comment, characters.
const WIDTH: usize = 110;

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineOwner {
    Nobody,
    /// A setting, by its number in the model.
    Setting(usize),
    Service(usize),
    /// The check of a service.
    Check(usize),
    /// The key `passive` of a service.
    Passive(usize),
    Discover(usize),
    /// A service, and the backend in it.
    Backend(usize, usize),
}

/// The output, and who owns each of its lines.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) owners: Vec<LineOwner>,
    comments: bool,
}

/// Writes it without comments: for `loaded`'s reader, which must not have to read a long list of what is left out.
pub(crate) fn bare(model: &Model) -> Page {
    write(model, false)
}

/// Writes all of it.
pub(crate) fn page(model: &Model) -> Page {
    write(model, true)
}

fn write(model: &Model, comments: bool) -> Page {
    let mut page = Page { text: String::new(), owners: Vec::new(), comments };
    page.comment(&format!("From {}, by loaded migrate.", clipped(&model.origin)));
    page.comment(
        "Validate it: loaded --check -c loaded.toml. What this host lacks for it: loaded doctor -c loaded.toml.",
    );
    match model.all_notes().filter(|note| note.lost).count() {
        0 => page.comment("Everything was carried over."),
        1 => page.comment("One thing was not carried over; a comment names it and its line."),
        lost => page.comment(&format!("{lost} things were not carried over; a comment names each and its line.")),
    }
    page.notes(&model.notes);
    if !model.settings.is_empty() {
        page.blank();
    }
    for (number, (key, value)) in model.settings.iter().enumerate() {
        page.key(LineOwner::Setting(number), key, value);
    }
    let mut names = HashSet::new();
    for (number, service) in model.services.iter().enumerate() {
        page.service(number, service, &unique(service.clean_name(), &mut names));
    }
    page
}

/// A name that no other service has.
fn unique(name: String, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
    let name = free.unwrap_or(name);
    taken.insert(name.clone());
    name
}

impl Page {
    fn line(&mut self, owner: LineOwner, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
        self.owners.push(owner);
    }

    fn blank(&mut self) {
        self.line(LineOwner::Nobody, "");
    }

    fn key(&mut self, owner: LineOwner, key: &str, value: impl Display) {
        self.line(owner, &format!("{key} = {value}"));
    }

    /// A comment, in as many lines as it takes.
    fn comment(&mut self, text: &str) {
        if !self.comments {
            return;
        }
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.len() > 2 && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(LineOwner::Nobody, &line);
                line = "#  ".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(LineOwner::Nobody, &line);
    }

    /// Notes that say the same are one, with several positions.
    fn notes(&mut self, notes: &[Note]) {
        if !self.comments {
            return;
        }
        let mut written: Vec<(&Note, Vec<&Position>)> = Vec::new();
        for note in notes {
            let same = |(other, _): &&mut (&Note, Vec<&Position>)| {
                (&other.said, &other.why, other.lost) == (&note.said, &note.why, note.lost)
            };
            match written.iter_mut().rev().take(64).find(same) {
                Some((_, positions)) => positions.push(&note.at),
                None => written.push((note, vec![&note.at])),
            }
        }
        for (note, positions) in written {
            let positions: Vec<_> = positions.iter().map(ToString::to_string).collect();
            let title = if note.lost { "not carried" } else { "note" };
            self.comment(&format!("{title}: {}: {}: {}", positions.join(", "), clipped(&note.said), note.why));
        }
    }

    fn service(&mut self, number: usize, service: &Service, name: &str) {
        let owner = LineOwner::Service(number);
        self.blank();
        self.comment(&service.at.to_string());
        self.notes(&service.notes);
        self.line(owner, "[[service]]");
        self.key(owner, "name", quoted(name));
        let vips: Vec<_> = service.vips.iter().map(|vip| quoted(&vip.to_string())).collect();
        self.key(owner, "vip", if vips.len() == 1 { vips.concat() } else { array(&vips) });
        self.key(owner, "protocol", quoted(&service.protocol.to_string()));
        if service.protocol != Protocol::Any {
            self.key(owner, "ports", ports(&service.ports));
        }
        if service.mode == Mode::Dsr {
            self.key(owner, "mode", quoted("dsr"));
        }
        let (strategy, seed) = match service.strategy {
            Strategy::Maglev { seed } => {
                ("maglev".to_owned(), Some(seed).filter(|seed| *seed != loaded_config::MAGLEV_SEED))
            }
            other => (other.to_string(), None),
        };
        self.key(owner, "strategy", quoted(&strategy));
        seed.into_iter().for_each(|seed| self.key(owner, "seed", seed));
        self.key(owner, "affinity", affinity(service.affinity));
        if service.keeps_flows {
            self.key(owner, "on_backend_down", quoted("drain"));
        }
        if let Some(idle) = service.idle {
            let kind = if service.protocol == Protocol::Tcp { "tcp" } else { "udp" };
            self.key(owner, "idle", format!("{{ {kind} = {} }}", quoted(&format!("{idle}s"))));
        }
        service.check.iter().for_each(|one| self.key(LineOwner::Check(number), "check", check(one)));
        judgement(service.passive).iter().for_each(|value| self.key(LineOwner::Passive(number), "passive", value));
        service.discover.iter().for_each(|one| self.key(LineOwner::Discover(number), "discover", discover(one)));
        for (place, backend) in service.backends.iter().enumerate() {
            self.backend(LineOwner::Backend(number, place), backend);
        }
    }

    fn backend(&mut self, owner: LineOwner, backend: &Backend) {
        self.blank();
        self.line(owner, "[[service.backend]]");
        self.key(owner, "address", quoted(&backend.address.to_string()));
        backend.port.iter().for_each(|port| self.key(owner, "port", port));
        if backend.weight != 1 {
            self.key(owner, "weight", backend.weight);
        }
        if backend.backup {
            self.key(owner, "backup", true);
        }
    }
}

/// A string of TOML, on one line.
pub(crate) fn quoted(text: &str) -> String {
    TomlStringBuilder::new(text).as_basic().to_toml_value()
}

/// An array of values.
pub(crate) fn array(values: &[String]) -> String {
    format!("[{}]", values.join(", "))
}

fn table(pairs: &[(&str, Option<String>)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} = {value}"))).collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn ports(ports: &[PortRange]) -> String {
    let one = |range: &PortRange| match range.low == range.high {
        true => range.low.to_string(),
        false => quoted(&range.to_string()),
    };
    if ports.is_empty() { quoted("any") } else { array(&ports.iter().map(one).collect::<Vec<_>>()) }
}

fn affinity(affinity: Option<Affinity>) -> String {
    let Some(Affinity { prefix4, prefix6, timeout }) = affinity else { return quoted("none") };
    let pairs = [
        ("by", Some(quoted("client"))),
        ("prefix4", Some(prefix4.to_string())),
        ("prefix6", Some(prefix6.to_string())),
        ("timeout", Some(quoted(&format!("{timeout}s")))),
    ];
    table(&pairs)
}

fn millis(millis: u32) -> String {
    quoted(&if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") })
}

fn check(check: &Check) -> String {
    let Check { kind, port, interval, timeout, rise, fall } = check;
    let (name, path, host, status, asked) = match kind {
        Kind::Icmp => ("icmp", None, None, None, None),
        Kind::Tcp => ("tcp", None, None, None, None),
        Kind::IcmpTcp => ("icmp+tcp", None, None, None, None),
        Kind::Http { path, host, status } => ("http", Some(path), host.as_ref(), *status, None),
        Kind::Dns { name } => ("dns", None, None, None, Some(name)),
    };
    let status = status.map(|(low, high)| if low == high { low.to_string() } else { quoted(&format!("{low}-{high}")) });
    table(&[
        ("kind", Some(quoted(name))),
        ("port", port.map(|port| port.to_string())),
        ("path", path.map(|path| quoted(path))),
        ("host", host.map(|host| quoted(host))),
        ("status", status),
        ("name", asked.map(|name| quoted(name))),
        ("interval", interval.map(millis)),
        ("timeout", timeout.map(millis)),
        ("rise", rise.map(|rise| rise.to_string())),
        ("fall", fall.map(|fall| fall.to_string())),
    ])
}

fn judgement(judgement: Judgement) -> Option<String> {
    match judgement {
        Judgement::Unsaid => None,
        Judgement::Off => Some("false".to_owned()),
        Judgement::On { fails: None, timeout: None, hold: None, port: None } => Some("true".to_owned()),
        Judgement::On { fails, timeout, hold, port } => Some(table(&[
            ("fails", fails.map(|fails| fails.to_string())),
            ("timeout", timeout.map(millis)),
            ("hold", hold.map(|hold| quoted(&format!("{hold}s")))),
            ("port", port.map(|port| port.to_string())),
        ])),
    }
}

fn discover(discover: &Discover) -> String {
    let Discover { places, limit, interval } = discover;
    let networks: Vec<_> = places.iter().map(|place| quoted(&place.network.to_string())).collect();
    let v6 = places.iter().find(|place| !place.network.is_ipv4());
    let interface = v6.or(places.first()).and_then(|place| place.interface.as_ref());
    let to4 = places.iter().find(|place| place.network.is_ipv4()).map(|place| quoted(&place.to.to_string()));
    table(&[
        ("network", Some(array(&networks))),
        ("interface", interface.map(|name| quoted(name))),
        ("to4", to4),
        ("limit", Some(limit.to_string())),
        ("interval", Some(millis(*interval))),
    ])
}
