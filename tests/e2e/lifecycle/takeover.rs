//! A balancer crashes while of three backends one is down, drains, or is in its slow start: the other balancer goes on with all
//! connections of clients whose own backend is another one. What becomes of the rest is printed (docs/figures.md).

use crate::rig::kept_open::{KeptOpen, served_again};
use crate::rig::lab::{Lab, eventually, takeovers};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::pair::{self, A, B};
use crate::rig::servers::{Server, backends, becomes, service};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

/// Ports of a service each, and of what is checked there. Nothing happens to the first: it shows each client's own backend.
const WELL: u16 = 80;
const DRAIN: u16 = 81;
const DOWN: (u16, u16) = (10080, 8090);
const SLOW: (u16, u16) = (10081, 8091);
/// Clients of connections that are open before anything happens, and of those that begin after it.
const EARLY: Range<u16> = 10..20;
const LATE: Range<u16> = 20..30;
/// The backend that something happens to.
const UNWELL: &str = "b1";
const READY: Duration = Duration::from_secs(20);

#[test]
fn a_crash_while_a_backend_is_down_drains_or_starts_keeps_the_connections_of_the_others() {
    takeovers(crash_while_one_is_unwell);
}

fn crash_while_one_is_unwell() {
    let Some(lab) = Lab::up() else { return };
    pair::up(&lab);
    let down = ["b1", "b2", "b3"].map(|who| Some(Server::web(&lab, who, DOWN.1)));
    let _slow = ["b2", "b3"].map(|who| Server::web(&lab, who, SLOW.1));
    let [a, b] = [A, B].map(|who| serve(&lab, who));
    let both = [&a, &b];
    pair::keepalived(&lab, A);
    pair::is_active(&lab, A);
    pair::keepalived(&lab, B);
    let own: BTreeMap<_, _> = all(&lab, EARLY.start..LATE.end, WELL).iter().map(place).collect();
    let mut open: Vec<_> = [("drain", DRAIN), ("down", DOWN.0), ("slow start", SLOW.0)]
        .map(|(name, port)| (name, port, all(&lab, EARLY, port)))
        .into();

    let [first, ..] = down;
    drop(first);
    let _rising = Server::web(&lab, UNWELL, SLOW.1);
    for loaded in both {
        becomes(loaded, "down", 1, "down");
        becomes(loaded, "slow", 1, "up");
        for family in Family::BOTH {
            let said = loaded.ask(&["backend", "drain", "--service", "drain", &family.backend(1).to_string()]);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
    }
    // What the backend had that is down has ended by now.
    open.iter_mut()
        .filter(|(name, ..)| *name == "down")
        .for_each(|(.., kept)| kept.retain(|one| one.backend() != UNWELL));
    let late: Vec<_> = open.iter().map(|(name, port, _)| (*name, *port, all(&lab, LATE, *port))).collect();

    served_again(&lab, || pair::cables(&lab, A, "down"));
    pair::is_active(&lab, B);
    for (when, services) in [("before", open), ("after", late)] {
        for (name, _, kept) in services {
            tell(name, when, kept, &own);
        }
    }
}

/// Counts what goes on, and prints it.
#[track_caller]
fn tell(name: &str, when: &str, kept: Vec<KeptOpen>, own: &BTreeMap<IpAddr, String>) {
    let (mut others, mut rest) = ((0, 0), (0, 0));
    for mut one in kept {
        let answer = one.ask();
        let goes_on = answer.as_ref().is_ok_and(|backend| backend == one.backend());
        let is_other = own[&one.client()] != UNWELL;
        assert!(goes_on || !is_other, "{name}: {} of {} was lost: {answer:?}", one.client(), one.backend());
        let (all, kept) = if is_other { &mut others } else { &mut rest };
        (*all, *kept) = (*all + 1, *kept + usize::from(goes_on));
    }
    println!(
        "{name}, begun {when} it: kept {} of {} whose own backend is another, {} of {} of the rest",
        others.1, others.0, rest.1, rest.0
    );
}

fn all(lab: &Lab, clients: Range<u16>, port: u16) -> Vec<KeptOpen> {
    KeptOpen::all(lab, clients, port)
}

fn place(kept: &KeptOpen) -> (IpAddr, String) {
    (kept.client(), kept.backend().to_owned())
}

/// Four services over the same backends, with the same seed: each client's own backend is the same in all.
#[track_caller]
fn serve(lab: &Lab, who: &str) -> Loaded {
    const KEYS: &str = "strategy = \"maglev\"\naffinity = { by = \"client\", prefix6 = 128 }\n";
    let one = |name, port, check: u16, keys: &str| {
        let check = format!("check = {{ kind = \"tcp\", port = {check}, interval = \"500ms\" }}\n");
        service(name, "tcp", port, &format!("{KEYS}{check}{keys}")) + &backends(&[1, 2, 3], "")
    };
    let services = [
        one("well", WELL, 80, ""),
        one("drain", DRAIN, 81, ""),
        one("down", DOWN.0, DOWN.1, ""),
        one("slow", SLOW.0, SLOW.1, "slow_start = \"60s\""),
    ];
    let loaded = pair::serve_by(lab, who, &services.concat());
    let is_ready = || loaded.ask(&["health"]).code == Some(0);
    assert!(eventually(READY, is_ready), "{:?}", loaded.ask(&["health"]));
    loaded
}
