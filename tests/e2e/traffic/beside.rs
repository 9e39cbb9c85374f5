//! Clients in the network of the backends, behind one network card or two: they are told of by name, and no backend is blamed
//! for them. Where the backends have a route to them through the balancer they are served.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial_within, get};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longer than a client waits until it sends a SYN again.
const AGAIN: Duration = Duration::from_millis(1400);

/// The client is the third backend's host, and no backend.
const CLIENT: u16 = 3;

/// The VIP behind the second network card, and that of the only one: an address of the backends' network.
fn vips() -> [(Family, IpAddr); 4] {
    let of = |family: Family| [(family, family.vip()), (family, family.backend(90))];
    let [[one, two], [three, four]] = Family::BOTH.map(of);
    [one, two, three, four]
}

#[test]
fn clients_beside_backends_are_named_and_blame_nobody() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", "ip addr add 198.51.100.100/24 dev eth1; ip addr add 2001:db8:2::100/64 dev eth1 nodad");
    let passive = format!("{FREE}\npassive = {{ fails = 2, timeout = \"200ms\", hold = \"60s\" }}");
    let web = Service { keys: &passive, ..Service::default() }.to_string();
    let text =
        config("5s", &[]) + &web.replace("2001:db8:1::100", "2001:db8:1::100\", \"198.51.100.100\", \"2001:db8:2::100");
    let file = lab.file("loaded.toml", &text);
    let loaded = Loaded::toml(&lab, &text);
    let refused = |(family, vip): (Family, IpAddr)| {
        let from = SocketAddr::new(family.backend(CLIENT), 0);
        lab.within("b3", || dial_within(AGAIN, from, SocketAddr::new(vip, 80)).is_err())
    };
    // Four connections each, at once.
    std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4).flat_map(|_| vips()).map(|to| scope.spawn(move || refused(to))).collect();
        assert!(tries.into_iter().all(|tried| tried.join().unwrap()), "somebody was served");
    });
    let history = loaded.ask(&["history"]).out;
    assert!(!history.contains("ejected") && !history.contains("verdict"), "{history}");
    let told = |network: &str, backends: &str| {
        let text = format!("clients in {network} get no answer: they share the network of backends {backends}, whose");
        assert!(eventually(Duration::from_secs(5), || loaded.log().contains(&text)), "{}", loaded.log());
        for words in [vec!["status"], vec!["history"], vec!["doctor", "-c", &file]] {
            let shown = loaded.ask(&words).out;
            assert!(shown.contains(&text), "{words:?}: {shown}");
        }
    };
    told("198.51.100.0/24", "198.51.100.11, 198.51.100.12");
    assert!(eventually(Duration::from_secs(3), || loaded.log().contains("clients in 2001:db8:2::/64")));
    assert_eq!(loaded.ask(&["health"]).code, Some(0));
    // As LVS has it, too: the backends send what is for this client to the balancer.
    for backend in ["b1", "b2"] {
        lab.sh(
            backend,
            "ip route add 198.51.100.13 via 198.51.100.254; ip route add 2001:db8:2::13 via 2001:db8:2::fe",
        );
    }
    for (family, vip) in vips().into_iter().cycle().take(8) {
        let answer = lab.within("b3", || get(family.backend(CLIENT), vip, 80));
        assert!(answer.is_ok(), "{vip}: {answer:?}");
    }
    loaded.stop();
}
