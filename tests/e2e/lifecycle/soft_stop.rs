//! An instance that is told to end while its VIPs are here serves on until they have left, and says "not serving" meanwhile.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, get};
use nix::sys::signal::Signal;
use std::time::Duration;

const TOLD: Duration = Duration::from_secs(5);
/// What VRRP does when another machine takes over.
const VIPS_LEAVE: &str = "ip addr del 192.0.2.100/24 dev eth0; ip addr del 2001:db8:1::100/64 dev eth0";

fn holding() -> String {
    format!("stop_hold = \"1m\"\n{}", config("5s", &[Service { keys: FREE, ..Service::default() }]))
}

#[track_caller]
fn serves(lab: &Lab) {
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

#[track_caller]
fn says_that_it_ends(loaded: &Loaded) {
    let said = || loaded.ask(&["health"]);
    let ends = || said().code == Some(2) && said().out.contains("! told to end: it serves on until ");
    assert!(eventually(TOLD, ends), "{:?}", said());
}

#[test]
fn after_term_it_serves_until_its_vips_have_left() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.rules();
    let mut loaded = Loaded::toml(&lab, &holding());
    loaded.signal(Signal::SIGTERM);
    says_that_it_ends(&loaded);
    serves(&lab);
    // An upgrade would forget that it is to end.
    loaded.signal(Signal::SIGUSR2);
    assert!(eventually(TOLD, || loaded.log().contains("upgrade refused")), "{}", loaded.log());
    lab.sh("lb", "ip addr del 192.0.2.100/24 dev eth0");
    std::thread::sleep(Duration::from_millis(500));
    assert!(lives(loaded.pid()), "one VIP is still here");
    lab.sh("lb", "ip addr del 2001:db8:1::100/64 dev eth0");
    std::thread::sleep(Duration::from_secs(1));
    assert!(lives(loaded.pid()), "neighbours do not know yet that they have left");
    assert_eq!(loaded.wait().code(), Some(0), "{}", loaded.log());
    assert!(loaded.log().contains("the VIPs have left this host: ending"), "{}", loaded.log());
    assert_eq!(lab.rules(), before);
}

#[test]
fn a_second_term_ends_it_at_once_and_one_without_vips_does_not_wait() {
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &holding());
    loaded.signal(Signal::SIGTERM);
    says_that_it_ends(&loaded);
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
    lab.sh("lb", VIPS_LEAVE);
    let mut loaded = Loaded::toml(&lab, &holding());
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0), "{}", loaded.log());
}

#[test]
fn a_drain_can_be_cancelled_and_ends_when_the_vips_have_left() {
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &config("5m", &[Service { keys: FREE, ..Service::default() }]));
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| loaded.ask(&["drain"]));
        says_that_it_ends(&loaded);
        serves(&lab);
        let said = loaded.ask(&["drain", "--cancel"]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), "this instance stays\n"), "{}", said.err);
        let drained = drain.join().unwrap();
        assert!(drained.code == Some(1) && drained.out.contains("cancelled"), "{drained:?}");
        assert!(eventually(TOLD, || loaded.ask(&["health"]).code == Some(0)), "{:?}", loaded.ask(&["health"]));
        let drain = scope.spawn(|| loaded.ask(&["drain", "--deadline", "1m"]));
        says_that_it_ends(&loaded);
        lab.sh("lb", VIPS_LEAVE);
        let drained = drain.join().unwrap();
        assert!(drained.code == Some(0) && drained.out.ends_with("it has ended\n"), "{drained:?}");
    });
    assert_eq!(loaded.wait().code(), Some(0));
}
