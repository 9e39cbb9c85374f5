//! Three balancers at once behind a router that spreads connections over them (ECMP), with Debian's BIRD, all configured as
//! `scripts/ha/bird` ships it: one crashes, comes back, and another one ends for maintenance. Connections that the router moves go on
//! at balancers that have never seen them, and downloads too.

use crate::rig::anycast::{self, BALANCERS, Topology};
use crate::rig::kept_open::{KeptOpen, downloads_outlast, go_on, served_again, while_some_begin};
use crate::rig::lab::{Lab, takeovers};
use crate::rig::pair;
use crate::rig::wire::Tcpdump;

/// Through a crash, a return and a drain.
fn go_on_through(topology: Topology) {
    let Some(lab) = Lab::up() else { return };
    anycast::up(&lab, topology);
    let loaded = BALANCERS.map(|who| anycast::serve(&lab, who, topology));
    BALANCERS.iter().for_each(|who| anycast::announce(&lab, who));
    anycast::is_shared_by(&lab, 3);
    let strays = Tcpdump::of(&lab, "client", &pair::backends());
    let (mut connections, mut idle) = (KeptOpen::some(&lab), KeptOpen::idle(&lab));
    let requests = || loaded.each_ref().map(|one| one.packets(&["forwarded_new"]));
    println!("begun at each: {:?}", requests());
    assert!(requests().iter().filter(|begun| **begun > 0).count() > 1, "they are not spread");

    downloads_outlast(&lab, || {
        served_again(&lab, || anycast::cables(&lab, BALANCERS[2], "down"));
        anycast::is_shared_by(&lab, 2);
    });
    go_on(&lab, &mut connections);

    downloads_outlast(&lab, || {
        while_some_begin(&lab, || {
            anycast::cables(&lab, BALANCERS[2], "up");
            anycast::is_shared_by(&lab, 3);
        });
    });
    go_on(&lab, &mut connections);

    let [a, b, c] = loaded;
    let drained = std::thread::scope(|scope| {
        let drain = scope.spawn(|| a.ask(&["drain"]));
        while_some_begin(&lab, || anycast::is_shared_by(&lab, 2));
        go_on(&lab, &mut connections);
        drain.join().unwrap()
    });
    assert!(drained.code == Some(0) && drained.out.ends_with("it has ended\n"), "{drained:?}");
    go_on(&lab, &mut connections);
    go_on(&lab, &mut idle);
    assert_eq!(strays.end(), "");
    println!("orphans: {:?}", [&b, &c].map(|one| one.packets(&["dropped_orphan"])));
    drop((a, b, c));
}

#[test]
fn connections_go_on_when_balancers_come_and_go() {
    takeovers(|| go_on_through(Topology::Dsr));
}

/// Mode "nat": backends answer by the balancer that has their gateway, whoever has sent the request on.
#[test]
fn answers_by_another_balancer_are_adopted() {
    takeovers(|| go_on_through(Topology::Nat));
}
