//! A reload of a bad file changes nothing, and the error says where and why.

use crate::rig::config::{STICKY, Service, change, config};
use crate::rig::lab::base_chains;
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use crate::rig::ports::named;
use crate::rig::requests::{url, wrk};
use std::fs;
use std::time::Duration;

fn good(weight: u16) -> String {
    format!("queue_len = 4096\n{}", config("7s", &[Service { backends: &[(1, weight), (2, 1)], ..Service::default() }]))
}

/// What is wrong, the file, and what the error must say.
fn flaws() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let edited = |from: &str, to: &str| good(1).replacen(from, to, 1);
    let checked = |check: &str| edited(STICKY, &format!("check = {check}"));
    vec![
        ("no TOML", edited("[[service]]", "[[service]"), vec!["loaded.toml:3:", "not TOML"]),
        ("unknown key", edited("protocol", "protokol"), vec!["loaded.toml:6:1: ", "did you mean protocol"]),
        ("no file of text", "\u{0}\u{1}".repeat(100), vec!["loaded.toml: refused", "zero bytes"]),
        ("empty", String::new(), vec!["loaded.toml:1:1: ", "[[service]]"]),
        ("udp check that sends nothing", checked("{ kind = \"udp\" }"), vec!["loaded.toml:7:9: ", "send"]),
        ("dns check without a name", checked("{ kind = \"dns\" }"), vec!["loaded.toml:7:9: ", "name"]),
        ("check without a kind", checked("{ interval = \"1s\" }"), vec!["loaded.toml:7:9: ", "kind"]),
        ("unknown kind", checked("{ kind = \"htpp\" }"), vec!["loaded.toml:7:18: ", "did you mean http"]),
        ("weight", edited("weight = 1", "weight = 0"), vec!["loaded.toml:11:10: ", "256"]),
        ("another queue_len", edited("4096", "8192"), vec!["queue_len 4096", "8192", "restart"]),
        ("other cores", format!("cores = \"0\"\n{}", good(1)), vec!["cores every core", "core 0", "restart"]),
        ("pieces", format!("defragment = false\n{}", good(1)), vec!["defragment true", "false", "restart"]),
        ("wider clients", edited("prefix6 = 128", "prefix6 = 48"), vec!["restart"]),
    ]
}

#[test]
fn a_broken_file_changes_nothing_and_says_why() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &good(1));
    let path = lab.state().join("loaded.toml");
    let (rules, chains, workers) = (lab.rules(), base_chains(&lab), loaded.workers());
    let generation = || loaded.status()["generation"].as_u64().unwrap();
    let is_refused = |what: &str, reasons: &[&str]| {
        let (ok, said) = loaded.reload();
        assert!(!ok && reasons.iter().all(|reason| said.contains(reason)), "{what}: {said}");
        for mistake in said.lines() {
            let line = format!("reload refused, everything stays as it is: {mistake}");
            assert!(loaded.log().contains(&line), "{what}: the log has no {line}");
        }
        let text = loaded.ask(&["status"]).out;
        let wanted = ["! reload ", " failed, generation 1 stays in use: "];
        assert!(wanted.iter().chain(reasons).all(|words| text.contains(words)), "{what}: {text}");
        // The same by asking first, which is no reload.
        let at = loaded.status()["last_reload"].clone();
        let said = loaded.ask(&["--check", "--diff"]);
        assert!(said.code == Some(1) && said.err.contains("a reload would be refused"), "{what}: {said:?}");
        assert!(reasons.iter().all(|reason| said.err.contains(reason)), "{what}: {said:?}");
        assert_eq!((loaded.status()["last_reload"].clone(), generation()), (at, 1), "{what}: --diff");
    };
    std::thread::scope(|scope| {
        let load = Family::BOTH.map(|family| {
            let lab = &lab;
            scope.spawn(move || wrk(lab, &url(family.vip(), 80, "small"), 4, 3))
        });
        for (what, text, reasons) in flaws() {
            lab.file("loaded.toml", &text);
            is_refused(what, &reasons);
        }
        fs::remove_file(&path).unwrap();
        is_refused("no file", &["loaded.toml: cannot read the configuration: No such file"]);
        fs::create_dir(&path).unwrap();
        is_refused("a directory", &["loaded.toml: refused: it is not a regular file"]);
        fs::remove_dir(&path).unwrap();
        load.into_iter().for_each(|load| load.join().unwrap());
    });
    assert_eq!((lab.rules(), base_chains(&lab), loaded.workers()), (rules, chains, workers));
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap();
    }
    change(&lab, &loaded, &good(5));
    assert_eq!(loaded.backend("web", Family::V4.backend(1))["weight"], 5);
    assert!(!loaded.ask(&["status"]).out.contains("reload refused"), "the flaw is history");
    assert_eq!(generation(), 2);
    loaded.stop();
}

