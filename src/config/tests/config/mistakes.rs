//! Mistakes that people make, one a row: each is told with its place, what stands there, and what to write. And all of a file
//! are told at once.

use crate::mistakes;
use loaded_config::{ConfigError, Overrides, Source, parse};

/// A text, its place, what stands there, and the way out.
type Row = (&'static str, &'static str, &'static str, &'static str);

const SERVICE: &str = "[[service]]\nname = \"web\"\nvip = \"192.0.2.100\"\nprotocol = \"tcp\"\nports = [80]\n\
                       [[service.backend]]\naddress = \"198.51.100.11\"\n";

/// Each a line of the service that is replaced, or added where none begins so.
const IN_SERVICE: &[Row] = &[
    ("name = \"my web\"", "2:8", "\"my web\"", "write 1 to 64 letters"),
    ("name = web", "2:8", "not TOML", ""),
    ("vip = \"192.0.2.100/32\"", "3:7", "\"192.0.2.100/32\"", "write one address, such as 192.0.2.100"),
    ("vip = \"192.0.2.100:80\"", "3:7", "\"192.0.2.100:80\"", "write 192.0.2.100 here"),
    ("vip = \"vip.example.com\"", "3:7", "\"vip.example.com\"", "names are not looked up"),
    ("vip = \"127.0.0.1\"", "3:7", "127.0.0.1", "write the address of one host"),
    ("vip = \"0.0.0.0\"", "3:7", "0.0.0.0", "write the address of one host"),
    ("vip = \"fe80::1\"", "3:7", "fe80::1", "write the address of one host"),
    ("vip = 192", "3:7", "192", "write in quotes one such as 192.0.2.1"),
    ("vip = \"192.0.2.100\u{200b}\"", "3:7", "U+200B (zero width space)", "type it anew"),
    ("protocol = \"http\"", "4:12", "\"http\"", "write tcp, udp, sctp or any"),
    ("protocol = \"TCP\"", "4:12", "\"TCP\"", "write tcp"),
    ("ports = 80", "5:9", "80", "ports = [80, "),
    ("ports = \"80\"", "5:9", "\"80\"", "ports = [80, "),
    ("ports = [80800]", "5:10", "80800", "write a number from 1 to 65535"),
    ("ports = [\"http\"]", "5:10", "\"http\"", "from 1 to 65535"),
    ("ports = [\"90-80\"]", "5:10", "90-80", "write 80-90"),
    ("ports = [80, \"70-90\"]", "5:14", "overlap", "(see f.toml:5:10)"),
    ("address = \"backend:8080\"", "7:11", "\"backend:8080\"", "the address of backend and its port as a key"),
    ("address = \"198.51.100.11:8080\"", "7:11", "\"198.51.100.11:8080\"", "write 198.51.100.11 here, and the port"),
    ("address = \"198.51.100.0/24\"", "7:11", "\"198.51.100.0/24\"", "write one address"),
    ("address = \"198.051.100.11\"", "7:11", "\"198.051.100.11\"", "write 198.51.100.11"),
    ("address = \"[2001:db8::11]\"", "7:11", "\"[2001:db8::11]\"", "write 2001:db8::11"),
    ("address = \"192.0.2.100\"", "7:11", "192.0.2.100", "cannot be a backend too"),
    ("address = \"2001:db8::11\"", "3:7", "192.0.2.100", "add one or remove the VIP"),
    ("weight = 0", "8:10", "0", "write a number from 1 to 256"),
    ("weight = -1", "8:10", "-1", "write a number from 1 to 256"),
    ("weight = \"3\"", "8:10", "\"3\"", "write a number without quotes"),
    ("backup = 1", "8:10", "1", "write true or false"),
    ("strategy = \"leastconn\"", "6:12", "\"leastconn\"", "weighted comes nearest"),
    ("strategy = \"round_robin\"", "6:12", "\"round_robin\"", "rr comes nearest"),
    ("strategy = \"maglve\"", "6:12", "\"maglve\"", "did you mean maglev?"),
    ("mode = \"tunnel\"", "6:8", "\"tunnel\"", "write nat or dsr"),
    ("affinity = true", "6:12", "true", "write \"client\", \"none\" or"),
    ("check = true", "6:9", "true", "write a table, such as { kind = … }"),
    ("check = { kind = \"htttp\" }", "6:18", "\"htttp\"", "did you mean http?"),
    ("check = { kind = \"https\" }", "6:18", "\"https\"", "write \"tcp\""),
    ("check = { kind = \"http\", status = \"100-199\" }", "6:35", "100-199", "write 200 to 599"),
    ("check = { kind = \"tcp\", interval = 2 }", "6:36", "2", "write in quotes one number and ms, s, m, h or d"),
    ("check = { kind = \"tcp\", interval = \"2\" }", "6:36", "\"2\"", "such as 500ms"),
    ("check = { kind = \"tcp\", timeout = \"5s\" }", "6:35", "5s", "write at most 2s"),
    ("slow_start = \"2 minutes\"", "6:14", "\"2 minutes\"", "such as 90s"),
    ("slow_start = true", "6:14", "true", "write in quotes one number and s, m, h or d, such as 90s"),
    ("on_backend_down = \"restart\"", "6:19", "\"restart\"", "write reset, rehash or drain"),
    ("prot = 80", "6:1", "\"prot\"", "did you mean port?"),
    ("user = \"nobody\"", "6:1", "user", "to the top level"),
];

