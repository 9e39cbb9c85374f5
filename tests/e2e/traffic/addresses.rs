//! Who sees whose address, and which traffic the balancer leaves alone.

use crate::rig::lab::{BACKENDS, Lab};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, backend_of, get};
use crate::rig::requests::pings;
use crate::rig::wire::capture;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

/// Every kind of traffic between a client and the VIP, refused connections included.
fn talk(lab: &Lab, family: Family) {
    let (vip, clients) = (family.vip(), [10, 11, 12, 13, 14, 15].map(|n| family.client(n)));
    lab.within("client", || {
        for client in clients {
            backend_of(&get(client, vip, 80).unwrap(), client);
            backend_of(&ask(client, SocketAddr::new(vip, 7007), "hello").unwrap(), client);
            // The backend refuses; the client must be able to tell to which of its requests that belongs.
            let refused = get(client, vip, 9).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "TCP, closed port: {refused}");
            let refused = ask(client, SocketAddr::new(vip, 9), "hello").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "UDP, closed port: {refused}");
        }
    });
    for client in clients {
        pings(lab, "client", (client, vip), 2, 3000);
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Whether the headers of a packet, or of a packet that it quotes, hold this address.
fn names(packet: &[u8], address: IpAddr) -> bool {
    let wanted = octets(address);
    packet[..packet.len().min(160)].windows(wanted.len()).any(|window| window == wanted)
}

/// Whether this is an ICMP error from that address.
fn is_error_from(packet: &[u8], address: IpAddr) -> bool {
    let (source, protocol, kind) = match address {
        IpAddr::V4(_) => (12, 9, 20),
        IpAddr::V6(_) => (8, 6, 40),
    };
    let wanted = octets(address);
    packet.get(source..source + wanted.len()) == Some(&wanted[..])
        && matches!((packet[protocol], packet.get(kind)), (1, Some(3)) | (58, Some(1)))
}

#[test]
fn a_client_never_sees_a_backends_address() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        let ((), packets) = capture(&lab, "client", || talk(&lab, family));
        // That we would see them: requests, answers and six errors are there, under the VIP's name.
        assert!(packets.iter().filter(|packet| names(packet, family.vip())).count() > 100);
        assert!(packets.iter().filter(|packet| is_error_from(packet, family.vip())).count() >= 6, "ICMP errors");
        for backend in [1, 2, 3].map(|n| family.backend(n)) {
            let leak = packets.iter().find(|packet| names(packet, backend));
            assert!(leak.is_none(), "{backend} shows in {leak:02x?}");
        }
    }
    loaded.stop();
}

/// The same on the backends' side: there, and only there, packets have the backends' addresses.
#[test]
fn a_backend_sees_its_clients_own_addresses() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        let (answer, packets) =
            capture(&lab, "sw", || lab.within("client", || get(family.client(33), family.vip(), 80)).unwrap());
        let backend = backend_of(&answer, family.client(33));
        assert!(packets.iter().any(|packet| names(packet, family.client(33))), "the client's address on the switch");
        let line = format!("{} 80 / 200", family.client(33));
        for who in BACKENDS {
            let found = lab.access_log(who).contains(&line);
            assert_eq!(found, who == backend, "{who}'s access log, and {backend} has answered");
        }
    }
    loaded.stop();
}

/// The connection tracking entries of both families.
fn tracked(lab: &Lab) -> String {
    lab.sh("lb", "conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null")
}

#[test]
fn connections_that_a_backend_opens_are_its_own() {
    let Some(lab) = Lab::up() else { return };
    // A firewall that looks at connections turns conntrack on.
    for tool in ["iptables", "ip6tables"] {
        lab.sh("lb", &format!("{tool} -A FORWARD -m conntrack --ctstate INVALID -j DROP"));
    }
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        for n in 1..=3 {
            let (own, there) = (family.backend(n), family.client(1));
            let answer = lab.within(&format!("b{n}"), || get(own, there, 8080)).unwrap();
            assert_eq!(answer, format!("client {own}"), "the other side sees the backend itself");
            let entry = format!("src={own} dst={there}");
            let line = tracked(&lab).lines().find(|line| line.contains(&entry)).map(str::to_owned);
            let line = line.unwrap_or_else(|| panic!("{entry} is not tracked:\n{}", tracked(&lab)));
            assert!(line.contains("dport=8080") && line.contains("[ASSURED]"), "both ways are seen: {line}");
        }
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap();
        let vip = format!("dst={} ", family.vip());
        assert!(!tracked(&lab).contains(&vip), "balanced traffic is not tracked:\n{}", tracked(&lab));
    }
    assert!(loaded.count("passed_own") > 0, "they did not pass through a worker");
    loaded.stop();
}

#[test]
fn name_service_is_not_balanced() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        let server = SocketAddr::new(family.name_server(), 53);
        // A backend asks it; and so does the balancer with the VIP as its own address, whose answer goes to the VIP.
        for (who, address) in [("b1", family.backend(1)), ("lb", family.vip())] {
            let answer = lab.within(who, || ask(address, server, "what is the address")).unwrap();
            assert_eq!(answer, format!("ns {address} what is the address"));
        }
        // From another port of the same host it is a client like others.
        let client = family.name_server();
        let answer = lab.within("client", || ask(client, SocketAddr::new(family.vip(), 7007), "hello")).unwrap();
        assert!(BACKENDS.contains(&backend_of(&answer, client).as_str()));
    }
    let by_workers: u64 = loaded.counters().iter().map(|worker| worker.received).sum();
    let by_kernel = loaded.packets(&["kernel_forwarded", "kernel_returned"]);
    assert_eq!(by_workers + by_kernel, 4, "a request and an answer of each family, nothing else, were balanced");
    loaded.stop();
}
