//! A backend's host vanishes and answers nothing: its clients are told, and only its flows move.

use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::machine::timed;
use crate::rig::net::{ANSWER_TIMEOUT, Family, backend_of, dial};
use crate::rig::servers::{Mood, PORT, backends, becomes, datagrams, events, service, webs};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

/// Two failures, each of them at most 330 ms after the last check, the second one after a timeout.
const PACE: &str = "interval = \"300ms\", timeout = \"200ms\", rise = 2, fall = 2";
const DETECTED: Duration = Duration::from_millis(2 * 330 + 200);
/// What a busy machine may add to that.
const SLACK: Duration = Duration::from_millis(900);

/// Pulls a backend's cable, or plugs it in.
fn cable(lab: &Lab, who: &str, state: &str) {
    lab.sh("sw", &format!("ip link set {who} {state}"));
}

/// A request on a keep-alive connection.
fn ask(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let mut bytes = [0; 1024];
    let length = stream.read(&mut bytes)?;
    let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
    let body = answer.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?.1;
    Ok(body.split(' ').next().unwrap_or_default().to_owned())
}

/// Opens this many connections of one client to this backend.
fn connections(lab: &Lab, family: Family, name: &str, count: usize) -> Vec<TcpStream> {
    let open = || lab.within("client", || dial(family.client(20), SocketAddr::new(family.vip(), 80))).unwrap();
    let mut all = (0..60).map(|_| open());
    let found: Vec<_> =
        all.by_ref().filter_map(|mut s| (ask(&mut s).unwrap() == name).then_some(s)).take(count).collect();
    assert_eq!(found.len(), count, "connections to {name}");
    for stream in &found {
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    }
    found
}

fn web() -> String {
    let check = format!("check = {{ kind = \"tcp\", {PACE} }}");
    let keys = format!("strategy = \"rr\"\naffinity = \"none\"\n{check}");
    format!("cores = \"0-1\"\n{}{}", service("web", "tcp", 80, &keys), backends(&[1, 2, 3], ""))
}

/// Also a client whose request is in flight when the host vanishes.
#[test]
fn connections_of_a_host_that_is_gone_are_reset() {
    timed(|lab| {
        let loaded = Loaded::toml(lab, &web());
        (1..=3).for_each(|n| becomes(&loaded, "web", n, "up"));
        for family in Family::BOTH {
            let [mut idle, mut asking] = <[_; 2]>::try_from(connections(lab, family, "b1", 2)).unwrap();
            let mut other = connections(lab, family, "b2", 1);
            cable(lab, "b1", "down");
            let gone = Instant::now();
            let (error, time) = std::thread::scope(|scope| {
                let asks = scope.spawn(|| (ask(&mut asking), gone.elapsed()));
                becomes(&loaded, "web", 1, "down");
                let begin = Instant::now();
                let error = ask(&mut idle).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{family:?}: {error}");
                println!("{family:?}: reset {:?} after the next packet", begin.elapsed());
                assert!(begin.elapsed() < Duration::from_millis(300), "{:?}", begin.elapsed());
                asks.join().unwrap()
            });
            println!("{family:?}: who waited was reset {time:?} after the host went: {error:?}");
            assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset);
            // Its repetitions come after 0.2, 0.4, 0.8, 1.6 and 3.2 s and as long again.
            assert!(time < Duration::from_millis(3500), "{time:?}");
            assert_eq!(ask(&mut other[0]).unwrap(), "b2", "another backend's connection goes on");
            cable(lab, "b1", "up");
            becomes(&loaded, "web", 1, "up");
        }
        loaded.stop();
    });
}

/// Only the server is killed: the backend's kernel answers with resets.
#[test]
fn connections_of_a_killed_server_end_at_once() {
    timed(|lab| {
        let loaded = Loaded::toml(lab, &web());
        (1..=3).for_each(|n| becomes(&loaded, "web", n, "up"));
        let of = |name| Family::BOTH.into_iter().flat_map(|f| connections(lab, f, name, 2)).collect::<Vec<_>>();
        let (dead, others) = (of("b1"), of("b2"));
        lab.kill_web("b1");
        let begin = Instant::now();
        for mut stream in dead {
            let error = ask(&mut stream).unwrap_err();
            let ended = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
            assert!(ended.contains(&error.kind()), "{error}");
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        becomes(&loaded, "web", 1, "down");
        for mut stream in others {
            assert_eq!(ask(&mut stream).unwrap(), "b2");
        }
        loaded.stop();
    });
}

/// A datagram every 10 ms from one socket: who answered and when, refusals included, and when each was sent.
fn stream(socket: &UdpSocket, time: Duration) -> (Vec<(SystemTime, io::Result<String>)>, Vec<SystemTime>) {
    socket.set_nonblocking(true).unwrap();
    let (begin, mut seen, mut sent) = (Instant::now(), Vec::new(), Vec::new());
    let mut bytes = [0; 200];
    let mut next = begin;
    while begin.elapsed() < time {
        if Instant::now() >= next {
            next += Duration::from_millis(10);
            // A refusal is heard by whatever call comes next.
            match socket.send(b"hello") {
                Ok(_) => sent.push(SystemTime::now()),
                Err(error) => seen.push((SystemTime::now(), Err(error))),
            }
        }
        match socket.recv(&mut bytes) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                seen.push((SystemTime::now(), Ok(text.split(' ').next().unwrap_or_default().to_owned())));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => seen.push((SystemTime::now(), Err(error))),
        }
    }
    (seen, sent)
}