#[test]
fn a_difference_is_told_and_changes_nothing() {
    let Some(lab) = Lab::up() else { return };
    let web = |backends, keys| Service { backends, keys, ..Service::default() };
    let loaded = Loaded::toml(&lab, &config("7s", &[web(&[(1, 1), (2, 1)], STICKY)]));
    let same = loaded.ask(&["--check", "--diff"]);
    assert_eq!((same.code, same.out.as_str()), (Some(0), "nothing would change\n"), "{same:?}");
    // What is in force, as a file, is the same configuration.
    let shown = lab.state().join("shown.toml");
    std::fs::write(&shown, loaded.ask(&["config", "show"]).out).unwrap();
    let shown = shown.to_str().unwrap();
    assert_eq!(loaded.ask(&["--check", "--diff", "-c", shown]).out, "nothing would change\n");
    assert_eq!(loaded.ask(&["config", "show", "-c", shown]).out, loaded.ask(&["config", "show"]).out);
    // Flows of a backend that is to go.
    let clients = (10..20).map(|n| {
        let dial =
            |family: Family| crate::rig::net::dial(family.client(n), std::net::SocketAddr::new(family.vip(), 80));
        lab.within("client", || Family::BOTH.map(|family| dial(family).unwrap()))
    });
    let clients: Vec<_> = clients.collect();
    let flows = || {
        let of = |n| Family::BOTH.map(|family| loaded.backend("web", family.backend(n))["flows"].as_u64().unwrap());
        (of(1), of(2))
    };
    let seen = || flows().0.iter().chain(&flows().1).sum::<u64>() == 20;
    assert!(eventually(Duration::from_secs(3), seen), "{:?}", flows());
    let (rules, before) = (lab.rules(), loaded.status());

    let more = format!("{STICKY}\nstrategy = \"maglev\"");
    let dns = Service { name: "dns", vips: &[100], protocol: "udp", ports: "53", ..Service::default() };
    let next = config("9s", &[web(&[(2, 4), (3, 1)], &more), dns]);
    lab.file("loaded.toml", &next);
    let said = loaded.ask(&["--check", "--diff"]);
    let leave: u64 = flows().0.iter().sum();
    let [gone, stays, new] = [1, 2, 3].map(|n| named(Family::V6.backend(n)));
    for line in [
        "drain 7s \u{2192} 9s".to_owned(),
        format!("service web: backend {gone} is removed: drains for 9s"),
        format!("service web: backend {stays}: weight 1 \u{2192} 4"),
        format!("service web: backend {new} is added (weight 1)"),
        "service web: strategy rr \u{2192} maglev".to_owned(),
        format!("service dns: added on {}, {} with 4 backends", Family::V4.vip(), Family::V6.vip()),
        format!("flows: 20 now; {leave} of them are on backends that would leave: they go on for up to 9 s"),
    ] {
        assert!(said.out.contains(&line), "no {line:?} in\n{}", said.out);
    }
    // Of another file than that of the instance, too.
    let other = loaded.ask(&["--check", "--diff", "-c", &lab.file("other.toml", &next)]);
    assert_eq!(other.out, said.out);
    assert_eq!(lab.rules(), rules);
    let after = loaded.status();
    for part in ["generation", "last_reload", "services"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    drop(clients);
    loaded.stop();
}
