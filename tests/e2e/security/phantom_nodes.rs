//! A host of the private network that answers for all addresses of it, where the service looks for nodes: no client is sent
//! to an address where nobody is, and they do not make the service doubt its checks.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, backend_of, get};
use crate::rig::packet::{ICMP, ICMP6, checksum, icmp, ip, upper};
use crate::rig::wire::{HEADER, Sender, open};
use nix::sys::socket::{MsgFlags, recv};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Numbers of the addresses in whose names it answers, as `Family::backend` counts.
const PHANTOMS: std::ops::Range<u16> = 20..90;
/// Most nodes that a service takes.
const LIMIT: usize = 64;

/// A service a family: what it finds counts for both of a service's families together.
fn text(panic: u8) -> String {
    let service = |family: Family| {
        let network = if family == Family::V4 { "198.51.100.0/24" } else { "2001:db8:2::/64" };
        let backends = [1, 2].map(|n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n)));
        format!(
            "[[service]]\nname = \"{family:?}\"\nvip = \"{}\"\nprotocol = \"tcp\"\nports = [80]\n\
             affinity = \"none\"\npassive = false\npanic_threshold = {panic}\n\
             check = {{ kind = \"tcp\", interval = \"500ms\", timeout = \"300ms\" }}\n\
             discover = {{ network = \"{network}\", interface = \"eth1\", limit = {LIMIT}, interval = \"1s\" }}\n{}",
            family.vip(),
            backends.concat()
        )
    };
    format!("cores = \"0-1\"\n{}", Family::BOTH.map(service).concat())
}

/// The answer to an echo request in the name of `from`.
fn reply(from: IpAddr, to: IpAddr, echo: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mut message = [&[129, 0, 0, 0], &echo[4..]].concat();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let pseudo = [&a.octets()[..], &b.octets(), &length, &[0, 0, 0, ICMP6]].concat();
            let sum = checksum(&[pseudo, message.clone()].concat());
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ip(from, to, ICMP6, &message)
        }
        _ => ip(from, to, ICMP, &icmp(0, 0, echo[4..8].try_into().unwrap(), &echo[8..])),
    }
}

/// Who has sent a packet, and its ICMP message, if it is an echo request.
fn request(packet: &[u8]) -> Option<(Family, IpAddr, &[u8])> {
    if packet.len() < 28 {
        return None;
    }
    let (at, protocol) = upper(packet);
    let (family, from) = match packet[0] >> 4 {
        4 => (Family::V4, IpAddr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap())),
        6 => (Family::V6, IpAddr::from(<[u8; 16]>::try_from(packet.get(8..24)?).ok()?)),
        _ => return None,
    };
    let end = match family {
        Family::V4 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        Family::V6 => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
    };
    let message = packet.get(at..end)?;
    let is_request = matches!((protocol, message.first()), (ICMP, Some(8)) | (ICMP6, Some(128)));
    is_request.then_some((family, from, message))
}

/// Answers every look for nodes from b3 while `act` runs, in all names. Checks ask nobody but who is there.
fn answering<T>(lab: &Lab, act: impl FnOnce() -> T) -> T {
    let (socket, sender) = (lab.within("b3", open), Sender::to_balancer(lab, "b3", "eth1"));
    let over = AtomicBool::new(false);
    let answer = || {
        let mut frame = vec![0; 4096];
        while !over.load(Ordering::Relaxed) {
            let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
            let Some((family, from, echo)) = frame.get(HEADER..length).and_then(request) else { continue };
            let names = PHANTOMS.map(|n| sender.frame(&reply(family.backend(n), from, echo)));
            sender.send_all(&names.collect::<Vec<_>>());
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(answer);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Forty new clients of a family: who was not served, and by whom the others were.
fn clients(lab: &Lab, family: Family) -> (Vec<String>, Vec<String>) {
    lab.within("client", || {
        std::thread::scope(|scope| {
            let one = |n: u16| {
                let client = family.client(n);
                get(client, family.vip(), 80)
                    .map(|answer| backend_of(&answer, client))
                    .map_err(|error| format!("{client}: {error}"))
            };
            let threads: Vec<_> = (10..50).map(|n| scope.spawn(move || one(n))).collect();
            let results = threads.into_iter().map(|thread| thread.join().unwrap());
            let (served, failed): (Vec<_>, Vec<_>) = results.partition(Result::is_ok);
            (failed.into_iter().filter_map(Result::err).collect(), served.into_iter().filter_map(Result::ok).collect())
        })
    })
}

/// With nodes found: all clients are served by who is there, and the services stand as they would without.
fn serves(lab: &Lab, loaded: &Loaded, state: &str) {
    let seen = Family::BOTH.map(|family| {
        let (failed, served) = clients(lab, family);
        let stands = loaded.status()["services"][usize::from(family == Family::V6)]["state"].clone();
        println!("{family:?}: {} served, {} not; {stands}", served.len(), failed.len());
        (failed, served, stands)
    });
    for (failed, served, stands) in seen {
        assert!(failed.is_empty(), "{} of 40 not served: {failed:?}", failed.len());
        assert!(served.iter().all(|name| name == "b1" || name == "b2"), "{served:?}");
        assert_eq!(stands, state);
    }
}

/// How many nodes the history says were found, and how many backends there are.
fn found(loaded: &Loaded) -> (usize, usize) {
    let history = loaded.json(&["history", "-n", "1000"]);
    let found = history.as_array().unwrap().iter().filter(|event| event["what"] == "discovered").count();
    let status = loaded.status();
    let services = status["services"].as_array().unwrap();
    (found, services.iter().map(|service| service["backends"].as_array().unwrap().len()).sum())
}

/// Waits until the phantoms were found, and looked at more than once.
#[track_caller]
fn taken_in(loaded: &Loaded) {
    // The next change for nodes that were found comes within five seconds; that they become backends is no promise.
    eventually(Duration::from_secs(9), || found(loaded).1 >= 2 * LIMIT);
    let (found, backends) = found(loaded);
    println!("{found} nodes found, {backends} backends");
    assert!(found >= 2 * LIMIT, "only {found} were found: the attack did not happen\n{}", loaded.log());
    std::thread::sleep(Duration::from_millis(1500));
}

#[test]
fn nodes_that_nobody_ever_reached_cause_no_panic_and_get_no_client() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(50));
    answering(&lab, || {
        taken_in(&loaded);
        serves(&lab, &loaded, "ok");
    });
    loaded.stop();
}

/// Also where there is reason to doubt the checks: the one that is up and the one that is down are what is left.
#[test]
fn a_panic_goes_to_backends_that_have_been_there() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(60));
    answering(&lab, || {
        taken_in(&loaded);
        // Its checks fail, its clients do not: that is what a panic is for.
        let rule = "table inet no { chain in { type filter hook input priority 0; ip saddr 198.51.100.254 tcp dport 80 drop; ip6 saddr 2001:db8:2::fe tcp dport 80 drop; }; }";
        lab.sh("b2", &format!("nft '{rule}'"));
        let down = || Family::BOTH.iter().all(|f| loaded.backend(&format!("{f:?}"), f.backend(2))["state"] == "down");
        assert!(eventually(Duration::from_secs(8), down), "{}", loaded.status());
        std::thread::sleep(Duration::from_millis(200));
        serves(&lab, &loaded, "panic");
    });
    loaded.stop();
}
