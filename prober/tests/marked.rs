//! Backends that answer clients directly: checked at a virtual IP, each through the socket made for it.

mod rig;

use loaded_ipc::{BackendIndex, Cause, Check, CheckKind, FromProber, Pinger, ToProber};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use rig::{Rig, SLOTS, check, http, in_network, server};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

/// Where nobody listens, and where somebody does.
const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const OK: &[&str] = &["HTTP/1.1 200 OK\r\n\r\n"];

fn unconnected(kind: SockType) -> OwnedFd {
    socket(AddressFamily::Inet, kind, SockFlag::SOCK_NONBLOCK, None).expect("socket")
}

/// Answers datagrams with themselves.
fn echo(port: u16) -> u16 {
    let echo = UdpSocket::bind(SocketAddr::new(VIP, port)).expect("bind");
    let port = echo.local_addr().expect("address").port();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = echo.recv_from(&mut bytes) {
            echo.send_to(&bytes[..length], from).expect("answer");
        }
    });
    port
}

fn at_vip(kinds: Vec<CheckKind>) -> (Vec<ToProber>, Vec<OwnedFd>) {
    let sockets = kinds.iter().map(|kind| {
        unconnected(if matches!(kind, CheckKind::Udp { .. }) { SockType::Datagram } else { SockType::Stream })
    });
    let sockets = sockets.collect();
    let numbered = || (0..).zip(&kinds);
    let checks = numbered().map(|(index, kind)| {
        let check = Check { rise: 2, fall: 2, ..check(kind.clone()) };
        ToProber::Check { index, check }
    });
    let target = |(index, _)| {
        let (backend, check, vip) = (BackendIndex(index), index, Some(VIP));
        ToProber::Target { backend, address: OWN, check, port: None, up: false, proven: true, vip }
    };
    (checks.chain(numbered().map(target)).collect(), sockets)
}

#[test]
fn a_socket_serves_one_check_after_the_other() {
    in_network(|| {
        let port = echo(0);
        let kinds = vec![
            CheckKind::Tcp { port: server::silent(VIP) },
            http(server::answering(VIP, OK, Duration::ZERO)),
            CheckKind::IcmpTcp { port: server::silent(VIP) },
            CheckKind::Udp { port, send: b"ping".to_vec(), expect: b"ping".to_vec() },
        ];
        let count = kinds.len();
        let (items, sockets) = at_vip(kinds);
        let rig = Rig::start_with(items, 1, Pinger::Ping, sockets, SLOTS);
        // Coming up takes two checks, so two through the same socket; and nothing goes wrong for many more.
        assert!(rig.first_changes(count).iter().all(|(up, cause, _)| *up && *cause == Cause::Passed));
        let later = rig.listen(Duration::from_secs(2));
        let change = later.iter().find(|(_, message)| matches!(message, FromProber::Changed { .. }));
        assert_eq!(change.map(|(_, message)| message), None);
        rig.stop();
    });
}

#[test]
fn after_failures_of_every_kind_a_socket_can_connect_again() {
    in_network(|| {
        let open = TcpListener::bind(SocketAddr::new(VIP, 0)).expect("bind");
        let port = open.local_addr().expect("address").port();
        let (full, silent) = (server::full(VIP), server::closed(VIP));
        let (items, sockets) = at_vip(vec![
            CheckKind::Tcp { port },
            CheckKind::Tcp { port: full },
            http(server::resetting(VIP)),
            CheckKind::Udp { port: silent, send: b"ping".to_vec(), expect: b"ping".to_vec() },
        ]);
        let rig = Rig::start_with(items, 1, Pinger::None, sockets, SLOTS);
        let changed = |index: u16, wanted: bool| {
            rig.hear(Duration::from_secs(5), |message| match message {
                FromProber::Changed { backend: BackendIndex(number), up, cause, .. } => {
                    assert_eq!(number, index, "{cause:?}");
                    up == wanted
                }
                _ => false,
            });
        };
        changed(0, true);
        drop(open);
        changed(0, false);
        let _open = TcpListener::bind(SocketAddr::new(VIP, port)).expect("bind");
        changed(0, true);
        echo(silent);
        changed(3, true);
        rig.stop();
    });
}
