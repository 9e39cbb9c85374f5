//! Discovery: nodes of the private network that answer and pass the check become backends.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use std::time::Duration;

#[test]
fn nodes_that_answer_and_pass_the_check_join() {
    let Some(lab) = Lab::up() else { return };
    for backend in ["b1", "b2", "b3"] {
        lab.sh(backend, "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0");
    }
    // Outside of the network, on the same wire.
    lab.sh("b3", "ip address add 203.0.113.5/24 dev eth0");
    lab.kill_web("b3");
    let text = format!(
        "drain = \"1s\"\n[[service]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\nports = [80]\n\
         check = {{ kind = \"tcp\", interval = \"300ms\", timeout = \"300ms\" }}\n\
         discover = {{ network = [\"198.51.100.0/24\", \"2001:db8:2::/64\"], interface = \"eth1\", limit = 8, interval = \"1s\" }}\n\
         [[service.backend]]\naddress = \"{}\"\n[[service.backend]]\naddress = \"{}\"\n",
        Family::V4.vip(),
        Family::V6.vip(),
        Family::V4.backend(1),
        Family::V6.backend(1),
    );
    let loaded = Loaded::toml(&lab, &text);
    let states = || -> Vec<(String, String)> {
        let status = loaded.status();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let backends = status["services"][0]["backends"].as_array().unwrap().clone();
        backends.iter().map(|backend| (text(&backend["address"]), text(&backend["state"]))).collect()
    };
    let is = |n: u16, state: &str| {
        Family::BOTH.iter().all(|f| states().contains(&(f.backend(n).to_string(), state.to_owned())))
    };
    assert!(eventually(Duration::from_secs(15), || is(2, "up") && is(3, "down")), "{:?}", states());
    // Its service starts later: it joins.
    lab.start_web("b3");
    assert!(eventually(Duration::from_secs(5), || is(3, "up")), "{:?}", states());
    assert_eq!(states().len(), 6, "the balancer or a host outside the network joined: {:?}", states());
    lab.kill_web("b2");
    assert!(eventually(Duration::from_secs(5), || is(2, "down")), "{:?}", states());
    // A reload keeps them.
    lab.file("loaded.toml", &text.replace("drain = \"1s\"", "drain = \"2s\""));
    assert!(loaded.reload().0);
    assert!(is(2, "down") && is(3, "up"), "{:?}", states());
    loaded.stop();
}
