//! Direct server return: backends get clients' packets unchanged and answer past the balancer.

mod checks;
mod routes;

use crate::rig::config::{FREE, STICKY, Service, config};
use crate::rig::direct_return::{passed, routes, up};
use crate::rig::lab::{BACKENDS, Lab, bounded};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, backend_of, dial, dial_from, get};
use crate::rig::requests::{places, sum_of, url};
use crate::rig::wire::capture;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const ALL: &[(u16, u16)] = &[(1, 1), (2, 1), (3, 1)];
const SOME: &[(u16, u16)] = &[(1, 1), (2, 1)];

fn text(affinity: &str, more: &str, backends: &[(u16, u16)]) -> String {
    let keys = format!("mode = \"dsr\"\n{affinity}\n{more}");
    let web = Service { keys: &keys, ports: "80, 9000", backends, ..Service::default() };
    let udp = Service { name: "udp", protocol: "udp", ports: "7009", keys: "mode = \"dsr\"", backends, ..web.clone() };
    format!("unserved = \"drop\"\n{}", config("2s", &[web, udp]))
}

/// Source and destination of a packet.
fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
    let v6 = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
    match packet.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}

#[test]
fn requests_reach_every_backend_and_answers_pass_the_balancer_by() {
    let Some(lab) = up() else { return };
    let before = routes(&lab);
    let loaded = Loaded::toml(&lab, &text(STICKY, "", ALL));
    for family in Family::BOTH {
        let (seen, packets) = capture(&lab, "lb", || {
            let places = places(&lab, family, 3);
            lab.within("client", || {
                for &client in places.keys() {
                    let answer = ask(client, SocketAddr::new(family.vip(), 7009), "hello").unwrap();
                    assert!(BACKENDS.contains(&backend_of(&answer, client).as_str()), "{answer}");
                }
            });
            places.into_values().collect::<BTreeSet<_>>()
        });
        assert_eq!(seen, BACKENDS.map(str::to_owned).into(), "{family:?}");
        let vip = family.vip();
        let all: Vec<_> = packets.iter().filter_map(|packet| ends(packet)).collect();
        let requests = all.iter().filter(|(_, to)| *to == vip).count();
        assert!(requests > 600, "{family:?}: {requests} packets to the VIP");
        let answers = all.iter().filter(|(from, _)| *from == vip).count();
        assert_eq!(answers, 0, "{family:?}: answers pass the balancer");
        // Nothing of theirs comes by under another name, either.
        let backends: Vec<_> = (1..=3).map(|n| family.backend(n)).collect();
        let clients = |address: &IpAddr| (10..40).any(|n| family.client(n) == *address);
        let theirs = all.iter().filter(|(from, to)| backends.contains(from) && clients(to)).count();
        assert_eq!(theirs, 0, "{family:?}");
    }
    for worker in loaded.counters() {
        assert_eq!(worker.received, worker.outcomes(), "{worker:?}");
        assert_eq!(worker.of("returned"), 0, "{worker:?}");
    }
    assert_eq!(lab.waiting(), 0);
    loaded.stop();
    assert_eq!(routes(&lab), before, "routing rules stay after the end");
}

