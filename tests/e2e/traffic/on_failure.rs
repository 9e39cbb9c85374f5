//! The failure matrix: what becomes of packets that nobody decides about, with `drop` and with `pass`. Each case is one of
//! its cells (docs/guide.md, "When nobody decides").

use crate::rig::config::{FREE, Service, config};
use crate::rig::direct_return::up;
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, lives, signal_to};
use crate::rig::net::{Family, backend_of, get};
use crate::rig::packet::{UDP, ip, seal};
use crate::rig::wire::{Sender, capture};
use nix::sys::signal::Signal;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// Port of the echo that each backend has on the VIP.
const ECHO: u16 = 7009;
const WAYS: [&str; 2] = ["drop", "pass"];

/// Backend 2 serves; the operator's route for what passes leads to backend 1.
fn text(failures: &str) -> String {
    let service = Service {
        protocol: "udp",
        ports: "7009",
        keys: &format!("mode = \"dsr\"\n{FREE}"),
        backends: &[(2, 1)],
        ..Service::default()
    };
    // A key of the top level after a table would be the table's.
    let text = config("2s", &[service]);
    let services = &text[text.find("[[service]]").unwrap()..];
    format!("cores = \"0\"\nunserved = \"drop\"\nqueue_len = 2\n[on_failure]\n{failures}\n{services}")
}

/// The DSR lab with a route for packets to a VIP that no worker has marked.
fn with_a_way_out() -> Option<Lab> {
    let lab = up()?;
    lab.sh(
        "lb",
        "ip route replace 192.0.2.100 via 198.51.100.11; ip -6 route replace 2001:db8:1::100 via 2001:db8:2::11",
    );
    Some(lab)
}