#[test]
fn constant_datagrams_do_not_stick_to_a_host_that_is_gone() {
    timed(|lab| {
        let check =
            |kind: &str| format!("affinity = {{ by = \"client\", prefix6 = 128 }}\ncheck = {{ {kind}, {PACE} }}");
        for (policy, kind) in [("reset", "kind = \"udp\", send = \"x\", expect = \"b\""), ("rehash", "kind = \"icmp\"")]
        {
            let keys = format!("on_backend_down = \"{policy}\"\n{}", check(kind));
            let text = service("echo", "udp", 7007, &keys) + &backends(&[1, 2, 3], "");
            let loaded = Loaded::toml(lab, &format!("cores = \"0-1\"\n{text}"));
            (1..=3).for_each(|n| becomes(&loaded, "echo", n, "up"));
            for family in Family::BOTH {
                let socket = datagrams(lab, family, 30, 7007);
                let home = crate::rig::servers::echo(&socket, ANSWER_TIMEOUT).unwrap();
                let n: u16 = home[1..].parse().unwrap();
                let (gone, (seen, sent)) = std::thread::scope(|scope| {
                    let running = scope.spawn(|| stream(&socket, Duration::from_millis(3000)));
                    std::thread::sleep(Duration::from_millis(500));
                    cable(lab, &home, "down");
                    (SystemTime::now(), running.join().unwrap())
                });
                let address = family.backend(n);
                let events = events(&loaded, "echo", gone);
                let down = events.iter().find(|(_, event)| *event == format!("{address} down")).map(|(at, _)| *at);
                let down = down.unwrap_or_else(|| panic!("{address} does not go down: {events:?}"));
                let since = |at: &SystemTime| at.duration_since(gone).ok();
                let other = |(at, answer): &(SystemTime, io::Result<String>)| {
                    answer.as_ref().ok().filter(|name| **name != home).and_then(|_| since(at))
                };
                let first = seen
                    .iter()
                    .find_map(other)
                    .unwrap_or_else(|| panic!("{policy}, {family:?}: datagrams still go to {home}"));
                let answers = seen.iter().filter_map(other).count();
                println!(
                    "{policy}, {family:?}: {home} found down after {down:?}, next answer after {first:?}, {answers} more"
                );
                assert!(seen.iter().any(|(at, _)| *at < gone), "no stream");
                assert!(down <= DETECTED + SLACK, "{down:?}");
                assert!(first <= down + Duration::from_millis(500), "{first:?}, and down was known after {down:?}");
                let rest = sent.iter().filter(|at| since(at).is_some_and(|at| at >= first)).count();
                assert!(rest > 100 && answers * 100 >= rest * 95, "{answers} answers to {rest} datagrams");
                // Under reset the client is told; under rehash it notices nothing but the silence before.
                let is_told = |answer: &io::Result<String>| {
                    answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
                };
                let told = seen.iter().filter(|(_, answer)| is_told(answer)).count();
                assert_eq!(told > 0, policy == "reset", "{told} datagrams refused");
                cable(lab, &home, "up");
                becomes(&loaded, "echo", n, "up");
            }
            loaded.stop();
        }
    });
}

/// Where the connection from this very port goes.
fn place(from: SocketAddr, to: SocketAddr) -> String {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let limit = TimeVal::milliseconds(i64::try_from(ANSWER_TIMEOUT.as_millis()).unwrap());
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    setsockopt(&fd, sockopt::SendTimeout, &limit).unwrap();
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).unwrap_or_else(|e| panic!("{from}: {e}"));
    let mut stream = TcpStream::from(fd);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    backend_of(answer.split_once("\r\n\r\n").unwrap().1, from.ip())
}

/// Without affinity the hash alone decides, so the same flows return with the backend.
#[test]
fn maglev_moves_only_flows_of_the_backend_that_goes() {
    let Some(lab) = Lab::up() else { return };
    let servers = webs(&lab);
    let check = format!("check = {{ kind = \"http\", port = {PORT}, {PACE} }}");
    let keys = format!("strategy = \"maglev\"\naffinity = \"none\"\n{check}");
    let text = service("web", "tcp", 80, &keys) + &backends(&[1, 2, 3], "");
    let loaded = Loaded::toml(&lab, &format!("cores = \"0-1\"\n{text}"));
    (1..=3).for_each(|n| becomes(&loaded, "web", n, "up"));
    let look = |family: Family| -> BTreeMap<SocketAddr, String> {
        let flows = (10..50).flat_map(|n| (0..5).map(move |port| SocketAddr::new(family.client(n), 30_000 + port)));
        lab.within("client", || flows.map(|from| (from, place(from, SocketAddr::new(family.vip(), 80)))).collect())
    };
    let before = Family::BOTH.map(look);
    servers[0].set(Mood::Says(503));
    becomes(&loaded, "web", 1, "down");
    let during = Family::BOTH.map(look);
    servers[0].set(Mood::Says(200));
    becomes(&loaded, "web", 1, "up");
    let after = Family::BOTH.map(look);
    for (((family, before), during), after) in Family::BOTH.into_iter().zip(before).zip(during).zip(after) {
        let of_b1 = before.values().filter(|place| *place == "b1").count();
        let moved = before.iter().filter(|(flow, place)| during[*flow] != **place).count();
        let all = before.len();
        println!("{family:?}: {moved} of {all} flows moved, {of_b1} were on b1");
        assert!(of_b1 > all / 5 && during.values().all(|place| place != "b1"));
        // The hash itself moves some others when one goes.
        assert!(moved <= of_b1 + all / 50, "{moved} of {all}");
        assert!(after == before, "all come back");
    }
    loaded.stop();
}