/// Clients go where `loaded explain` says they would.
#[test]
fn what_is_explained_is_what_happens() {
    let Some(lab) = up() else { return };
    let loaded = Loaded::toml(&lab, &text(FREE, "", ALL));
    for family in Family::BOTH {
        let mut seen = BTreeSet::new();
        for port in 20_000..20_009 {
            let (from, to) = (SocketAddr::new(family.client(20), port), SocketAddr::new(family.vip(), 80));
            let words = ["explain".to_owned(), "tcp".to_owned(), from.to_string(), to.to_string()];
            let said = loaded.ask(&words.each_ref().map(String::as_str));
            assert_eq!(said.code, Some(0), "{}", said.err);
            let name = lab.within("client", || {
                let mut stream = dial_from(from, to).unwrap();
                write!(stream, "GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                backend_of(answer.split_once("\r\n\r\n").unwrap().1, from.ip())
            });
            let place = BACKENDS.iter().position(|backend| *backend == name).unwrap();
            let backend = family.backend(u16::try_from(place).unwrap() + 1);
            let line = said.out.lines().nth(2).unwrap_or_default();
            assert!(
                line.starts_with(&format!("forwarded_new: begins a flow to {backend} by mark 0x")),
                "{backend}: {line}"
            );
            seen.insert(name);
        }
        assert_eq!(seen.len(), 3, "{family:?}: {seen:?}");
    }
    loaded.stop();
}

/// A large download, of which the balancer sees only the acknowledgements.
#[test]
fn bulk_goes_one_way_and_arrives_whole() {
    const BYTES: u64 = 256 << 20;
    let Some(lab) = up() else { return };
    let loaded = Loaded::toml(&lab, &text(STICKY, "", ALL));
    for family in Family::BOTH {
        let expected = sum_of(&lab, BYTES);
        let url = url(family.vip(), 80, "big");
        let before = passed(&lab);
        let curl = format!("curl -gsSf --max-time 60 -r 0-{} '{url}' | sha256sum", BYTES - 1);
        assert_eq!(lab.sh("client", &curl), expected, "{family:?}");
        let passed = passed(&lab) - before;
        println!("{family:?}: {BYTES} bytes down, {passed} bytes passed the balancer, in and out");
        assert!(passed < BYTES / 20, "{family:?}: {passed} bytes passed the balancer");
    }
    assert_eq!(loaded.count("returned"), 0);
    loaded.stop();
}

/// Accepts one connection on port 9000, reads it to its end, and answers with its length and checksum.
fn sink(lab: &Lab, who: &str) -> std::thread::JoinHandle<Option<u64>> {
    let listener = lab.within(who, || TcpListener::bind("[::]:9000").unwrap());
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(30);
        let mut stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if Instant::now() > end => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (mut buffer, mut length, mut sum) = (vec![0; 1 << 16], 0, 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                n => {
                    (length, sum) = (length + n as u64, summed(sum, &buffer[..n]));
                }
            }
        }
        stream.write_all(&sum.to_be_bytes()).unwrap();
        Some(length)
    })
}