/// A client's socket, connected to the VIP.
fn socket(lab: &Lab, family: Family, client: u16) -> UdpSocket {
    lab.within("client", || {
        let socket = UdpSocket::bind((family.client(client), 0)).unwrap();
        socket.connect((family.vip(), ECHO)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        socket
    })
}

/// The backend that answers, if any.
fn answers(socket: &UdpSocket) -> Option<String> {
    let mut bytes = [0; 200];
    let length = socket.recv(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
    Some(backend_of(&text, socket.local_addr().unwrap().ip()))
}

fn asked(lab: &Lab, family: Family, client: u16) -> Option<String> {
    let socket = socket(lab, family, client);
    socket.send(b"hello").unwrap();
    answers(&socket)
}

/// Kills the supervisor and its workers at once.
fn kill_all(loaded: &mut Loaded) {
    let workers = loaded.workers();
    loaded.signal(Signal::SIGKILL);
    for worker in &workers {
        if lives(*worker) {
            signal_to(*worker, Signal::SIGKILL);
        }
    }
    loaded.wait();
    assert!(eventually(Duration::from_secs(5), || workers.iter().all(|pid| !lives(*pid))));
}

#[test]
fn without_anybody_packets_pass_only_where_that_is_wanted() {
    let Some(lab) = with_a_way_out() else { return };
    for way in WAYS {
        let mut loaded = Loaded::toml(&lab, &text(&format!("no_worker = \"{way}\"")));
        for family in Family::BOTH {
            assert_eq!(asked(&lab, family, 20).as_deref(), Some("b2"), "{family:?}: balanced");
        }
        kill_all(&mut loaded);
        assert!(eventually(Duration::from_secs(5), || lab.queues().is_empty()), "{}", lab.queues());
        for family in Family::BOTH {
            let passed = (way == "pass").then_some("b1");
            assert_eq!(asked(&lab, family, 21).as_deref(), passed, "{family:?}, no_worker = {way}");
        }
    }
    // A reload changes it, and the next start takes the rules over.
    let loaded = Loaded::toml(&lab, &text("no_worker = \"pass\""));
    assert!(lab.rules().contains("bypass"));
    lab.file("loaded.toml", &text("no_worker = \"drop\""));
    let (done, said) = loaded.reload();
    assert!(done && loaded.log().contains("on_failure.no_worker pass \u{2192} drop"), "{said}");
    assert!(!lab.rules().contains("bypass"), "{}", lab.rules());
    lab.file("loaded.toml", &text("no_worker = \"drop\"\nqueue_full = \"pass\""));
    let (done, said) = loaded.reload();
    assert!(!done && said.contains("on_failure.queue_full drop \u{2192} pass cannot change"), "{said}");
    loaded.stop();
}

/// The worker is stopped: two packets fill its queue, the next overflow it. It is killed after 1.5 s.
#[test]
fn what_a_full_queue_cannot_hold_passes_only_where_that_is_wanted() {
    const SENT: usize = 8;
    let Some(lab) = with_a_way_out() else { return };
    for way in WAYS {
        let loaded = Loaded::toml(&lab, &text(&format!("queue_full = \"{way}\"\nreceive_overrun = \"{way}\"")));
        for family in Family::BOTH {
            assert_eq!(asked(&lab, family, 20).as_deref(), Some("b2"), "{family:?}: balanced");
            let full = || loaded.status()["queues"][0]["dropped_full"].as_u64().unwrap();
            let (before, worker) = (full(), loaded.workers()[0]);
            let socket = socket(&lab, family, 21);
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            signal_to(worker, Signal::SIGSTOP);
            for _ in 0..SENT {
                socket.send(b"hello").unwrap();
            }
            let passed = std::iter::from_fn(|| answers(&socket)).collect::<Vec<_>>();
            signal_to(worker, Signal::SIGCONT);
            match way {
                "pass" => {
                    assert!(passed.len() == SENT - 2 && passed.iter().all(|who| who == "b1"), "{family:?}: {passed:?}");
                    assert_eq!(full(), before, "the kernel does not count what passes");
                }
                _ => {
                    assert!(passed.is_empty(), "{family:?}: {passed:?}");
                    assert_eq!(full() - before, u64::try_from(SENT - 2).unwrap(), "{family:?}");
                }
            }
            // What has waited is balanced after all.
            let end = Instant::now() + Duration::from_secs(5);
            let late: Vec<_> = std::iter::repeat_with(|| answers(&socket))
                .take_while(|_| Instant::now() < end)
                .flatten()
                .take(2)
                .collect();
            assert_eq!(late, ["b2", "b2"], "{family:?}");
        }
        loaded.stop();
    }
}

/// A datagram to the VIP whose UDP length exceeds its packet.
fn nonsense(family: Family) -> Vec<u8> {
    let udp = [&4000_u16.to_be_bytes()[..], &ECHO.to_be_bytes(), &900_u16.to_be_bytes(), &[0, 0], b"nonsense"].concat();
    let mut packet = ip(family.client(20), family.vip(), UDP, &udp);
    if family == Family::V4 {
        seal(&mut packet);
    }
    packet
}

#[test]
fn what_cannot_be_parsed_passes_only_where_that_is_wanted() {
    let Some(lab) = with_a_way_out() else { return };
    for way in WAYS {
        let loaded = Loaded::toml(&lab, &text(&format!("parse_error = \"{way}\"")));
        let sender = Sender::to_balancer(&lab, "client", "eth0");
        for family in Family::BOTH {
            let packet = nonsense(family);
            let label = if way == "pass" { "passed_malformed" } else { "dropped_malformed" };
            let before = loaded.count(label);
            let (counted, seen) = capture(&lab, "b1", || {
                // The way to backend 1 is known, so the packet does not wait for a neighbour.
                lab.sh("lb", "ping -c1 -W1 198.51.100.11; ping -c1 -W1 2001:db8:2::11");
                sender.send(&packet);
                assert!(eventually(Duration::from_secs(3), || loaded.count(label) > before), "{family:?}, {way}");
                std::thread::sleep(Duration::from_millis(100));
                loaded.count(label) - before
            });
            assert_eq!(counted, 1, "{family:?}");
            let passed = seen.iter().filter(|seen| seen.ends_with(b"nonsense")).count();
            assert_eq!(passed, usize::from(way == "pass"), "{family:?}, parse_error = {way}");
        }
        loaded.stop();
    }
}

/// Mode "nat" fails closed: the VIP is an address of this host, where a program listens.
#[test]
fn with_everything_dead_nothing_reaches_the_local_stack() {
    let Some(lab) = Lab::up() else { return };
    let service = Service { backends: &[(1, 1), (2, 1)], ..Service::default() };
    let mut loaded = Loaded::toml(&lab, &config("2s", &[service]));
    let reached = |family: Family| {
        let listener = lab.within("lb", || TcpListener::bind(SocketAddr::new(family.vip(), 80))).unwrap();
        listener.set_nonblocking(true).unwrap();
        let got = lab.within("client", || get(family.client(20), family.vip(), 80)).map_err(|error| error.kind());
        (listener.accept().is_ok(), got)
    };
    for family in Family::BOTH {
        let (reached, got) = reached(family);
        assert!(!reached && got.is_ok(), "{family:?}: {got:?}");
    }
    kill_all(&mut loaded);
    for family in Family::BOTH {
        let (reached, got) = reached(family);
        // Silence: neither a connection nor a reset. A connect that times out is still in progress.
        let silent =
            got.as_ref().is_err_and(|kind| !matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset));
        assert!(!reached && silent, "{family:?}: {got:?}");
    }
    lab.sh("lb", "iptables -t raw -F PREROUTING; ip6tables -t raw -F PREROUTING");
    for family in Family::BOTH {
        assert!(reached(family).0, "{family:?}: without the rules it does, so the test can fail");
    }
}