/// Whole texts.
const WHOLE: &[(&str, Row)] = &[
    ("f.toml", ("", "1:1", "service", "write a [[service]]")),
    ("f.toml", ("[[service]]\nname = \"a\u{a0}\n", "2:", "not TOML", "")),
    ("f", ("\u{feff}VIP4=192.0.2.100\nserver4=198.51.100.11\n", "1:1", "U+FEFF", "take it out with sed")),
    ("f", ("VIP4=192.0.2.100\n\u{a0}server4=198.51.100.11\n", "2:1", "U+00A0 (no-break space)", "type the line anew")),
    ("f", ("VIP4=192.0.2.100\nserver4=198.51.100.11\u{200b}\n", "2:22", "U+200B (zero width space)", "anew")),
    ("f", ("VIP4=192.0.2.100\nserver4=backend:8080\n", "2:9", "\"backend:8080\"", "names are not looked up")),
    ("f", ("VIP4=192.0.2.100/24\nserver4=198.51.100.11\n", "1:6", "\"192.0.2.100/24\"", "such as 192.0.2.100")),
    ("f", ("VIP4=192.0.2.100\nserver4=198.51.100.11\nstrategy=leastconn\n", "3:10", "\"leastconn\"", "weighted")),
];

/// The service with a line in the place of one that begins alike, or behind `ports` or the address.
fn with(line: &str) -> String {
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = SERVICE.lines().map(str::to_owned).collect();
    match lines.iter().position(|old| key(old) == key(line)) {
        Some(at) => lines[at] = line.to_owned(),
        None if line.starts_with("weight") || line.starts_with("backup") => lines.push(line.to_owned()),
        None => lines.insert(5, line.to_owned()),
    }
    lines.join("\n")
}

#[test]
fn each_mistake_is_told_with_its_place_its_value_and_a_way_out() {
    let in_service = IN_SERVICE.iter().map(|row| ("f.toml", with(row.0), *row));
    let whole = WHOLE.iter().map(|(name, row)| (*name, row.0.to_owned(), *row));
    let all: Vec<_> = in_service.chain(whole).collect();
    assert_eq!(all.len(), 54);
    for (name, text, (_, place, value, way)) in all {
        let told = mistakes(name, &text);
        let [only] = told.as_slice() else { panic!("{text}\ngave {told:#?}") };
        assert!(only.starts_with(&format!("{name}:{place}")), "{text}\ngave {only}\nwanted {place}");
        assert!(only.contains(value) && only.contains(way), "{text}\ngave {only}\nwanted {value} … {way}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_and_nothing_that_is_none() {
    let text = "user = \"root\"\nflows = 12\ncolour = \"red\"\n[[service]]\nname = \"a b\"\nvip = [\"192.0.2.100/32\", \"::1\"]\n\
                protocol = \"tcp\"\nports = [0, 80, \"90-80\"]\nstrategy = \"leastconn\"\nmode = \"tun\"\n\
                check = { kind = \"http\", port = 0, status = 100, interval = 3 }\npassive = { fails = 0, hold = \"1ms\" }\n\
                [[service.backend]]\naddress = \"backend:8080\"\nweight = 0\nbackup = 1\n[[service.backend]]\nweight = 3\n\
                [[service]]\nname = \"good\"\nvip = \"192.0.2.101\"\nprotocol = \"tcp\"\nports = [80]\n[[service.backend]]\n\
                address = \"192.0.2.101\"\n";
    let places = [
        "1:8", "2:9", "3:1", "5:8", "6:8", "6:26", "8:10", "8:17", "9:12", "10:8", "11:33", "11:45", "11:61", "12:21",
        "12:31", "14:11", "15:10", "16:10", "17:1", "25:11",
    ];
    let told = mistakes("f.toml", text);
    let told: Vec<_> = told.iter().map(|told| told.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(told, places.map(|place| format!("f.toml:{place}")));
}

#[test]
fn all_mistakes_of_classic_files_are_told_at_once() {
    let text = "VIP4=192.0.2.100/24\nserver4=web\nserver4=198.51.100.1\nserver4=198.51.100.1\nNS1=192.0.2.53\n\
                RIP4=198.51.100.1/24\nnfq_len=0\nFIRST_CORE=x\nstrategy=best\nNS=\nexport nfq_len=3\n";
    let told = mistakes("f", text);
    let told: Vec<_> = told.iter().map(|told| told.split(": ").next().unwrap_or_default()).collect();
    let places = ["1:6", "2:9", "4:9", "5:1", "6:6", "7:9", "8:12", "9:10", "10:4", "11:1"];
    assert_eq!(told, places.map(|place| format!("f:{place}")));
}

#[test]
fn a_broken_text_is_told_as_such_and_no_more() {
    let text = "user = \n[[service]\nname = \"a\"\nvip = \"x\"\n";
    let told = mistakes("f.toml", text);
    assert!(told.len() > 1 && told.iter().all(|told| told.contains(": not TOML: ")), "{told:#?}");
}

#[test]
fn at_most_a_hundred_are_told() {
    let text = format!("VIP4=192.0.2.100\n{}", "server4=x\n".repeat(1000));
    let error = parse(&[Source::new("f", text)], &Overrides::default()).unwrap_err();
    let ConfigError::Invalid { mistakes } = &error else { panic!("{error}") };
    assert_eq!((mistakes.len(), error.reports().len()), (100, 100));
    assert!(error.reports()[99].ends_with("101 | server4=x\n    |         ^"), "{}", error.reports()[99]);
}
