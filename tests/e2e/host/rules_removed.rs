//! Another program removes our rules, as firewalld, docker and netfilter-persistent do: they are put back, under load and
//! in the midst of changes, and the operator is told. Rules of others stay as they are.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, binary, eventually, install_script, setting};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial_within, get};
use crate::rig::packet::Dice;
use crate::rig::requests::url;
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long clients may be without service.
const BACK: Duration = Duration::from_secs(2);
/// How long status may be silent about it.
const TOLD: Duration = Duration::from_secs(5);

/// What others do. `saved` are the files of `iptables-save` from before the start.
const FLUSHES: [&str; 7] = [
    "nft flush ruleset",
    // The second act may already meet rules that are put back.
    "iptables -t raw -F; iptables -t raw -X || true; ip6tables -t raw -F; ip6tables -t raw -X || true",
    "iptables-restore < $saved4; ip6tables-restore < $saved6",
    "iptables -t raw -D PREROUTING -j LOADED-0; ip6tables -t raw -D PREROUTING -j LOADED-0",
    "iptables -t raw -F LOADED-0-Q; ip6tables -t raw -F LOADED-0-M",
    "nft delete table ip raw; nft delete table ip6 raw || true",
    "nft flush table ip raw",
];

const FOREIGN: &str = "
    for tool in iptables ip6tables; do
        $tool -A FORWARD -p tcp --dport 25 -j REJECT
        $tool -t raw -A PREROUTING -p tcp --dport 23 -j DROP
        $tool -t mangle -A PREROUTING -p tcp --dport 21 -j MARK --set-mark 7
    done
    nft 'add table inet mine; add chain inet mine first { type filter hook prerouting priority -350; }'
";

fn text(weight: u16) -> String {
    config("5s", &[Service { keys: FREE, backends: &[(1, weight), (2, 1)], ..Service::default() }])
}

/// All rules but ours.
fn foreign(lab: &Lab) -> String {
    let text = lab.sh("lb", "iptables-save; ip6tables-save; nft list table inet mine");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("LOADED-"));
    lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))).collect()
}

fn answers(lab: &Lab, family: Family) -> bool {
    let wait = Duration::from_millis(300);
    let there = SocketAddr::new(family.vip(), 80);
    lab.within("client", || dial_within(wait, SocketAddr::new(family.client(20), 0), there).is_ok())
}

/// How long until both families are served again.
#[track_caller]
fn time_without_service(lab: &Lab, flush: &str) -> Duration {
    let since = Instant::now();
    let served = || Family::BOTH.iter().all(|family| answers(lab, *family));
    assert!(eventually(BACK, served), "not served {BACK:?} after {flush}");
    since.elapsed()
}

fn put_back(loaded: &Loaded) -> u64 {
    loaded.status()["rules"]["put_back"].as_u64().unwrap()
}

/// `wrk` in the background, until it is waited for.
pub(super) fn load(lab: &Lab, family: Family, seconds: u64) -> std::process::Child {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("client"), "wrk", "-t1", "-c64", &format!("-d{seconds}s")]);
    command.arg(url(family.vip(), 80, "small")).stdout(std::process::Stdio::null()).spawn().unwrap()
}

