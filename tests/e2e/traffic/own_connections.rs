//! The VIP is the address that the kernel chooses towards the backends, as on a host with one network card: the checks, and
//! whatever else this host opens from there, still get their answers.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

/// From now on what the balancer sends to the backends' networks comes from the VIPs.
fn choose_the_vips(lab: &Lab) {
    lab.sh("lb", "ip route replace 198.51.100.0/24 dev eth1 src 192.0.2.100");
    lab.sh("lb", "ip -6 route replace 2001:db8:2::/64 dev eth1 src 2001:db8:1::100 proto kernel metric 256");
    for family in Family::BOTH {
        let route = lab.sh("lb", &format!("ip route get {}", family.backend(1)));
        assert!(route.contains(&format!("src {}", family.vip())), "{route}");
    }
}

#[test]
fn checks_and_own_connections_from_a_vip_are_answered() {
    let Some(lab) = Lab::up() else { return };
    choose_the_vips(&lab);
    let vips = Family::BOTH.map(|family| format!("\"{}\"", family.vip())).join(", ");
    let pace = "interval = \"400ms\", timeout = \"400ms\", fall = 2";
    let service = |protocol: &str, name: &str, check: &str, ports: &str| {
        let backends: String = (1..=3)
            .flat_map(|n| {
                Family::BOTH.map(|family| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n)))
            })
            .collect();
        format!(
            "cores = \"0-1\"\n[[service]]\nname = \"{name}\"\nvip = [{vips}]\nprotocol = \"{protocol}\"\n{ports}\n\
             check = {{ {check}, {pace} }}\n{backends}"
        )
    };
    for (protocol, ports, check) in [
        ("any", "", "kind = \"icmp+tcp\", port = 80"),
        ("any", "", "kind = \"http\", port = 80"),
        ("tcp", "ports = \"any\"", "kind = \"tcp\", port = 80"),
        ("any", "", "kind = \"udp\", port = 7007, send = \"x\""),
    ] {
        let loaded = Loaded::toml(&lab, &service(protocol, "all", check, ports));
        let all = || Family::BOTH.iter().flat_map(|family| (1..=3).map(|n| loaded.backend("all", family.backend(n))));
        let proven = || all().all(|backend| backend["state"] == "up" && backend["cause"] == "check passed");
        let is_proven = || assert!(eventually(WAIT, proven), "{check}: {}", loaded.status()["services"]);
        is_proven();
        // The first checks may have come before the rules. Without answers all would be down by then.
        std::thread::sleep(Duration::from_millis(1200));
        is_proven();
        for family in Family::BOTH {
            // Clients are served as before, and the balancer reaches a backend and a client from the VIP.
            lab.within("client", || get(family.client(10), family.vip(), 80)).unwrap();
            lab.within("lb", || get(family.vip(), family.backend(1), 80)).unwrap();
            lab.within("lb", || get(family.vip(), family.client(1), 8080)).unwrap();
        }
        loaded.stop();
    }
}
