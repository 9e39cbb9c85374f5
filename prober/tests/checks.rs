//! Every check against real backends, good and bad, in both families.

mod rig;

use loaded_ipc::{Cause, Check, CheckKind, FromProber, Pinger};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv, sendto, socket,
};
use rig::{BOTH, Rig, check, each, http, in_network, server, sysctl};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

const NOW: Duration = Duration::ZERO;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// Checks the first results of backends of which nothing is known.
fn expect(cases: Vec<(&'static str, IpAddr, CheckKind, Cause)>) {
    let targets = cases.iter().map(|(_, address, kind, _)| (*address, check(kind.clone()))).collect();
    let rig = Rig::start(each(targets), 1, Pinger::Ping);
    for ((name, address, _, wanted), (up, cause, latency)) in cases.iter().zip(rig.first_changes(cases.len())) {
        assert_eq!((cause, up), (*wanted, *wanted == Cause::Passed), "{name} at {address}");
        assert!(latency <= 300_000, "{name} at {address}: {latency}");
    }
    rig.stop();
}

#[test]
fn connections() {
    in_network(|| {
        let mut cases = Vec::new();
        for address in BOTH.map(|text| text.parse().expect("address")) {
            cases.push(("accepts", address, CheckKind::Tcp { port: server::silent(address) }, Cause::Passed));
            cases.push(("refuses", address, CheckKind::Tcp { port: server::closed(address) }, Cause::Refused));
            cases.push(("full", address, CheckKind::Tcp { port: server::full(address) }, Cause::ConnectTimeout));
            cases.push(("full", address, http(server::full(address)), Cause::ConnectTimeout));
        }
        for address in ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().expect("address")) {
            cases.push(("no route", address, CheckKind::Tcp { port: 80 }, Cause::Unreachable));
            cases.push(("no route", address, CheckKind::Icmp, Cause::Unreachable));
            let udp = CheckKind::Udp { port: 80, send: Vec::new(), expect: Vec::new() };
            cases.push(("no route", address, udp, Cause::Unreachable));
        }
        expect(cases);
    });
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const GO_ON: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[test]
fn http_answers() {
    in_network(|| {
        let mut cases = Vec::new();
        for address in BOTH.map(|text| text.parse().expect("address")) {
            let answers: [(&str, &'static [&'static str], Duration, Cause); 12] = [
                ("200", &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], NOW, Cause::Passed),
                ("in pieces", &["HT", "TP/1.0 30", "2", "\r", "\n"], MS(20), Cause::Passed),
                ("early hints", &[HINTS, "HTTP/1.1 200 OK\r\n\r\n"], MS(20), Cause::Passed),
                (
                    "interim in pieces",
                    &["HTTP/1.1 1", "00 Continue\r\n", "\r\nHTTP", "/1.1 200 \n"],
                    MS(20),
                    Cause::Passed,
                ),
                ("many interim", &[GO_ON, HINTS, GO_ON, "HTTP/1.1 503 No\r\n\r\n"], NOW, Cause::Status(503)),
                ("nothing but interim", &[HINTS, GO_ON], NOW, Cause::Closed),
                ("503", &["HTTP/1.1 503 Service Unavailable\r\n\r\n"], NOW, Cause::Status(503)),
                ("late", &["HTTP/1.1 200 OK\r\n\r\n"], MS(500), Cause::AnswerTimeout),
                ("half a line", &["HTTP/1.1 200"], NOW, Cause::Closed),
                ("closes", &[], NOW, Cause::Closed),
                ("no HTTP", &["SSH-2.0-OpenSSH_9.9\r\n"], NOW, Cause::WrongAnswer),
                ("drips", &["H", "T", "T", "P", "/", "1", ".", "1", " "], MS(60), Cause::AnswerTimeout),
            ];
            for (name, pieces, pause, cause) in answers {
                cases.push((name, address, http(server::answering(address, pieces, pause)), cause));
            }
            cases.push(("never answers", address, http(server::silent(address)), Cause::AnswerTimeout));
            cases.push(("resets", address, http(server::resetting(address)), Cause::Closed));
            cases.push(("refuses", address, http(server::closed(address)), Cause::Refused));
        }
        expect(cases);
    });
}