/// Random flushes, some of them in the midst of a reload or an upgrade.
#[test]
fn whatever_removes_them_they_are_back_within_two_seconds() {
    let Some(lab) = Lab::up() else { return };
    let [saved4, saved6] = ["saved4", "saved6"].map(|name| lab.file(name, "*raw\nCOMMIT\n"));
    let loaded = Loaded::toml(&lab, &text(1));
    let count = setting("E2E_FLUSHES", 14);
    let mut dice = Dice::new(setting("E2E_SEED", 18));
    let mut loads = Family::BOTH.map(|family| load(&lab, family, 600));
    let (mut longest, mut reloads, mut upgrades) = (Duration::ZERO, 0_u16, 0);
    for n in 0..count {
        // Each kind once, then by chance.
        let at = usize::try_from(n).unwrap();
        let flush = if at < FLUSHES.len() { FLUSHES[at] } else { dice.one_of(&FLUSHES) };
        let (before, log) = (put_back(&loaded), loaded.log().len());
        let midst = dice.below(6);
        let mut successor = None;
        match midst {
            0 | 1 => {
                reloads += 1;
                lab.file("loaded.toml", &text(reloads % 9 + 1));
                loaded.signal(Signal::SIGHUP);
            }
            2 => {
                upgrades += 1;
                successor = Some(loaded.begin_upgrade());
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(300)).unwrap()));
        lab.sh("lb", &format!("saved4={saved4}; saved6={saved6}; {flush}"));
        let took = time_without_service(&lab, flush);
        longest = longest.max(took);
        if midst > 2 {
            assert!(eventually(TOLD, || put_back(&loaded) > before), "{flush}: not counted");
            assert!(loaded.log()[log..].contains("rules put back") || n > 4, "{flush}: not logged");
        } else {
            if let Some(pid) = successor {
                assert!(eventually(TOLD, || loaded.log()[log..].contains(&format!("upgrade: pid {pid} serves"))));
                loaded.is_followed_by(pid);
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    println!("{count} flushes, {reloads} reloads, {upgrades} upgrades: served again after {longest:?} at most");
    for load in &mut loads {
        load.kill().unwrap();
        load.wait().unwrap();
    }
    assert!(eventually(Duration::from_secs(2), || lab.waiting() == 0), "packets stay in the queues:\n{}", lab.queues());
    for process in loaded.status()["processes"].as_array().unwrap() {
        assert_eq!(process["restarts"], 0, "{process}");
    }
}

/// They are told in log and history, with who did it; what others have beside them is not touched.
#[test]
fn it_is_told_and_rules_of_others_stay() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", FOREIGN);
    let before = foreign(&lab);
    let loaded = Loaded::toml(&lab, &text(1));
    lab.sh("lb", "iptables -t raw -F LOADED-0-Q; ip6tables -t raw -D PREROUTING -j LOADED-0");
    time_without_service(&lab, "a part of it");
    assert!(eventually(TOLD, || put_back(&loaded) > 0));
    // The two commands may be two rounds of putting back, and who removes rules in the midst of one is not told apart.
    let whole =
        "ip6tables -t raw -S PREROUTING | grep LOADED-0 && iptables -t raw -S LOADED-0-Q | grep -m1 NFQUEUE || true";
    assert!(eventually(TOLD, || lab.sh("lb", whole).lines().count() == 2), "{}", lab.sh("lb", whole));
    // Answered after the round under way.
    put_back(&loaded);
    assert_eq!(foreign(&lab), before);
    lab.sh("lb", "nft flush ruleset");
    time_without_service(&lab, "nft flush ruleset");
    assert!(eventually(TOLD, || loaded.log().contains("removed by nft, pid ")), "{}", loaded.log());
    let history = loaded.ask(&["history"]).out;
    assert!(history.contains("rules put back") && history.contains("IPv4: all rules, IPv6: all rules"), "{history}");
    let metrics = loaded.ask(&["metrics"]).out;
    assert!(
        metrics.contains("\nloaded_rules_put_back_total ") && metrics.contains("\nloaded_rules_missing 0"),
        "{metrics}"
    );
    // The table is ours by now, and goes with us.
    loaded.stop();
    assert_eq!(lab.rules(), "");
}

/// What is said right after a flush; tried again, for on a busy machine the rules may be back before the question comes.
#[track_caller]
fn at_once(lab: &Lab, ask: impl Fn() -> String, expected: &str) {
    let told = (0..5).any(|_| {
        std::thread::sleep(Duration::from_millis(1500));
        lab.sh("lb", "nft flush ruleset");
        ask().contains(expected)
    });
    assert!(told, "never said {expected:?}, at last: {}", ask());
}

/// Who does not give up is named loudly, and costs no more than a change of the rules a second.
#[test]
fn who_keeps_removing_them_is_named_and_a_reload_puts_them_back_at_once() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("loaded.toml", &text(1));
    let loaded = Loaded::toml(&lab, &text(1));
    let (seconds, since) = (4, Instant::now());
    while since.elapsed() < Duration::from_secs(seconds) {
        lab.sh("lb", "nft flush ruleset");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(loaded.log().contains("somebody keeps removing them"), "{}", loaded.log());
    assert!(put_back(&loaded) < 5 + 2 * seconds, "{} times within {seconds} s", put_back(&loaded));
    time_without_service(&lab, "many flushes");
    // By now they are put back a second later: there is time to ask what is known meanwhile.
    assert_eq!(loaded.ask(&["--check", "--diff"]).out, "nothing would change\n");
    let diff = || loaded.ask(&["--check", "--diff"]).out;
    at_once(&lab, diff, "rules: IPv4: all rules missing in the kernel: would be put back");
    let reload = || loaded.reload().1;
    at_once(&lab, reload, "rules were missing and are put back: IPv4: all rules, IPv6: all rules");
    let binary = binary();
    let doctor = || lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &file]);
    at_once(&lab, || doctor().out, "\nfatal    rules      workers run, but packets do not reach them");
    time_without_service(&lab, "nft flush ruleset");
    assert!(doctor().out.contains("\nok       rules "), "{}", doctor().out);
    loaded.stop();
}

/// iptables-legacy announces nothing: its tables are looked at.
#[test]
fn with_iptables_legacy_too() {
    let Some(lab) = Lab::up() else { return };
    // In the mount namespace that `ip netns exec` has made.
    let script = lab.state().join("with-legacy");
    let text = format!(
        "#!/bin/sh -e\nmount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi\nexec {} \"$@\"\n",
        binary().display()
    );
    install_script(&text, &script);
    let arguments = crate::rig::loaded::classic();
    let loaded = Loaded::spawn_as(&script, &lab, |command| {
        command.arg("-D").args(arguments);
    });
    let loaded = loaded.until_it_serves();
    assert!(lab.sh("lb", "iptables-legacy-save").contains("-j LOADED-0"), "not with legacy");
    for flush in [
        "iptables-legacy -t raw -F; iptables-legacy -t raw -X || true",
        "ip6tables-legacy -t raw -F LOADED-0-Q",
        "iptables-legacy -t raw -D PREROUTING -j LOADED-0",
    ] {
        let before = put_back(&loaded);
        lab.sh("lb", flush);
        time_without_service(&lab, flush);
        assert!(eventually(TOLD, || put_back(&loaded) > before), "{flush}: not counted");
    }
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
    loaded.stop();
    assert!(!lab.sh("lb", "iptables-legacy-save; ip6tables-legacy-save").contains("LOADED"));
}
