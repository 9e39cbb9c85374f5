//! Servers that are ill in one way or another are judged right, and the cause is said.

use crate::lab::{Lab, eventually};
use crate::loaded::Loaded;
use crate::net::Family;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PORT: u16 = 8090;

/// How a server answers.
#[derive(Clone, Copy)]
enum Ways {
    /// Nobody listens.
    Absent,
    /// Accepts and says nothing.
    Mute,
    /// Answers after more than the timeout.
    Late,
    Status(u16),
    /// Good for 250 ms, bad for 250 ms.
    Flaps,
}

/// Serves both families in a backend's namespace until `over`.
fn serve(lab: &Lab, who: &str, ways: Ways, over: &AtomicBool) {
    lab.within(who, || {
        if matches!(ways, Ways::Absent) {
            return;
        }
        let listener = TcpListener::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), PORT)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let begin = Instant::now();
        let mut held = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            let good = begin.elapsed().as_millis() % 500 < 250;
            match ways {
                Ways::Absent | Ways::Mute => held.push(stream),
                Ways::Late => {
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(450));
                        answer(stream, 200);
                    });
                }
                Ways::Status(status) => answer(stream, status),
                Ways::Flaps => answer(stream, if good { 200 } else { 503 }),
            }
        }
    });
}

fn answer(mut stream: TcpStream, status: u16) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let _ = stream.read(&mut [0; 512]);
    let _ = write!(stream, "HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn web(rise: u8, fall: u8) -> String {
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n))))
        .collect();
    format!(
        "[[service]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\nports = [80]\n\
         check = {{ kind = \"http\", port = {PORT}, interval = \"300ms\", timeout = \"300ms\", jitter = 0, rise = {rise}, \
         fall = {fall} }}\n{backends}",
        Family::V4.vip(),
        Family::V6.vip()
    )
}

#[track_caller]
fn judged(lab: &Lab, ways: [(Ways, bool, &str); 3]) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (who, (ways, ..)) in ["b1", "b2", "b3"].into_iter().zip(ways) {
            let over = &over;
            scope.spawn(move || serve(lab, who, ways, over));
        }
        std::thread::sleep(Duration::from_millis(200));
        let loaded = Loaded::toml(lab, &web(2, 2));
        let wrong = || {
            Family::BOTH.iter().flat_map(|f| (1..=3).map(move |n| f.backend(n))).zip(ways.iter().cycle()).find_map(
                |(address, (_, up, cause))| {
                    let backend = loaded.backend("web", address);
                    let right = backend["state"] == if *up { "up" } else { "down" } && backend["cause"] == *cause;
                    (!right).then_some(backend)
                },
            )
        };
        let right = eventually(Duration::from_secs(3), || wrong().is_none());
        let said = wrong();
        over.store(true, Ordering::Relaxed);
        assert!(right, "{said:?}");
        loaded.stop();
    });
}

#[test]
fn each_illness_has_its_name() {
    let Some(lab) = Lab::up() else { return };
    judged(
        &lab,
        [
            // It answers pings, and nginx is on another port.
            (Ways::Absent, false, "connection refused"),
            (Ways::Mute, false, "no answer in time"),
            (Ways::Status(200), true, "check passed"),
        ],
    );
    judged(
        &lab,
        [
            (Ways::Late, false, "no answer in time"),
            (Ways::Status(503), false, "HTTP status 503"),
            (Ways::Status(302), true, "check passed"),
        ],
    );
}

/// Twice a second good and bad, looked at every 300 ms: never three alike in a row, so it stays what it is.
#[test]
fn who_flaps_changes_nothing() {
    let Some(lab) = Lab::up() else { return };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for who in ["b1", "b2", "b3"] {
            let (lab, over) = (&lab, &over);
            scope.spawn(move || serve(lab, who, Ways::Flaps, over));
        }
        let loaded = Loaded::toml(&lab, &web(4, 4));
        std::thread::sleep(Duration::from_secs(6));
        let history = loaded.json(&["history"]);
        over.store(true, Ordering::Relaxed);
        // The first result decides alone; after that nothing may.
        let of = |address: IpAddr| {
            history.as_array().unwrap().iter().filter(|event| event["address"] == address.to_string()).count()
        };
        for address in Family::BOTH.iter().flat_map(|family| (1..=3).map(|n| family.backend(n))) {
            assert!(of(address) <= 1, "{address}: {history}");
        }
        loaded.stop();
    });
}
