//! Two balancers and Debian's keepalived, both configured as `scripts/ha/keepalived` ships it: maintenance by `loaded drain`,
//! an end by TERM, a crash, and a return. Each time the other balancer goes on with connections that it has never seen, also with
//! downloads, where the backend speaks first.

use crate::rig::kept_open::{KeptOpen, PATIENCE, downloads_outlast, go_on, served_again, while_some_begin};
use crate::rig::lab::{Lab, eventually, takeovers};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::pair::{self, A, B, Towards};
use crate::rig::servers::{backends, datagrams, echo, service};
use crate::rig::wire::Tcpdump;
use nix::sys::signal::Signal;

#[track_caller]
fn is_ready(loaded: &Loaded) {
    let is = || loaded.ask(&["health"]).code == Some(0);
    assert!(eventually(PATIENCE, is), "{:?}", loaded.ask(&["health"]));
}

#[test]
fn connections_go_on_through_hand_over_stop_crash_and_return() {
    takeovers(pair_goes_on);
}

/// The number of each service by which operators see that balancers choose alike.
fn choices(loaded: &Loaded) -> Vec<u64> {
    let status = loaded.status();
    let of = |service: &serde_json::Value| service["choice"].as_u64().unwrap();
    status["services"].as_array().unwrap().iter().map(of).collect()
}

fn pair_goes_on() {
    let Some(lab) = Lab::up() else { return };
    pair::up(&lab);
    let echoes = service("echo", "udp", 7007, "strategy = \"maglev\"") + &backends(&[1, 2, 3], "");
    let mut a = pair::serve(&lab, A, &echoes);
    let mut b = pair::serve(&lab, B, &echoes);
    is_ready(&a);
    pair::keepalived(&lab, A);
    pair::is_active(&lab, A);
    is_ready(&b);
    assert_eq!(choices(&a), choices(&b), "what operators compare");
    pair::keepalived(&lab, B);
    // Whatever happens, no client sees a backend's own address.
    let strays = Tcpdump::of(&lab, "client", &pair::backends());
    let (mut connections, mut idle) = (KeptOpen::some(&lab), KeptOpen::idle(&lab));
    let each = Family::BOTH.into_iter().flat_map(|family| (25..30).map(move |n| (family, n)));
    let flows: Vec<_> = each.map(|(family, n)| datagrams(&lab, family, n, 7007)).collect();
    let echoed = || flows.iter().map(|socket| echo(socket, PATIENCE).unwrap()).collect::<Vec<_>>();
    let echoed_at_first = echoed();

    while_some_begin(&lab, || {
        let drained = a.ask(&["drain"]);
        assert!(drained.code == Some(0) && drained.out.ends_with("it has ended\n"), "{drained:?}");
        assert_eq!(a.wait().code(), Some(0), "{}", a.log());
        pair::is_active(&lab, B);
    });
    go_on(&lab, &mut connections);
    assert_eq!(echoed(), echoed_at_first);

    let mut a = pair::serve(&lab, A, &echoes);
    is_ready(&a);
    while_some_begin(&lab, || {
        b.signal(Signal::SIGTERM);
        pair::is_active(&lab, A);
    });
    assert_eq!(b.wait().code(), Some(0), "{}", b.log());
    assert!(b.log().contains("the VIPs have left this host: ending"), "{}", b.log());
    go_on(&lab, &mut connections);

    let b = pair::serve(&lab, B, &echoes);
    is_ready(&b);
    downloads_outlast(&lab, || {
        served_again(&lab, || pair::cables(&lab, A, "down"));
        pair::is_active(&lab, B);
    });
    go_on(&lab, &mut connections);

    assert_eq!(echoed(), echoed_at_first);

    let before = pair::said(&lab, A).len();
    pair::cables(&lab, A, "up");
    is_ready(&a);
    let returned = || pair::said(&lab, A)[before..].contains("Entering BACKUP STATE");
    assert!(eventually(PATIENCE, returned), "{}", pair::said(&lab, A));
    pair::is_active(&lab, B);
    go_on(&lab, &mut connections);
    go_on(&lab, &mut idle);
    assert_eq!(a.end(Signal::SIGTERM).code(), Some(0), "without a VIP it does not wait: {}", a.log());
    assert_eq!(strays.end(), "");
}

/// In mode "dsr" keepalived moves the next hop towards the VIPs.
#[test]
fn direct_connections_go_on_through_stop_crash_and_return() {
    takeovers(|| direct_pair_goes_on(Towards::NextHop));
}

/// Or the balancer answers on the link for the VIPs.
#[test]
fn direct_connections_of_clients_on_the_link_go_on_through_stop_crash_and_return() {
    takeovers(|| direct_pair_goes_on(Towards::Link));
}

fn direct_pair_goes_on(towards: Towards) {
    let Some(lab) = Lab::up() else { return };
    pair::up(&lab);
    towards.set_up(&lab);
    let mut a = pair::serve_direct(&lab, A, Some(towards));
    towards.is_to(&lab, A);
    let b = pair::serve_direct(&lab, B, Some(towards));
    // Backends answer past the balancers, by another interface of the client's, from the VIP alone.
    let strays = Tcpdump::at(&lab, "client", "any", &pair::from_backends());
    let (mut connections, mut idle) = (KeptOpen::some(&lab), KeptOpen::idle(&lab));

    while_some_begin(&lab, || {
        a.signal(Signal::SIGTERM);
        towards.is_to(&lab, B);
    });
    go_on(&lab, &mut connections);
    assert_eq!(a.wait().code(), Some(0), "{}", a.log());

    let a = pair::serve_direct(&lab, A, None);
    downloads_outlast(&lab, || {
        served_again(&lab, || pair::cables(&lab, B, "down"));
        towards.is_to(&lab, A);
    });
    go_on(&lab, &mut connections);

    pair::cables(&lab, B, "up");
    towards.is_to(&lab, A);
    go_on(&lab, &mut connections);
    go_on(&lab, &mut idle);
    assert_eq!(strays.end(), "");
    drop((a, b));
}
