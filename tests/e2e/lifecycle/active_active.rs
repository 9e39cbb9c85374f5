//! Two balancers at once in mode "nat", each the gateway of a part of the backends, so that half of the answers come back by the other
//! one: what is supported goes on through a crash, and what is not is told by both.

use crate::rig::anycast::{self, BALANCERS, Topology};
use crate::rig::kept_open::{KeptOpen, PATIENCE, downloads_outlast, go_on};
use crate::rig::lab::{Lab, eventually, takeovers};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial_within, get};
use crate::rig::pair;
use crate::rig::wire::Tcpdump;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LACKS: &str = "their connections fail unless you write on each strategy = \"maglev\"";

#[test]
fn two_are_each_the_gateway_of_a_part_and_tell_what_is_not_supported() {
    takeovers(two_at_once);
}

fn two_at_once() {
    let Some(lab) = Lab::up() else { return };
    anycast::up(&lab, Topology::Parts);
    let [a, b] = [BALANCERS[0], BALANCERS[1]].map(|who| anycast::serve(&lab, who, Topology::Parts));
    Topology::Parts.balancers().iter().for_each(|who| anycast::announce(&lab, who));
    anycast::is_shared_by(&lab, 2);
    anycast::gateways_are_apart(&lab);
    let strays = Tcpdump::of(&lab, "client", &pair::backends());
    let mut connections = KeptOpen::some(&lab);
    // What A sends to b2 and b3, B answers, and the other way round.
    let crossed = || passed(&a, 2, "packets_to") > 0 && passed(&b, 1, "packets_to") > 0;
    let both_ways = || {
        for family in Family::BOTH {
            lab.within("client", || get(family.client(30), family.vip(), 80)).unwrap();
        }
        crossed()
    };
    assert!(eventually(PATIENCE, both_ways), "they are not spread");
    assert_eq!((passed(&a, 2, "packets_from"), passed(&b, 1, "packets_from")), (0, 0));

    downloads_outlast(&lab, || {
        anycast::cables(&lab, BALANCERS[1], "down");
        anycast::is_shared_by(&lab, 1);
    });
    go_on(&lab, &mut connections);

    anycast::cables(&lab, BALANCERS[1], "up");
    anycast::is_shared_by(&lab, 2);
    anycast::gateways_are_apart(&lab);
    go_on(&lab, &mut connections);
    assert_eq!(strays.end(), "");

    for (who, loaded) in BALANCERS.iter().zip([&a, &b]) {
        let text = pair::text("bird/nat.toml").replace("strategy = \"maglev\"", "strategy = \"rr\"");
        lab.file(&format!("{who}.toml"), &text);
        assert!(loaded.reload().0, "{}", loaded.log());
    }
    is_told(&lab, &[&a, &b]);
}

/// Packets of or to a backend, both families.
fn passed(loaded: &Loaded, backend: u16, counter: &str) -> u64 {
    Family::BOTH.iter().map(|family| loaded.backend("web", family.backend(backend))[counter].as_u64().unwrap()).sum()
}

/// Connections that begin until both say what they lack: the one that sends requests on, and the one that drops the answers.
#[track_caller]
fn is_told(lab: &Lab, both: &[&Loaded; 2]) {
    const CLIENTS: u16 = 8;
    let over = AtomicBool::new(false);
    let said = |loaded: &&Loaded| loaded.ask(&["status"]).out;
    let is_told = |loaded: &&Loaded| {
        let said = said(loaded);
        said.contains("nothing has come back from there") && said.contains("(dropped_orphan)") && said.contains(LACKS)
    };
    let told = std::thread::scope(|scope| {
        for n in 0..CLIENTS {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for family in Family::BOTH {
                        let (from, to) = (SocketAddr::new(family.client(10 + n), 0), SocketAddr::new(family.vip(), 80));
                        // Half of them are never answered.
                        drop(lab.within("client", || dial_within(Duration::from_millis(20), from, to)));
                    }
                }
            });
        }
        let told = eventually(PATIENCE, || both.iter().all(is_told));
        over.store(true, Ordering::Relaxed);
        told
    });
    assert!(told, "{}", both.iter().map(said).collect::<String>());
    for loaded in both {
        assert_eq!(loaded.ask(&["health"]).code, Some(0), "anybody can forge what makes it say so");
        assert!(loaded.log().contains("(dropped_orphan)"), "{}", loaded.log());
    }
}
