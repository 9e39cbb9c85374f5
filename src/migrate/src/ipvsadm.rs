//! What `ipvsadm -Sn` prints: a line `-A` for each virtual service and a line `-a` for each of its servers. The same as
//! commands, with `ipvsadm` before them and with long options, as in scripts and in ipvsadm(8), whose options these are.

use crate::ipvs::{PERSISTENCE, algorithm, granularity};
use crate::model::{AFFINITY, Backend, Model, Note, Service, number, one_port};
use crate::position::{Letters, Position, Unreadable};
use crate::tree::{Grower, Statement};
use loaded_config::Source;
use loaded_ipc::{Affinity, Mode, Protocol, Strategy};
use std::net::{IpAddr, SocketAddr};

/// Which service a line is about: its protocol, address and port. Port 0 is every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    protocol: Protocol,
    vip: IpAddr,
    port: u16,
}

/// A service that was added.
struct Added {
    key: Key,
    /// Its algorithm takes notice of weights, and not of 0 alone.
    weighted: bool,
}

/// One line, with its options apart.
struct Line<'s> {
    statement: &'s Statement,
    verb: Verb,
    /// Options by their long names, with their values; none takes more than one.
    options: Vec<(&'static str, &'s str)>,
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    AddService,
    AddServer,
    /// Whatever else can be in a script of commands.
    Other,
}

/// An option: its long name, its letter, whether it has a value.
type Known = (&'static str, &'static str, bool);

const VERBS: [(&str, &str, Verb); 12] = [
    ("--add-service", "-A", Verb::AddService),
    ("--add-server", "-a", Verb::AddServer),
    ("--edit-service", "-E", Verb::Other),
    ("--edit-server", "-e", Verb::Other),
    ("--delete-service", "-D", Verb::Other),
    ("--delete-server", "-d", Verb::Other),
    ("--clear", "-C", Verb::Other),
    ("--zero", "-Z", Verb::Other),
    ("--list", "-L", Verb::Other),
    ("--set", "--set", Verb::Other),
    ("--start-daemon", "--start-daemon", Verb::Other),
    ("--stop-daemon", "--stop-daemon", Verb::Other),
];

const OPTIONS: [Known; 24] = [
    ("--tcp-service", "-t", true),
    ("--udp-service", "-u", true),
    ("--sctp-service", "--sctp-service", true),
    ("--fwmark-service", "-f", true),
    ("--ipv6", "-6", false),
    ("--scheduler", "-s", true),
    ("--persistent", "-p", true),
    ("--netmask", "-M", true),
    ("--pe", "--pe", true),
    ("--sched-flags", "-b", true),
    ("--ops", "-o", false),
    ("--real-server", "-r", true),
    ("--gatewaying", "-g", false),
    ("--ipip", "-i", false),
    ("--masquerading", "-m", false),
    ("--weight", "-w", true),
    ("--u-threshold", "-x", true),
    ("--l-threshold", "-y", true),
    ("--tun-type", "--tun-type", true),
    ("--tun-port", "--tun-port", true),
    ("--tun-nocsum", "--tun-nocsum", false),
    ("--tun-csum", "--tun-csum", false),
    ("--tun-remcsum", "--tun-remcsum", false),
    ("--numeric", "-n", false),
];

/// Reads the lines.
pub(crate) fn read(source: &Source) -> Result<Model, Unreadable> {
    let mut model = Model::default();
    let mut added: Vec<Added> = Vec::new();
    for statement in lines(source)? {
        let line = parse(&statement)?;
        match line.verb {
            Verb::AddService => add_service(&line, &mut added, &mut model)?,
            Verb::AddServer => add_server(&line, &added, &mut model)?,
            Verb::Other => {
                let why = "only -A and -a say what is served; save what is in force with ipvsadm -Sn";
                model.notes.push(Note::lost(&statement.at, statement.say(), why));
            }
        }
    }
    Ok(model)
}

