//! Backends that are added, weighed and removed while the instance runs.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, backend_of, get};
use crate::rig::ports::named;
use crate::rig::requests::{download, sum_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Requests by which shares are counted, among those of others.
const REQUESTS: u16 = 48;

fn text() -> String {
    let services = [Service { keys: FREE, ..Service::default() }];
    format!("# Ask Ann before you change this.\n{}# The end.\n", config("60s", &services))
}

/// New flows of each IPv4 backend so far.
fn given(loaded: &Loaded) -> BTreeMap<u16, u64> {
    let status = loaded.status();
    let backends = status["services"][0]["backends"].as_array().unwrap().clone();
    let number = |backend: &Value| (1..=3).find(|n| backend["address"] == Family::V4.backend(*n).to_string());
    backends.iter().filter_map(|backend| Some((number(backend)?, backend["new_flows"].as_u64().unwrap()))).collect()
}

/// New connections, of whatever clients, are shared by these weights.
#[track_caller]
fn are_shared(lab: &Lab, loaded: &Loaded, weights: &[(u16, u64)], after: &str) {
    let before = given(loaded);
    for _ in 0..REQUESTS {
        let client = Family::V4.client(10);
        let answer = lab.within("client", || get(client, Family::V4.vip(), 80)).unwrap();
        let backend: u16 = backend_of(&answer, client)[1..].parse().unwrap();
        assert!(weights.iter().any(|(known, _)| *known == backend), "after {after}: a client at {backend}");
    }
    let is = given(loaded).into_iter().map(|(n, now)| (n, now - before.get(&n).unwrap_or(&0)));
    let is: BTreeMap<u16, u64> = is.filter(|(_, new)| *new > 0).collect();
    let (sum, all) = (is.values().sum::<u64>(), weights.iter().map(|(_, weight)| weight).sum::<u64>());
    // Each worker has a round of its own, and a status is not taken in one moment.
    let wrong = |(n, weight): &(u16, u64)| is.get(n).is_none_or(|got| got.abs_diff(sum * weight / all) > 8);
    assert!(is.len() == weights.len() && !weights.iter().any(wrong), "after {after}: {is:?}, not {weights:?}");
}

/// Runs `loaded backend …`, which must succeed; what it says.
#[track_caller]
fn order(loaded: &Loaded, words: &[&str]) -> String {
    let said = loaded.ask(&[&["backend"], words].concat());
    assert_eq!(said.code, Some(0), "{words:?}: {}", said.err);
    said.out
}

fn amendments(loaded: &Loaded) -> Vec<Value> {
    loaded.status()["amendments"].as_array().unwrap().clone()
}

/// Opens connections without a pause until `over`; each must be answered.
fn visit(lab: &Lab, family: Family, over: &AtomicBool) {
    let mut client = (20..50).cycle();
    while !over.load(Relaxed) {
        let from = family.client(client.next().unwrap());
        lab.within("client", || get(from, family.vip(), 80)).unwrap_or_else(|e| panic!("{from}: {e}"));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the visits, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Whoever opens connections, or has one, notices nothing of it.
#[test]
fn backends_come_and_go_under_traffic_and_stay_so() {
    const BYTES: u64 = 6 << 20;
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &text());
    let [first, third] = [1, 3].map(|n| named(Family::V4.backend(n)));
    let (lab, over, want) = (&lab, &AtomicBool::new(false), sum_of(&lab, BYTES));
    let to = SocketAddr::new(Family::V4.vip(), 80);
    std::thread::scope(|scope| {
        let visits = Family::BOTH.map(|family| scope.spawn(move || visit(lab, family, over)));
        let stop = Stop(over);
        let said = order(&loaded, &["add", "web", &third]);
        assert!(said.starts_with(&format!("service web: backend {third} is added (weight 1)")), "{said}");
        are_shared(lab, &loaded, &[(1, 1), (2, 1), (3, 1)], "add");
        order(&loaded, &["weight", "web", &third, "2"]);
        are_shared(lab, &loaded, &[(1, 1), (2, 1), (3, 2)], "weight");
        // Three of them: one at least is on each backend.
        let downloads = [11, 12, 13, 14].map(|n| {
            let from = Family::V4.client(n);
            scope.spawn(move || download(lab, from, to, BYTES, "2M"))
        });
        let begun = || loaded.backend("web", Family::V4.backend(1))["flows"].as_u64() > Some(0);
        assert!(eventually(Duration::from_secs(3), begun), "no download on the first backend");
        order(&loaded, &["remove", "web", &first]);
        are_shared(lab, &loaded, &[(2, 1), (3, 2)], "remove");
        for download in downloads {
            let said = download.join().unwrap();
            assert_eq!((said.code, &said.out), (Some(0), &want), "{}", said.err);
        }
        holds(lab, &mut loaded, &first, &third);
        drop(stop);
        visits.into_iter().for_each(|visit| visit.join().unwrap());
    });
    saved(lab, loaded, &first, &third);
}

/// It outlives reload, upgrade and the supervisor's death.
fn holds(lab: &Lab, loaded: &mut Loaded, first: &str, third: &str) {
    let all = [
        format!("service web: backend {third} added at run time (weight 2)"),
        format!("service web: backend {first} removed at run time"),
    ];
    let hold = |loaded: &Loaded, after: &str| {
        assert_eq!(amendments(loaded), all, "after {after}");
        are_shared(lab, loaded, &[(2, 1), (3, 2)], after);
    };
    hold(loaded, "the orders");
    let said = loaded.ask(&["--check", "--diff"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "nothing would change\n"), "{}", said.err);
    let (ok, said) = loaded.reload();
    assert!(ok && said == "the configuration is the same; nothing to do", "{said}");
    hold(loaded, "a reload");
    lab.file("loaded.toml", &text().replace("60s", "50s"));
    let (ok, said) = loaded.reload();
    assert!(ok && said.ends_with("1 change(s)"), "{said}");
    hold(loaded, "a reload of other settings");
    loaded.upgrade().unwrap();
    hold(loaded, "an upgrade");
    loaded.end(Signal::SIGKILL);
    let path = lab.state().join("loaded.toml");
    *loaded = Loaded::start(lab, &["-c".to_owned(), path.to_str().unwrap().to_owned()]);
    hold(loaded, "a killed supervisor");
    let history = loaded.json(&["history"]);
    let by = |event: &&Value| event["by"] == "operator";
    assert_eq!(history.as_array().unwrap().iter().filter(by).count(), 3, "{history}");
}

/// It is written into the file, and a start from that serves the same.
fn saved(lab: &Lab, loaded: Loaded, first: &str, third: &str) {
    let path = lab.state().join("loaded.toml");
    let shown = loaded.ask(&["config", "show"]).out;
    assert!(shown.contains("\n# added at run time (weight 2)\n[[service.backend]]\n"), "{shown}");
    assert!(shown.starts_with("# Changed at run time, and in no file"), "{shown}");
    assert!(shown.contains(&format!("#   service web: backend {first} removed at run time\n")), "{shown}");
    chown(&path, Some(0), Some(4)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let read = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{read}# Ann was here.\n")).unwrap();
    let said = loaded.ask(&["config", "show", "--save"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.err.contains("loaded.toml was changed since the instance has read it; nothing was written"),
        "{}",
        said.err
    );
    fs::write(&path, &read).unwrap();
    let generation = loaded.status()["generation"].clone();
    let said = loaded.ask(&["config", "show", "--save"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("reload: the configuration is the same; nothing to do"), "{}", said.out);
    let (now, file) = (fs::read_to_string(&path).unwrap(), path.metadata().unwrap());
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (0, 4, 0o640));
    assert!(now.starts_with("# Ask Ann before") && now.ends_with("# The end.\n"), "{now}");
    let address =
        |name: &str| name.parse::<SocketAddr>().map_or_else(|_| name.to_owned(), |whole| whole.ip().to_string());
    assert!(!now.contains(&format!("\"{}\"", address(first))), "{now}");
    assert!(now.contains(&format!("[[service.backend]]\naddress = \"{}\"\n", address(third))), "{now}");
    assert_eq!((amendments(&loaded), &loaded.status()["generation"]), (Vec::new(), &generation));
    let said = loaded.ask(&["config", "show", "--save"]);
    assert_eq!(said.out, "nothing to save: the files say what is in force\n");
    loaded.stop();
    let loaded = Loaded::start(lab, &["-c".to_owned(), path.to_str().unwrap().to_owned()]);
    are_shared(lab, &loaded, &[(2, 1), (3, 2)], "a restart");
    loaded.stop();
}

/// Nothing has changed, and the word at fault is shown.
#[test]
fn a_mistake_is_told_with_its_word_and_changes_nothing() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text());
    let backend = |n| -> IpAddr { Family::V4.backend(n) };
    let [first, second, third, vip] = [backend(1), backend(2), backend(3), Family::V4.vip()].map(|ip| ip.to_string());
    for (words, told) in [
        (vec!["add", "wbe", &third], "there is no service \"wbe\"; did you mean web?"),
        (vec!["add", "web", &vip], "is a VIP and cannot be a backend too"),
        (vec!["add", "web", "127.0.0.1"], "127.0.0.1 is a loopback address"),
        (vec!["weight", "web", &third, "2"], "service \"web\" has no backend"),
        (vec!["remove", "web", &third], "service \"web\" has no backend"),
    ] {
        let said = loaded.ask(&[&["backend"], words.as_slice()].concat());
        let shown = said.err.contains("1 | loaded backend ") && said.err.contains("^^^");
        assert!(said.code == Some(1) && said.err.contains(told) && shown, "{words:?}: {}", said.err);
        assert!(said.err.contains("refused, nothing has changed: at run time:1:"), "{}", said.err);
    }
    order(&loaded, &["remove", "web", &named(backend(1))]);
    let said = loaded.ask(&["backend", "remove", "web", &named(backend(2))]);
    assert!(said.code == Some(1) && said.err.contains("has no IPv4 backend"), "{}", said.err);
    assert_eq!(amendments(&loaded).len(), 1);
    are_shared(&lab, &loaded, &[(2, 1)], "what was refused");
    // A file that contradicts it is refused as a whole.
    let path = lab.state().join("loaded.toml");
    let without = fs::read_to_string(&path).unwrap().replace(&format!("\"{second}\""), &format!("\"{first}\""));
    let without = without.replacen(&format!("[[service.backend]]\naddress = \"{first}\"\nweight = 1\n"), "", 1);
    fs::write(&path, without).unwrap();
    let (ok, said) = loaded.reload();
    assert!(!ok && said.contains("has no IPv4 backend"), "{said}");
    are_shared(&lab, &loaded, &[(2, 1)], "a reload that was refused");
    loaded.stop();
}