/// FNV-1a.
fn summed(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn an_upload_arrives_whole() {
    const CHUNKS: usize = 500;
    let Some(lab) = up() else { return };
    let loaded = Loaded::toml(&lab, &text(STICKY, "", &[(1, 1)]));
    let chunk: Vec<u8> = (0..100_003_u32).map(|n| n.to_le_bytes()[0] ^ (n >> 8).to_le_bytes()[0]).collect();
    for family in Family::BOTH {
        let sink = sink(&lab, "b1");
        let (sent, got) = lab.within("client", || {
            let mut stream = dial(family.client(20), SocketAddr::new(family.vip(), 9000)).unwrap();
            let mut sum = 0;
            for _ in 0..CHUNKS {
                stream.write_all(&chunk).unwrap();
                sum = summed(sum, &chunk);
            }
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = [0; 8];
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.read_exact(&mut answer).unwrap();
            (sum, u64::from_be_bytes(answer))
        });
        assert_eq!(sink.join().unwrap(), Some((CHUNKS * chunk.len()) as u64), "{family:?}");
        assert_eq!(sent, got, "{family:?}");
    }
    loaded.stop();
}

/// The backends that answer many connections.
fn answering(lab: &Lab, family: Family) -> BTreeSet<String> {
    lab.within("client", || {
        let answers = (0..24).map(|n| (family.client(10 + n % 30), get(family.client(10 + n % 30), family.vip(), 80)));
        answers.map(|(client, answer)| backend_of(&answer.unwrap(), client)).collect()
    })
}

/// Clients, balancer and backends on one link, where only the balancer may answer ARP and ND for the VIP.
#[test]
fn on_one_link_the_balancer_alone_answers_for_the_vip() {
    let Some(lab) = up() else { return };
    let vips = [(Family::V4, 190), (Family::V6, 190)].map(|(family, n)| (family, family.backend(n - 10)));
    for who in BACKENDS {
        for (_, vip) in vips {
            lab.sh(who, &format!("ip address add {vip} dev lo {}", if vip.is_ipv6() { "nodad" } else { "" }));
        }
    }
    lab.sh(
        "lb",
        "ip route add 198.51.100.190 dev lo; ip neigh add proxy 198.51.100.190 dev eth1
         sysctl -qw net.ipv6.conf.eth1.proxy_ndp=1; ip -6 neigh add proxy 2001:db8:2::190 dev eth1
         sysctl -qw net.ipv4.conf.eth1.send_redirects=0",
    );
    let config =
        text(FREE, "", ALL).replace("192.0.2.100", "198.51.100.190").replace("2001:db8:1::100", "2001:db8:2::190");
    let loaded = Loaded::toml(&lab, &config);
    for (family, vip) in vips {
        let client = family.backend(0).to_string().replace("198.51.100.10", "198.51.100.1").replace("::10", "::1");
        let client: IpAddr = client.parse().unwrap();
        let (seen, packets) = capture(&lab, "lb", || {
            lab.within("client", || {
                (0..24).map(|_| backend_of(&get(client, vip, 80).unwrap(), client)).collect::<BTreeSet<_>>()
            })
        });
        assert_eq!(seen, BACKENDS.map(str::to_owned).into(), "{family:?}");
        let answers = packets.iter().filter_map(|packet| ends(packet)).filter(|(from, _)| *from == vip).count();
        assert_eq!(answers, 0, "{family:?}");
    }
    let doctor = || {
        let binary = crate::rig::lab::binary();
        lab.sh("lb", "ip neigh flush all");
        lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &lab.file("loaded.toml", &config)]).out
    };
    assert!(doctor().contains("ok       dsr        no host"), "{}", doctor());
    lab.sh("b1", "sysctl -qw net.ipv4.conf.all.arp_ignore=0");
    let said = doctor();
    assert!(said.contains("answers ARP for 198.51.100.190") && said.contains("arp_ignore=1"), "{said}");
    loaded.stop();
}

/// A client behind a router with a small link. The router complains to the VIP, so to the balancer, and the backend whose
/// packet it was must hear of it.
#[test]
fn a_small_link_on_the_way_to_the_client_is_found() {
    let Some(lab) = up() else { return };
    // `scripts/lab down` takes it for a backend's.
    let far = lab.namespace("b9");
    assert!(bounded(&["ip", "netns", "add", &far]).status().unwrap().success());
    lab.sh(
        "client",
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip link add eth2 mtu 1300 type veth peer name eth0 mtu 1500 netns {far}
            ip link set eth2 up; ip addr add 203.0.113.1/24 dev eth2; ip addr add 2001:db8:3::1/64 dev eth2 nodad
            ip -n {far} link set lo up; ip -n {far} link set eth0 up
            ip -n {far} addr add 203.0.113.2/24 dev eth0; ip -n {far} addr add 2001:db8:3::2/64 dev eth0 nodad
            ip -n {far} route add default via 203.0.113.1; ip -n {far} route add default via 2001:db8:3::1"
        ),
    );
    let loaded = Loaded::toml(&lab, &text(FREE, "", ALL));
    for family in Family::BOTH {
        let url = url(family.vip(), 80, "1m");
        let curl = ["curl", "-gsS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url];
        let said = lab.exec("b9", &curl);
        assert_eq!(said.out, "200 1048576", "{family:?}: {}", said.err);
    }
    assert!(
        loaded.count("error_forwarded") >= 2,
        "nobody had to say that a packet is too big: {:?}",
        loaded.counters()
    );
    loaded.stop();
}