/// Every line as a statement of words. A `#` at the begin of a word begins a comment.
fn lines(source: &Source) -> Result<Vec<Statement>, Unreadable> {
    let mut letters = Letters::of(source);
    let mut grower = Grower::new();
    while let Some(letter) = letters.peek() {
        let at = letters.position();
        match letter {
            '\n' => grower.end(),
            '#' => {
                letters.skip_line();
                continue;
            }
            blank if blank.is_whitespace() => {}
            _ => {
                let mut word = String::new();
                while let Some(letter) = letters.peek().filter(|c| !c.is_whitespace()) {
                    word.push(letter);
                    letters.next();
                }
                // A script may go on with its command on the next line.
                let goes_on = word == "\\" && letters.peek() == Some('\n');
                match goes_on {
                    true => drop(letters.next()),
                    false => grower.word(word, at),
                }
                continue;
            }
        }
        letters.next();
    }
    grower.finish()
}

fn parse(statement: &Statement) -> Result<Line<'_>, Unreadable> {
    let mut words = statement.words.iter().peekable();
    words.next_if(|word| word.text == "ipvsadm" || word.text.ends_with("/ipvsadm"));
    let first = words.next().unwrap_or(&statement.words[0]);
    let verb = VERBS.iter().find(|(long, short, _)| first.text == *long || first.text == *short);
    let Some((_, _, verb)) = verb else {
        let text = format!("{:?} is no line of ipvsadm; save what is in force with ipvsadm -Sn", first.text);
        return Err(first.at.unreadable(text));
    };
    let mut line = Line { statement, verb: *verb, options: Vec::new() };
    if *verb == Verb::Other {
        return Ok(line);
    }
    while let Some(word) = words.next() {
        let (name, value) =
            word.text.split_once('=').map_or((word.text.as_str(), None), |(name, value)| (name, Some(value)));
        let Some((long, _, has_value)) = OPTIONS.iter().find(|(long, short, _)| name == *long || name == *short) else {
            return Err(word.at.unreadable(format!("{:?} is no option of ipvsadm", word.text)));
        };
        let value = match (has_value, value) {
            (false, _) => "",
            (true, Some(value)) => value,
            // Its number may be left out.
            (true, None) if *long == "--persistent" => {
                words.next_if(|next| !next.text.starts_with('-')).map_or("", |next| &next.text)
            }
            (true, None) => match words.next() {
                Some(next) => &next.text,
                None => return Err(word.at.unreadable(format!("{} has no value", word.text))),
            },
        };
        line.options.push((long, value));
    }
    Ok(line)
}

impl Line<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The service; `None` for a firewall mark.
    fn key(&self) -> Result<Option<Key>, Unreadable> {
        let kinds =
            [("--tcp-service", Protocol::Tcp), ("--udp-service", Protocol::Udp), ("--sctp-service", Protocol::Sctp)];
        let found = kinds.into_iter().find_map(|(option, protocol)| Some((protocol, self.get(option)?)));
        match (found, self.get("--fwmark-service")) {
            (Some((protocol, text)), _) => {
                let (vip, port) = self.endpoint(text)?;
                Ok(Some(Key { protocol, vip, port: port.unwrap_or(0) }))
            }
            (None, Some(_)) => Ok(None),
            (None, None) => Err(self.at().unreadable("no service is named; -t, -u, --sctp-service or -f does")),
        }
    }

    fn endpoint(&self, text: &str) -> Result<(IpAddr, Option<u16>), Unreadable> {
        let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        // ipvsadm's own port 0 is no port of a SocketAddr's text, but parses as one.
        text.parse::<SocketAddr>()
            .map(|end| (end.ip(), Some(end.port())))
            .or_else(|_| bare().map(|address| (address, None)))
            .map_err(|_| {
                self.at().unreadable(format!("{text:?} is no address and port in numbers; save with ipvsadm -Sn"))
            })
    }

    fn at(&self) -> &Position {
        &self.statement.at
    }

    fn lost(&self, why: &str) -> Note {
        Note::lost(self.at(), self.statement.say(), why)
    }
}