#[test]
fn datagrams() {
    in_network(|| {
        let udp = |port, expect: &str| CheckKind::Udp { port, send: b"ping".to_vec(), expect: expect.into() };
        let mut cases = Vec::new();
        for address in BOTH.map(|text| text.parse().expect("address")) {
            let echo = || server::udp(address, |question| vec![question.to_vec()]);
            let mixed = server::udp(address, |question| vec![b"noise".to_vec(), Vec::new(), question.to_vec()]);
            cases.push(("echo", address, udp(echo(), ""), Cause::Passed));
            cases.push(("echo", address, udp(echo(), "pin"), Cause::Passed));
            cases.push(("noise first", address, udp(mixed, "ping"), Cause::Passed));
            cases.push(("another answer", address, udp(echo(), "pong"), Cause::WrongAnswer));
            cases.push(("silent", address, udp(server::udp(address, |_| Vec::new()), ""), Cause::AnswerTimeout));
            cases.push(("closed", address, udp(server::closed(address), ""), Cause::Refused));
        }
        expect(cases);
    });
}

#[test]
fn dns_answers() {
    /// The question as its own answer, with these header bytes; `id` is added to the first byte.
    fn answer(question: &[u8], id: u8, flags: u8, codes: u8) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[0] = answer[0].wrapping_add(id);
        (answer[2], answer[3]) = (flags, codes);
        answer
    }
    in_network(|| {
        let mut cases = Vec::new();
        for address in BOTH.map(|text| text.parse().expect("address")) {
            let mut case = |name, answers: fn(&[u8]) -> Vec<Vec<u8>>, cause| {
                let port = server::udp(address, answers);
                cases.push((name, address, CheckKind::Dns { port, name: "www.a.example".into() }, cause));
            };
            case("good", |q| vec![answer(q, 0, 0x85, 0x80)], Cause::Passed);
            case("refuses", |q| vec![answer(q, 0, 0x85, 0x85)], Cause::Rcode(5));
            case("format error, header alone", |q| vec![answer(q, 0, 0x80, 1)[..12].to_vec()], Cause::Rcode(1));
            case("another id", |q| vec![answer(q, 1, 0x85, 0x80)], Cause::WrongAnswer);
            case(
                "another id, then the right one",
                |q| vec![answer(q, 1, 0x85, 0x83), answer(q, 0, 0x85, 0)],
                Cause::Passed,
            );
            case("echo", |q| vec![q.to_vec()], Cause::WrongAnswer);
            case("three bytes", |_| vec![vec![0xff; 3]], Cause::WrongAnswer);
            case("silent", |_| Vec::new(), Cause::AnswerTimeout);
        }
        expect(cases);
    });
}

#[test]
fn pings_and_what_follows_them() {
    for pinger in [Pinger::Ping, Pinger::Raw, Pinger::None] {
        in_network(move || {
            let mut targets = Vec::new();
            for address in BOTH.map(|text| text.parse::<IpAddr>().expect("address")) {
                targets.push((address, check(CheckKind::Icmp)));
                targets.push((address, check(CheckKind::IcmpTcp { port: server::silent(address) })));
                targets.push((address, check(CheckKind::IcmpTcp { port: server::closed(address) })));
                targets.push((address, check(CheckKind::IcmpTcp { port: server::full(address) })));
            }
            if pinger == Pinger::None {
                let rig = Rig::start(each(targets), 0, pinger);
                let mut measured = 0;
                rig.hear(Duration::from_secs(5), |message| match message {
                    loaded_ipc::FromProber::Measured { cause, .. } => {
                        assert_eq!(cause, Cause::NotMade);
                        measured += 1;
                        measured == 8
                    }
                    loaded_ipc::FromProber::Alive { .. } => false,
                    other => panic!("{other:?}"),
                });
                return rig.stop();
            }
            let causes = |targets: &Vec<(IpAddr, Check)>| -> Vec<Cause> {
                let rig = Rig::start(each(targets.clone()), 0, pinger);
                let changes = rig.first_changes(targets.len());
                rig.stop();
                changes.into_iter().map(|(_, cause, _)| cause).collect()
            };
            let each_family = [Cause::Passed, Cause::Passed, Cause::Refused, Cause::ConnectTimeout];
            assert_eq!(causes(&targets), [each_family, each_family].concat(), "{pinger:?}");
            sysctl("ipv4/icmp_echo_ignore_all", "1");
            sysctl("ipv6/icmp/echo_ignore_all", "1");
            assert_eq!(causes(&targets), [Cause::NoEcho; 8], "{pinger:?}");
        });
    }
}

