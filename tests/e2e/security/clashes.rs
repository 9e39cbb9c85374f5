//! Connections from one port of a client to two VIPs that share backends. A backend could not tell the two apart, so they go
//! to two backends. Where no other is left the client is refused at once.

use crate::rig::config::{FREE, STICKY, Service, config};
use crate::rig::lab::{Lab, more_vips};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, dial_from};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// A refusal is at once, and no timeout.
const AT_ONCE: Duration = Duration::from_millis(500);
const CLIENT: u16 = 20;
/// A test that has seen so many connections fail has seen enough: each of them takes seconds.
const ENOUGH: usize = 4;
/// Connections of each VIP that are open at a time.
const TOGETHER: usize = 50;

/// Two services on VIPs of their own, with the same backends.
fn text(keys: &str, backends: &[(u16, u16)]) -> String {
    let services = [("one", 100), ("two", 101)].map(|(name, vip)| (name, [vip]));
    let tcp = services.each_ref().map(|(name, vips)| Service { name, vips, keys, backends, ..Service::default() });
    let names = ["one-udp", "two-udp"];
    let udp = [0, 1].map(|n| Service {
        name: names[n],
        vips: &services[n].1,
        protocol: "udp",
        ports: "7007",
        keys,
        backends,
    });
    format!("cores = \"0-1\"\n{}", config("60s", &[tcp, udp].concat()))
}

fn vips(family: Family) -> [SocketAddr; 2] {
    [100, 101].map(|n| SocketAddr::new(family.client(n), 80))
}

/// A request, after which the server ends the connection.
fn fetch(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// A connection from this port, within a moment; a SYN that is dropped is sent again after a second.
fn at_once(from: SocketAddr, to: SocketAddr) -> Result<TcpStream, String> {
    let began = Instant::now();
    let stream = dial_from(from, to).map_err(|error| format!("{from} {to}: {:?}", error.kind()))?;
    let time = began.elapsed();
    if time < AT_ONCE { Ok(stream) } else { Err(format!("{from} {to}: after {time:.1?}")) }
}

/// All of these ports at one VIP, then at the other, in another order; and both connections of each port work. What failed.
fn both(family: Family, ports: &[u16]) -> Vec<String> {
    let [one, two] = vips(family);
    let from = |port: &u16| SocketAddr::new(family.client(CLIENT), *port);
    let first = ports.iter().map(|port| at_once(from(port), one));
    let (first, mut failed): (Vec<_>, Vec<_>) = first.partition(Result::is_ok);
    let mut second = Vec::new();
    for port in ports.iter().rev() {
        match at_once(from(port), two) {
            Ok(stream) => second.push(Ok(stream)),
            Err(error) => failed.push(Err(error)),
        }
        if failed.len() >= ENOUGH {
            break;
        }
    }
    let mut failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    for mut stream in first.into_iter().chain(second).flatten() {
        failed.extend(fetch(&mut stream).err().map(|error| format!("{:?}: {error}", stream.local_addr())));
    }
    failed
}

/// Both connections work from all of these ports.
#[track_caller]
fn work(lab: &Lab, loaded: &Loaded, what: &str, ports: std::ops::Range<u16>) {
    let ports: Vec<_> = ports.collect();
    for family in Family::BOTH {
        let (began, before) = (Instant::now(), loaded.count("dropped_clash"));
        let mut failed = Vec::new();
        let mut chunks = ports.chunks(TOGETHER);
        while failed.len() < ENOUGH
            && let Some(ports) = chunks.next()
        {
            failed.extend(lab.within("client", || both(family, ports)));
        }
        let clashes = loaded.count("dropped_clash") - before;
        println!("{family:?}, {what}: {:.1?}, dropped_clash={clashes}, {failed:?}", began.elapsed());
        assert!(failed.is_empty() && clashes == 0, "{family:?}, {what}: dropped_clash={clashes}, {failed:?}");
    }
}

/// The client has a backend, the same at both services: for one of two connections that bends.
#[test]
fn a_client_with_a_backend_has_another_for_the_connection_that_would_clash() {
    paired(|lab| {
        more_vips(lab);
        let loaded = Loaded::toml(lab, &text(STICKY, &[(1, 1), (2, 1)]));
        work(lab, &loaded, "affinity", 30_000..30_050);
        loaded.stop();
    });
}

/// Five thousand connections of one client, half of them at each VIP, balanced by themselves.
#[test]
fn none_of_a_clients_many_connections_clashes() {
    paired(|lab| {
        more_vips(lab);
        let loaded = Loaded::toml(lab, &text(&format!("strategy = \"rr\"\n{FREE}"), &[(1, 1), (2, 1), (3, 1)]));
        work(lab, &loaded, "rr", 30_000..31_250);
        loaded.stop();
    });
}

#[test]
fn where_no_other_backend_is_left_the_client_is_refused_at_once() {
    paired(refuses);
}

fn refuses(lab: &Lab) {
    more_vips(lab);
    let loaded = Loaded::toml(lab, &text(STICKY, &[(1, 1)]));
    let mut wrong = Vec::new();
    for family in Family::BOTH {
        let (from, [one, two]) = (SocketAddr::new(family.client(CLIENT), 30_000), vips(family));
        let mut first = lab.within("client", || dial_from(from, one)).unwrap();
        let began = Instant::now();
        let second = lab.within("client", || dial_from(from, two)).map_err(|error| error.kind());
        let (time, refused) = (began.elapsed(), second.as_ref().err() == Some(&ErrorKind::ConnectionRefused));
        println!("{family:?}: TCP after {time:.1?}: {:?}", second.err());
        if !refused || time > AT_ONCE {
            wrong.push(format!("{family:?}, TCP: refused={refused} after {time:.1?}"));
        }
        fetch(&mut first).unwrap();
        let (time, refused) = datagram(lab, family);
        println!("{family:?}: UDP after {time:.1?}: refused={refused}");
        if !refused || time > AT_ONCE {
            wrong.push(format!("{family:?}, UDP: refused={refused} after {time:.1?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}; {:?}", loaded.counters());
    loaded.stop();
}

/// One socket asks at both VIPs: the first answers; when something comes of the second, and whether that is a refusal.
fn datagram(lab: &Lab, family: Family) -> (Duration, bool) {
    lab.within("client", || {
        let socket = UdpSocket::bind((family.client(CLIENT), 30_001)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut bytes = [0; 200];
        let mut ask = |n: u16| {
            socket.connect((family.client(n), 7007)).unwrap();
            socket.send(b"hello").unwrap();
            socket.recv(&mut bytes).map(drop).map_err(|error| error.kind())
        };
        assert_eq!(ask(100), Ok(()), "{family:?}");
        let began = Instant::now();
        let refused = ask(101) == Err(ErrorKind::ConnectionRefused);
        (began.elapsed(), refused)
    })
}