fn add_service(line: &Line<'_>, added: &mut Vec<Added>, model: &mut Model) -> Result<(), Unreadable> {
    let Some(key) = line.key()? else {
        let why = "loaded chooses packets by address, protocol and port, not by a mark; write what the mark stands for";
        model.notes.push(line.lost(why));
        return Ok(());
    };
    let name = format!("{}-{}-{}", key.protocol, key.vip, key.port);
    let mut service = Service { strategy: Strategy::Weighted, ..Service::new(line.at(), name, key.protocol) };
    service.vips.push(key.vip);
    service.ports.extend((key.port != 0).then(|| one_port(key.port)));
    let (strategy, weighted, lost) = algorithm(line.get("--scheduler").unwrap_or("wlc"));
    service.strategy = strategy;
    service.notes.extend(lost.map(|why| line.lost(why)));
    let by_client = matches!(line.get("--scheduler"), Some("sh" | "mh"));
    let affinity = Affinity { prefix4: 32, prefix6: 128, timeout: loaded_config::AFFINITY_TIMEOUT };
    service.affinity = by_client.then_some(affinity);
    match line.get("--persistent").map(|text| if text.is_empty() { Some(PERSISTENCE) } else { number(text, &AFFINITY) })
    {
        None => {}
        Some(Some(timeout)) => service.affinity = Some(Affinity { timeout, ..affinity }),
        Some(None) => service.notes.push(line.lost("-p is no number of seconds up to a year")),
    }
    match (line.get("--netmask"), &mut service.affinity) {
        (None, _) => {}
        (Some(text), Some(affinity)) => match granularity(text) {
            Some((bits, true)) if key.vip.is_ipv4() => affinity.prefix4 = bits,
            Some((bits, _)) if !key.vip.is_ipv4() => affinity.prefix6 = bits,
            _ => service.notes.push(line.lost("-M is no netmask of the service's family")),
        },
        (Some(_), None) => service.notes.push(line.lost("-M without -p means nothing")),
    }
    for (option, why) in [
        ("--ops", "-o: affinity = \"none\" balances each flow by itself, not each packet"),
        ("--pe", "--pe: a client is an address; loaded looks into no SIP"),
        ("--sched-flags", "-b: loaded has no such flags"),
    ] {
        service.notes.extend(line.get(option).map(|_| line.lost(why)));
    }
    added.push(Added { key, weighted });
    model.services.push(service);
    Ok(())
}

fn add_server(line: &Line<'_>, added: &[Added], model: &mut Model) -> Result<(), Unreadable> {
    let Some(key) = line.key()? else {
        model.notes.push(line.lost("its service is chosen by a mark"));
        return Ok(());
    };
    let place = added.iter().position(|known| known.key == key);
    let Some((known, service)) = place.and_then(|place| Some((added.get(place)?, model.services.get_mut(place)?)))
    else {
        model.notes.push(line.lost("no line -A above adds this service"));
        return Ok(());
    };
    let text = line.get("--real-server").ok_or_else(|| line.at().unreadable("no server is named; -r does"))?;
    let (address, port) = line.endpoint(text)?;
    let weight = match line.get("--weight") {
        None => 1,
        Some(text) => {
            number(text, &(0..=65_535)).ok_or_else(|| line.at().unreadable("-w is no weight from 0 to 65535"))?
        }
    };
    let mode = if line.get("--masquerading").is_some() { Mode::Nat } else { Mode::Dsr };
    if service.backends.is_empty() {
        service.mode = mode;
    } else if service.mode != mode {
        let why = "a service of loaded forwards in one way; this server's differs from that of the first";
        service.notes.push(line.lost(why));
        return Ok(());
    }
    if line.get("--ipip").is_some() {
        let why = "loaded has no tunnels; with mode \"dsr\" backends must be on a network of this host";
        service.notes.push(line.lost(why));
    }
    let limits = ["--u-threshold", "--l-threshold"];
    if limits.iter().any(|limit| line.get(limit).is_some_and(|value| value != "0")) {
        service.notes.push(line.lost("-x, -y: loaded has no limit of connections to a backend"));
    }
    let port = port.filter(|port| mode == Mode::Nat && *port != 0 && *port != key.port);
    let weight = if known.weighted { weight } else { weight.min(1) };
    service.backends.push(Backend { at: line.at().clone(), address, port, weight, backup: false });
    Ok(())
}
