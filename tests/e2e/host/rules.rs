//! Rules and queues: whatever happens, the host ends up with the rules it had before.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, classic, lives, signal_to};
use crate::rig::net::{Family, get};
use crate::rig::requests::places;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Foreign rules, in the tables we use and in others, made by all three programs.
const FOREIGN: &str = "
    for tool in iptables ip6tables; do
        $tool -N MINE
        $tool -A MINE -p tcp --dport 25 -j REJECT
        $tool -A FORWARD -j MINE
        $tool -t raw -A PREROUTING -p tcp --dport 23 -j DROP
        $tool -t raw -A OUTPUT -p udp --dport 9999 -j CT --notrack
        $tool -t mangle -A PREROUTING -p tcp --dport 21 -j MARK --set-mark 7
    done
    iptables -t nat -A POSTROUTING -s 203.0.113.0/24 -j MASQUERADE
    nft -f - <<END
        table inet mine {
            set bad { type ipv4_addr; elements = { 203.0.113.7, 203.0.113.9 }; }
            chain first { type filter hook prerouting priority -350; policy accept; ip saddr @bad drop; }
        }
        table ip6 other {
            chain last { type filter hook forward priority 10; policy accept; }
        }
END
";

fn serves(lab: &Lab) {
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

#[test]
fn foreign_rules_survive_and_ours_go() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", FOREIGN);
    let before = lab.rules();
    assert!(before.contains("MINE") && before.contains("@bad"), "{before}");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut loaded = Loaded::classic(&lab);
        assert!(lab.rules().contains("-j LOADED-0"), "our rules");
        serves(&lab);
        assert_eq!(loaded.end(signal).code(), Some(0), "{signal}");
        assert_eq!(lab.rules(), before, "after {signal}");
        assert_eq!(lab.queues(), "", "a queue stays after {signal}");
    }
}

/// On a host without rules not even an empty table is left behind.
#[test]
fn an_empty_host_is_empty_again() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.sh("lb", "nft list ruleset");
    assert_eq!(before, "");
    let loaded = Loaded::classic(&lab);
    serves(&lab);
    loaded.stop();
    assert_eq!(lab.sh("lb", "nft list ruleset"), before);
}

/// An instance whose workers die with it. Workers that go on are tested in `lifecycle/supervisor_killed`.
fn mortal(lab: &Lab, base: u16) -> Loaded {
    let backends: String =
        Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\n", f.backend(1))).concat();
    let vips = Family::BOTH.map(|family| format!("\"{}\"", family.vip())).join(", ");
    let text = format!(
        "linger = false\nqueue_base = {base}\n[[service]]\nname = \"all\"\nvip = [{vips}]\nprotocol = \"any\"\n{backends}"
    );
    Loaded::toml(lab, &text)
}

#[test]
fn after_a_killed_supervisor_the_next_start_cleans_up() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", FOREIGN);
    let before = lab.rules();
    let mut killed = mortal(&lab, 0);
    let workers = killed.workers();
    killed.end(Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(2), || !workers.iter().any(|&pid| lives(pid))), "workers outlive it");
    assert!(lab.rules().contains("LOADED-0"), "its rules are left behind: else this tests nothing");

    let next = Loaded::classic(&lab);
    let jumps = lab.sh("lb", "iptables-save; ip6tables-save").matches("-A PREROUTING -j LOADED").count();
    assert_eq!(jumps, 2, "one jump a family");
    serves(&lab);
    next.stop();
    assert_eq!(lab.rules(), before);
}

/// Also when the next instance has other queues than the killed one.
#[test]
fn leftovers_of_other_queues_are_removed_too() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.rules();
    let mut killed = mortal(&lab, 40);
    let workers = killed.workers();
    killed.end(Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(2), || !workers.iter().any(|&pid| lives(pid))), "workers outlive it");
    let next = Loaded::classic(&lab);
    assert!(!lab.rules().contains("LOADED-40"), "{}", next.log());
    serves(&lab);
    next.stop();
    assert_eq!(lab.rules(), before);
}

#[test]
fn a_killed_worker_is_replaced_and_forgets_nothing() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let before = Family::BOTH.map(|family| places(&lab, family, 1));
    for at in [0, 1] {
        let workers = loaded.workers();
        signal_to(workers[at], Signal::SIGKILL);
        let replaced = || loaded.workers().len() == 2 && !loaded.workers().contains(&workers[at]);
        assert!(eventually(Duration::from_secs(5), replaced), "worker {at} is not replaced");
        assert_eq!(Family::BOTH.map(|family| places(&lab, family, 2)), before, "clients and their backends");
    }
    assert!(loaded.log().contains("killed by signal 9"), "the log says how it ended");
    assert!(eventually(Duration::from_secs(2), || lab.waiting() == 0), "packets stay in the queues:\n{}", lab.queues());
    loaded.stop();
}

#[test]
fn a_second_instance_with_the_same_queues_or_vips_is_refused() {
    let Some(lab) = Lab::up() else { return };
    let first = Loaded::classic(&lab);
    let rules = lab.rules();
    // All queues the same; then only one of them, by another base.
    for (base, queue) in [(0, 0), (1, 1)] {
        let mut second = Loaded::spawn(&lab, &[classic(), vec![format!("--queue-base={base}")]].concat());
        assert_eq!(second.wait().code(), Some(1));
        let wanted = [format!("error: queue {queue} belongs to "), format!("pid {} (loaded)", first.pid())];
        assert!(wanted.iter().all(|text| second.log().contains(text)), "{}", second.log());
        assert_eq!(lab.rules(), rules, "the first one's rules");
        serves(&lab);
    }
    let mut second = Loaded::spawn(&lab, &[classic(), vec!["--queue-base=40".to_owned()]].concat());
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.log().contains("is served by another instance here, with the queue base 0"), "{}", second.log());
    assert_eq!(lab.rules(), rules, "the first one's rules");
    serves(&lab);
    first.stop();
}
