//! `host = "set"`: a host whose settings stand in the way is made fit while it is needed, and left as it was.

use crate::rig::config::{FREE, Service, change, config};
use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial_within};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Everything that a balancer needs is off.
const WRONG: &str = "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.all.accept_local=0 \
                     net.ipv4.conf.eth0.accept_local=0 net.ipv4.conf.eth1.accept_local=0 net.ipv4.conf.eth1.rp_filter=1";

/// Every setting that could be touched.
fn settings(lab: &Lab) -> String {
    lab.sh("lb", "sysctl -a 2>/dev/null | grep -E '^net.ipv.*(forward|accept_local|rp_filter|redirects|accept_ra)'")
}

fn text(host: &str) -> String {
    format!("host = {host:?}\n{}", config("5s", &[Service { keys: FREE, ..Service::default() }]))
}

/// How many families are served.
fn served(lab: &Lab) -> usize {
    let answers = |family: &&Family| {
        let (from, to) = (SocketAddr::new(family.client(20), 0), SocketAddr::new(family.vip(), 80));
        lab.within("client", || dial_within(Duration::from_millis(300), from, to).is_ok())
    };
    Family::BOTH.iter().filter(answers).count()
}

#[test]
fn what_stands_in_the_way_is_set_while_it_is_needed_and_put_back_after_a_kill_an_upgrade_and_a_reload() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", WRONG);
    let before = settings(&lab);
    for (host, code, says) in
        [("tell", 1, "sysctl -w net.ipv4.ip_forward=1"), ("set", 0, "a start sets what is needed")]
    {
        let file = lab.file("loaded.toml", &text(host));
        let doctor = lab.exec("lb", &[binary().to_str().unwrap(), "doctor", "-c", &file]);
        assert!(doctor.code == Some(code) && doctor.out.contains(says), "{host}: {doctor:?}");
    }
    let mut loaded = Loaded::toml(&lab, &text("set"));
    for said in ["net.ipv4.conf.eth1.accept_local=1 (was 0)", "net.ipv4.conf.eth1.rp_filter=2 (was 1)"] {
        assert!(loaded.log().contains(&format!("host: set {said}")), "{}", loaded.log());
    }
    assert_eq!((served(&lab), loaded.ask(&["health"]).code), (2, Some(0)), "{}", loaded.log());
    let status = loaded.ask(&["status"]).out;
    assert!(status.contains("host: net.ipv4.conf.eth1.rp_filter=2 is set, and 1 put back at the end"), "{status}");
    assert_eq!(lab.sh("lb", "sysctl -n net.ipv4.ip_forward").trim(), "0", "not for interfaces that nobody uses");

    lab.sh("lb", "sysctl -qw net.ipv4.conf.eth1.accept_local=0");
    let again = || loaded.log().matches("host: set net.ipv4.conf.eth1.accept_local=1").count() == 2;
    assert!(eventually(SOON, || again() && served(&lab) == 2), "{}", loaded.log());
    loaded.end(Signal::SIGKILL);
    loaded = Loaded::toml(&lab, &text("set"));
    assert!(!loaded.log().contains("host: set"), "{}", loaded.log());
    loaded.upgrade().unwrap();
    assert_eq!(served(&lab), 2);

    change(&lab, &loaded, &text("tell"));
    assert!(eventually(SOON, || settings(&lab) == before), "{}", loaded.log());
    assert!(eventually(SOON, || loaded.ask(&["health"]).code == Some(2)), "{:?}", loaded.ask(&["health"]));
    change(&lab, &loaded, &text("set"));
    assert!(eventually(SOON, || served(&lab) == 2), "{}", loaded.log());
    let history = loaded.ask(&["history"]).out;
    assert!(history.contains("net.ipv4.conf.eth1.rp_filter=1 put back"), "{history}");

    // His own value, which is none of ours to change.
    lab.sh("lb", "sysctl -qw net.ipv4.conf.eth0.accept_local=1 net.ipv4.conf.eth1.rp_filter=0");
    loaded.stop();
    let after = settings(&lab).replace("eth1.rp_filter = 0", "eth1.rp_filter = 1");
    assert_eq!(after.replace("eth0.accept_local = 1", "eth0.accept_local = 0"), before);
}

/// As in a container, or below ProtectKernelTunables.
#[test]
fn what_cannot_be_set_is_told_with_its_error() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text("set"));
    lab.sh(
        "lb",
        &format!(
            "nsenter -t {} -m sh -c 'mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys'",
            loaded.pid()
        ),
    );
    lab.sh("lb", "sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0");
    let said = || {
        let status = loaded.ask(&["status"]).out;
        status.contains("net.ipv4.conf.eth1.accept_local=1 cannot be set: Read-only file system")
            && status.contains("would be dropped as coming from our own address")
    };
    assert!(eventually(SOON, said), "{}", loaded.ask(&["status"]).out);
    assert!(loaded.log().contains("ProtectKernelTunables=no"), "{}", loaded.log());
    lab.sh("lb", "sysctl -qw net.ipv4.conf.eth1.accept_local=1");
    assert!(eventually(SOON, || !said() && served(&lab) == 2));
    loaded.stop();
}