/// Sees every echo request to 127.0.0.1 and answers it from `from`, with `change` applied to the token's last byte.
fn forger(from: [u8; 4], change: u8) {
    let raw = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).expect("raw");
    let (hears, speaks) = (raw(), raw());
    let address = |octets| SockaddrStorage::from(SocketAddr::new(IpAddr::from(octets), 0));
    bind(speaks.as_raw_fd(), &address(from)).expect("bind");
    thread::spawn(move || {
        let mut bytes = [0; 128];
        while let Ok(length) = recv(hears.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            // A packet's header on the loopback has no options.
            if let [8, _, _, _, rest @ ..] = &bytes[20..length] {
                let mut reply = [&[0, 0, 0, 0], rest].concat();
                *reply.last_mut().expect("token") ^= change;
                let sum: u32 = reply.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
                let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("one carry");
                reply[2..4].copy_from_slice(&sum.to_be_bytes());
                let _ = sendto(speaks.as_raw_fd(), &reply, &address([127, 0, 0, 1]), MsgFlags::empty());
            }
        }
    });
}

#[test]
fn a_reply_counts_by_its_token_and_its_sender() {
    for (from, change, cause) in
        [([127, 0, 0, 1], 0, Cause::Passed), ([127, 0, 0, 1], 1, Cause::NoEcho), ([127, 0, 0, 2], 0, Cause::NoEcho)]
    {
        in_network(move || {
            sysctl("ipv4/icmp_echo_ignore_all", "1");
            forger(from, change);
            for pinger in [Pinger::Ping, Pinger::Raw] {
                let rig = Rig::start(each(vec![([127, 0, 0, 1].into(), check(CheckKind::Icmp))]), 0, pinger);
                assert_eq!(rig.first_changes(1)[0].1, cause, "from {from:?}, changed by {change}, {pinger:?}");
                rig.stop();
            }
        });
    }
}

#[test]
fn latency_is_that_of_the_check() {
    in_network(|| {
        let address = IpAddr::from([127, 0, 0, 1]);
        let slow = server::answering(address, &["HTTP/1.1 200 OK\r\n\r\n"], MS(100));
        let targets = vec![(address, check(http(slow))), (address, check(http(server::silent(address))))];
        let rig = Rig::start(each(targets), 0, Pinger::None);
        let changes = rig.first_changes(2);
        assert!((100_000..250_000).contains(&changes[0].2), "{}", changes[0].2);
        assert_eq!(changes[1].2, 300_000);
        rig.stop();
    });
}

#[test]
fn a_checker_is_asked_in_the_backends_place() {
    in_network(|| {
        let local: IpAddr = "127.0.0.1".parse().expect("address");
        let checker = server::tcp(local, |mut stream| {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("a request");
            let request = std::str::from_utf8(&request[..length]).expect("text");
            assert!(request.starts_with("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n"), "{request}");
            let (_, backend) = request.split_once("\r\nLoaded-Backend: ").expect("a backend");
            let status = match backend {
                "192.0.2.1:443\r\n\r\n" | "[2001:db8::1]:443\r\n\r\n" => 200,
                _ => 503,
            };
            let _ = stream.write_all(format!("HTTP/1.1 {status} Found\r\n\r\n").as_bytes());
        });
        let via = |at: u16| match http(443) {
            CheckKind::Http { port, method, path, host, status, .. } => {
                CheckKind::Http { port, method, path, host, status, via: Some(SocketAddr::new(local, at)) }
            }
            other => other,
        };
        // None of these can be reached from here.
        let backend = |text: &str| text.parse::<IpAddr>().expect("address");
        expect(vec![
            ("well", backend("192.0.2.1"), via(checker), Cause::Passed),
            ("well", backend("2001:db8::1"), via(checker), Cause::Passed),
            ("ill", backend("192.0.2.2"), via(checker), Cause::Status(503)),
        ]);
        // Without a checker nothing is known, and nothing changes.
        let gone = [server::closed(local), server::answering(local, &[], NOW)].map(via);
        let targets = gone.into_iter().map(|kind| (backend("192.0.2.1"), check(kind))).collect();
        let rig = Rig::start(each(targets), 1, Pinger::Ping);
        let mut heard = Vec::new();
        while heard.len() < 2 {
            match rig.supervisor.receive() {
                Ok(FromProber::Measured { cause, .. }) => heard.push(cause),
                Ok(FromProber::Changed { cause, .. }) => panic!("changed: {cause}"),
                _ => thread::sleep(MS(5)),
            }
        }
        assert_eq!(heard, [Cause::NotMade, Cause::NotMade]);
        rig.stop();
    });
}
