//! What is changed at run time: over the files, into the files.

use loaded_config::plan::{Backend, Plan, diff};
use loaded_config::{
    Act, Amendment, ConfigError, Families, LoadedPlan, Order, Overrides, Source, amend, marked, parse, parse_amended,
    saved,
};

const MAIN: &str = "\
# Ann's file.
include = \"d/*.toml\"

[[service]]
name = \"web\" # the shop
vip = \"192.0.2.100\"
protocol = \"tcp\"
ports = [80]
check = { kind = \"tcp\" }

# Rack 1.

# The old one.
[[service.backend]]
address = \"198.51.100.11\"
weight = 1   # slow

[[service.backend]]
address = \"198.51.100.12\"
# The end.
";

const INCLUDED: &str = "[[backend]]\nservice = \"web\"\naddress = \"198.51.100.21\"\n";

fn sources(main: &str) -> Vec<Source> {
    vec![Source::new("main.toml", main), Source::new("d/web.toml", INCLUDED).included()]
}

fn order(words: &str) -> Order {
    let words: Vec<&str> = words.split(' ').collect();
    let number = |at: usize| words.get(at).map(|word| word.parse().unwrap());
    let act = match words[0] {
        "add" => Act::Add { weight: number(3), backup: false },
        "backup" => Act::Add { weight: number(3), backup: true },
        "remove" => Act::Remove,
        _ => Act::Weight(number(3).unwrap()),
    };
    Order { service: words[1].to_owned(), backend: words[2].parse().unwrap(), act }
}

/// Orders one after the other, in a configuration.
fn ordered(sources: &[Source], orders: &[&str]) -> Result<LoadedPlan, ConfigError> {
    let mut loaded = parse(sources, &Overrides::default())?;
    for words in orders {
        loaded = amend(sources, &Overrides::default(), &loaded.amendments, &order(words))?;
    }
    Ok(loaded)
}

/// Destination and weight of each backend.
fn backends(plan: &Plan) -> Vec<String> {
    let say = |b: &Backend| format!("{}*{}{}", b.destination(), b.weight, if b.backup { " backup" } else { "" });
    plan.services[0].backends.iter().map(say).collect()
}

fn told(amendments: &[Amendment]) -> Vec<String> {
    amendments.iter().map(ToString::to_string).collect()
}

#[test]
fn orders_add_up_and_cancel_each_other() {
    let (one, two) = ("198.51.100.11*1", "198.51.100.12*1");
    let (three, included) = ("198.51.100.13*1", "198.51.100.21*1");
    for (orders, expected, count) in [
        (vec![], vec![one, two, included], 0),
        (vec!["add web 198.51.100.13"], vec![one, two, included, three], 1),
        (vec!["add web 198.51.100.13:8080 7"], vec![one, two, included, "198.51.100.13:8080*7"], 1),
        (vec!["backup web 198.51.100.13"], vec![one, two, included, "198.51.100.13*1 backup"], 1),
        (vec!["add web 198.51.100.13", "weight web 198.51.100.13 1"], vec![one, two, included, three], 1),
        (vec!["add web 198.51.100.13", "remove web 198.51.100.13"], vec![one, two, included], 0),
        (vec!["remove web 198.51.100.11"], vec![two, included], 1),
        (vec!["remove web 198.51.100.21"], vec![one, two], 1),
        (vec!["remove web 198.51.100.11", "add web 198.51.100.11"], vec![one, two, included], 0),
        (vec!["remove web 198.51.100.11", "add web 198.51.100.11 5"], vec!["198.51.100.11*5", two, included], 1),
        (vec!["weight web 198.51.100.12 256"], vec![one, "198.51.100.12*256", included], 1),
        (vec!["weight web 198.51.100.12 2", "weight web 198.51.100.12 1"], vec![one, two, included], 0),
        (vec!["weight web 198.51.100.12 2", "remove web 198.51.100.12"], vec![one, included], 1),
    ] {
        let loaded = ordered(&sources(MAIN), &orders).unwrap();
        assert_eq!(
            (backends(&loaded.plan), loaded.amendments.len()),
            (expected.iter().map(ToString::to_string).collect(), count),
            "{orders:?}"
        );
        // The same by a reload, and by a start after a supervisor's death.
        let again = parse_amended(&sources(MAIN), &Overrides::default(), &loaded.amendments).unwrap();
        assert_eq!(
            (again.plan, again.amendments, again.forgotten),
            (loaded.plan, loaded.amendments, vec![]),
            "{orders:?}"
        );
    }
}

#[test]
fn what_cannot_be_is_told_with_the_word_at_fault() {
    let two_ports = MAIN
        .replace("address = \"198.51.100.12\"", "address = \"198.51.100.11\"\nport = 8080")
        .replace("weight = 1 ", "port = 8081\nweight = 1 ");
    for (main, orders, expected) in [
        (MAIN, "add wbe 198.51.100.13", "at run time:1:20: there is no service \"wbe\"; did you mean web?"),
        (MAIN, "add web 198.51.100.11", "at run time:1:24: service \"web\" has the backend 198.51.100.11 already"),
        (
            MAIN,
            "add web 192.0.2.100",
            "at run time:1:24: 192.0.2.100 is a VIP and cannot be a backend too (see main.toml:6:7)",
        ),
        (
            MAIN,
            "add web 2001:db8::1",
            "at run time:1:24: 2001:db8::1 is an IPv6 backend, but service \"web\" has no IPv6 VIP",
        ),
        (MAIN, "add web 198.51.100.13 0", "at run time:1:47: weight is 0; write a number from 1 to 256"),
        (MAIN, "weight web 198.51.100.11 257", "at run time:1:41: weight is 257; write a number from 1 to 256"),
        (MAIN, "weight web 198.51.100.13 2", "at run time:1:27: service \"web\" has no backend 198.51.100.13;"),
        (MAIN, "remove web 198.51.100.11:80", "at run time:1:27: service \"web\" has no backend 198.51.100.11:80;"),
        (&two_ports, "remove web 198.51.100.11", "has 198.51.100.11:8081, 198.51.100.11:8080; name one of them"),
    ] {
        let error = ordered(&sources(main), &[orders]).unwrap_err();
        assert!(error.to_string().contains(expected), "{orders}: {error}");
        assert!(error.reports()[0].contains("\n1 | loaded backend "), "{:?}", error.reports());
    }
    let none = MAIN.replace("include = \"d/*.toml\"\n", "");
    let orders = ["remove web 198.51.100.11", "remove web 198.51.100.12"];
    let error = ordered(&[Source::new("main.toml", none)], &orders).unwrap_err().to_string();
    assert!(error.contains("main.toml:5:7: service \"web\" has no backend; add at least one"), "{error}");
    let error = ordered(&sources(MAIN), &["remove web 198.51.100.11", "backup web 198.51.100.11"]).unwrap_err();
    assert!(error.to_string().contains("add it as it stands there: without --backup"), "{error}");
}

/// Whoever has spoken last is right.
#[test]
fn what_the_files_say_anew_is_not_changed_any_more() {
    let orders = ["add web 198.51.100.13", "remove web 198.51.100.11", "weight web 198.51.100.12 2"];
    let made = ordered(&sources(MAIN), &orders).unwrap().amendments;
    let reload = |from: &str, to: &str| {
        assert!(MAIN.contains(from), "{from}");
        parse_amended(&sources(&MAIN.replace(from, to)), &Overrides::default(), &made)
    };
    let forgotten = |from: &str, to: &str| reload(from, to).unwrap().forgotten;
    assert_eq!(forgotten("Ann", "Bob"), [""; 0]);
    assert_eq!(
        forgotten("# The end.", "[[service.backend]]\naddress = \"198.51.100.13\"\nweight = 9"),
        ["service web: backend 198.51.100.13 added at run time (weight 1): forgotten: the configuration has it now"]
    );
    assert_eq!(
        forgotten("address = \"198.51.100.12\"", "address = \"198.51.100.12\"\nweight = 3"),
        [
            "service web: backend 198.51.100.12 has weight 2 at run time (configuration: 1): forgotten: the configuration gives it weight 3 now"
        ]
    );
    assert_eq!(forgotten("\"198.51.100.11\"", "\"198.51.100.19\"").len(), 1, "the removed one is gone");
    let shop = MAIN.replace("name = \"web\"", "name = \"shop\"");
    let alone = parse_amended(&sources(&shop)[..1], &Overrides::default(), &made).unwrap();
    assert_eq!((alone.forgotten.len(), alone.amendments), (3, vec![]), "its service is gone");
    let error = reload("\"192.0.2.100\"", "[\"192.0.2.100\", \"198.51.100.13\"]").unwrap_err().to_string();
    assert!(error.contains("at run time:1:24: 198.51.100.13 is a VIP and cannot be a backend too"), "{error}");
}

#[test]
fn a_family_that_is_not_served_is_not_amended() {
    let overrides = Overrides { families: Families::V6, ..Overrides::default() };
    let main = MAIN.replace("vip = \"192.0.2.100\"", "vip = [\"192.0.2.100\", \"2001:db8::100\"]")
        + "[[service.backend]]\naddress = \"2001:db8:2::11\"\n";
    let loaded = amend(&sources(&main), &overrides, &[], &order("add web 2001:db8:2::12")).unwrap();
    assert_eq!(backends(&loaded.plan), ["2001:db8:2::11*1", "2001:db8:2::12*1"]);
}

/// The text after these orders.
fn text(main: &str, orders: &[&str]) -> String {
    let (sources, overrides) = (sources(main), Overrides::default());
    let loaded = ordered(&sources, orders).unwrap();
    let saved = saved(&sources, &overrides, &loaded.amendments).unwrap().unwrap();
    assert_eq!((saved.path.to_str(), saved.before.as_str()), (Some("main.toml"), main));
    // A reload of it changes nothing and forgets what was changed.
    let after = parse_amended(&self::sources(&saved.after), &overrides, &loaded.amendments).unwrap();
    assert_eq!((diff(&loaded.plan, &after.plan), told(&after.amendments)), (vec![], vec![]), "{}", saved.after);
    saved.after
}

#[test]
fn the_file_keeps_its_comments_and_layout() {
    let all = ["add web 198.51.100.13:8080 3", "remove web 198.51.100.11", "weight web 198.51.100.12 2"];
    let expected = MAIN
        .replace("\n# The old one.\n[[service.backend]]\naddress = \"198.51.100.11\"\nweight = 1   # slow\n", "")
        .replace("\"198.51.100.12\"\n", "\"198.51.100.12\"\nweight = 2\n\n[[service.backend]]\naddress = \"198.51.100.13\"\nport = 8080\nweight = 3\n");
    assert_eq!(text(MAIN, &all), expected);
    assert_eq!(text(MAIN, &["weight web 198.51.100.11 7"]), MAIN.replace("weight = 1 ", "weight = 7 "));
    let indented = MAIN.replace("[[service.backend]]", "  [[service.backend]]").replace("address", "  address");
    let last = "\n  [[service.backend]]\n  address = \"198.51.100.13\"\n  backup = true\n# The end.";
    assert_eq!(text(&indented, &["backup web 198.51.100.13"]), indented.replace("# The end.", last));
    let (head, _) = MAIN.split_once("\n# Rack 1.").unwrap();
    let inline = format!(
        "{head}backend = [\n  {{ address = \"198.51.100.11\" }}, # old\n  {{ address = \"198.51.100.12\", weight = 4 }},\n]\n"
    );
    let expected = format!(
        "{head}backend = [\n  {{ address = \"198.51.100.12\", weight = 2 }},\n  {{ address = \"198.51.100.13\" }},\n]\n"
    );
    let after = text(&inline, &["add web 198.51.100.13", "remove web 198.51.100.11", "weight web 198.51.100.12 2"]);
    assert_eq!(after.replace(" # old", ""), expected);
    let port = MAIN.replace("ports = [80]", "ports = [80]\nport = 8080");
    let after = text(&port, &["add web 198.51.100.13", "remove web 198.51.100.12"]);
    assert!(after.contains("[[service.backend]]\naddress = \"198.51.100.13\"\n# The end.\n"), "{after}");
}

#[test]
fn what_belongs_elsewhere_is_told_with_the_file() {
    let refused = |sources: &[Source], words: &str| {
        let loaded = ordered(sources, &[words]).unwrap();
        saved(sources, &Overrides::default(), &loaded.amendments).unwrap_err().to_string()
    };
    let told = refused(&sources(MAIN), "weight web 198.51.100.21 2");
    assert_eq!(
        told,
        "service web: backend 198.51.100.21 has weight 2 at run time (configuration: 1): it stands in d/web.toml, which the \
         configuration includes: change it there"
    );
    let mail = "[[service]]\nname = \"mail\"\nvip = \"192.0.2.101\"\nprotocol = \"tcp\"\nports = [25]\nbackend = [{ address = \"198.51.100.31\" }]\n";
    let with_mail = [sources(MAIN), vec![Source::new("d/mail.toml", mail).included()]].concat();
    for words in ["add mail 198.51.100.32", "weight mail 198.51.100.31 2"] {
        assert!(refused(&with_mail, words).contains("it stands in d/mail.toml, which"), "{words}");
    }
    let classic = "VIP4=192.0.2.100\nRIP4=(198.51.100.11)\n";
    if let Ok(loaded) = parse(&[Source::new("loaded.config", classic)], &Overrides::default()) {
        let name = loaded.plan.services[0].name.clone();
        let told = refused(&loaded.sources, &format!("weight {name} 198.51.100.11 2"));
        assert!(told.contains("loaded.config: the classic format"), "{told}");
    }
    assert_eq!(saved(&sources(MAIN), &Overrides::default(), &[]).unwrap(), None);
}

#[test]
fn what_was_changed_is_marked_where_it_is_shown() {
    let loaded = ordered(&sources(MAIN), &["add web 198.51.100.13", "remove web 198.51.100.11"]).unwrap();
    let shown = marked(&loaded.plan, &loaded.amendments);
    assert!(
        shown.starts_with("# Changed at run time, and in no file; loaded config show --save writes it there:\n"),
        "{shown}"
    );
    assert!(shown.contains("\n#   service web: backend 198.51.100.11 removed at run time\n"), "{shown}");
    assert!(
        shown.contains("\n# added at run time (weight 1)\n[[service.backend]]\naddress = \"198.51.100.13\"\n"),
        "{shown}"
    );
    assert_eq!(parse(&[Source::new("f.toml", shown)], &Overrides::default()).unwrap().plan, loaded.plan);
}
