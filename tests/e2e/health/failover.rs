//! A backend dies under load: it gets no new connection, its clients move, others notice nothing, and it comes back.

use crate::rig::lab::{BACKENDS, Lab, eventually, setting};
use crate::rig::loaded::Loaded;
use crate::rig::machine::{measured, timed};
use crate::rig::net::{Family, backend_of, get};
use crate::rig::requests::places;
use crate::rig::wire::capture_timed;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A check every second, two failures; and passive checks, which are the default.
fn web(more: &str) -> String {
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n))))
        .collect();
    format!(
        "[[service]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\nports = [80]\n{more}\n\
         check = {{ kind = \"http\", path = \"/small\", interval = \"1s\", timeout = \"500ms\", rise = 2, fall = 2 }}\n\
         {backends}",
        Family::V4.vip(),
        Family::V6.vip()
    )
}

/// An idle worker reads its link every 50 ms, so it may learn a little later what the supervisor knows.
const HEARD: Duration = Duration::from_millis(200);

/// One request: when it began, and its result.
type Fetch = (Instant, io::Result<String>);

/// Every client fetches again and again while `act` runs.
fn fetching<T>(lab: &Lab, clients: &[IpAddr], act: impl FnOnce() -> T) -> (T, BTreeMap<IpAddr, Vec<Fetch>>) {
    let over = AtomicBool::new(false);
    let vip = |client: IpAddr| if client.is_ipv4() { Family::V4.vip() } else { Family::V6.vip() };
    let fetch = |client: IpAddr| {
        lab.within("client", || {
            let mut fetches = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                fetches.push((begin, get(client, vip(client), 80).map(|answer| backend_of(&answer, client))));
                std::thread::sleep(Duration::from_millis(10));
            }
            fetches
        })
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients.iter().map(|&client| (client, scope.spawn(move || fetch(client)))).collect();
        let done = act();
        over.store(true, Ordering::Relaxed);
        (done, threads.into_iter().map(|(client, thread)| (client, thread.join().unwrap())).collect())
    })
}

/// Whether a packet opens a connection of a client to port 80.
fn is_opening(packet: &[u8]) -> bool {
    let (next, tcp, client) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (packet[9], usize::from(packet[0] & 15) * 4, packet[12..15] == [192, 0, 2]),
        Some(6) => (packet[6], 40, packet[8..14] == [0x20, 1, 0x0d, 0xb8, 0, 1]),
        _ => return false,
    };
    next == 6 && client && packet[tcp + 2..tcp + 4] == [0, 80] && packet[tcp + 13] & 0x12 == 0x02
}

/// Kills b1 under load; returns what clients saw, and when the last SYN reached b1, for IPv4 and IPv6.
fn kill(lab: &Lab, clients: &[IpAddr]) -> (Instant, BTreeMap<IpAddr, Vec<Fetch>>, [Duration; 2]) {
    let ((killed, fetches), packets) = capture_timed(lab, "b1", || {
        fetching(lab, clients, || {
            std::thread::sleep(Duration::from_secs(1));
            let killed = Instant::now();
            lab.kill_web("b1");
            std::thread::sleep(Duration::from_secs(3));
            killed
        })
    });
    let last = [4, 6].map(|version| {
        let is = |packet: &[u8]| is_opening(packet) && packet[0] >> 4 == version;
        let late = packets.iter().filter(|(at, packet)| *at > killed && is(packet));
        late.map(|(at, _)| at.duration_since(killed)).max().unwrap_or_default()
    });
    (killed, fetches, last)
}

fn clients() -> Vec<IpAddr> {
    Family::BOTH.iter().flat_map(|family| (10..22).map(|n| family.client(n))).collect()
}

#[test]
fn a_dead_backend_gets_no_new_connection_after_a_second() {
    measured(|lab| {
        let loaded = Loaded::toml(lab, &web("affinity = \"none\""));
        let mut last = [Vec::new(), Vec::new()];
        for _ in 0..setting("E2E_RUNS", 2) {
            let all_up = || Family::BOTH.iter().all(|family| loaded.backend("web", family.backend(1))["state"] == "up");
            assert!(eventually(Duration::from_secs(10), all_up), "b1 does not come up");
            std::thread::sleep(HEARD);
            let (killed, fetches, times) = kill(lab, &clients());
            for (list, time) in last.iter_mut().zip(times) {
                list.push(time);
            }
            for (client, (at, result)) in fetches.into_iter().flat_map(|(c, all)| all.into_iter().map(move |f| (c, f)))
            {
                let since = at.saturating_duration_since(killed);
                let served = result.is_ok() || (at <= killed || since < Duration::from_secs(1));
                assert!(served, "{client}: {since:?} after the death: {result:?}");
            }
            lab.start_web("b1");
        }
        for (family, mut times) in Family::BOTH.into_iter().zip(last) {
            times.sort_unstable();
            println!("{family:?}: last opening to the dead backend: {times:?}");
            assert!(times.iter().all(|time| *time < Duration::from_secs(1)), "{times:?}");
            assert!(times.iter().all(|time| *time > Duration::ZERO), "no SYN at all: there was no load");
        }
        loaded.stop();
    });
}

/// With affinity: clients of other backends see no error, its own see errors for less than a second.
#[test]
fn clients_of_other_backends_notice_nothing() {
    measured(|lab| {
        let loaded = Loaded::toml(lab, &web("affinity = { by = \"client\", prefix6 = 128 }"));
        let (killed, fetches, _) = kill(lab, &clients());
        let mut on_b1 = 0;
        for (client, fetches) in fetches {
            let home = fetches[0].1.as_ref().unwrap_or_else(|e| panic!("{client} before the death: {e}")).clone();
            on_b1 += u32::from(home == "b1");
            for (at, result) in fetches {
                let since = at.saturating_duration_since(killed);
                match result {
                    Ok(_) => {}
                    Err(error) if home == "b1" => {
                        assert!(since < Duration::from_secs(1), "{client}: {since:?}: {error}");
                    }
                    Err(error) => panic!("{client} is on {home} and has an error {since:?} after b1's death: {error}"),
                }
            }
        }
        assert!(on_b1 > 2, "{on_b1} clients were on b1");
        loaded.stop();
    });
}

/// Clients of other backends stay there when a backend goes down and when it returns. Those that moved stay, too.
#[test]
fn only_clients_of_the_dead_backend_move() {
    timed(|lab| {
        for more in ["strategy = \"rr\"", "strategy = \"maglev\""] {
            let loaded = Loaded::toml(lab, &web(&format!("{more}\naffinity = {{ by = \"client\", prefix6 = 128 }}")));
            for family in Family::BOTH {
                // Each family is checked by itself, and may come back later than the other.
                let all_up = || Family::BOTH.iter().all(|f| loaded.backend("web", f.backend(1))["state"] == "up");
                assert!(eventually(Duration::from_secs(10), all_up), "b1 is not up");
                std::thread::sleep(HEARD);
                let before = places(lab, family, 1);
                lab.kill_web("b1");
                let is = |state: &str| loaded.backend("web", family.backend(1))["state"] == state;
                assert!(eventually(Duration::from_secs(5), || is("down")), "b1 does not go down");
                std::thread::sleep(HEARD);
                let during = places(lab, family, 1);
                let moved = before.iter().filter(|(client, place)| during[*client] != **place).count();
                let of_b1 = before.values().filter(|place| *place == "b1").count();
                println!("{more}, {family:?}: {moved} of {} clients moved, {of_b1} were on b1", before.len());
                assert!(of_b1 > 0 && moved == of_b1 && during.values().all(|place| place != "b1"));
                lab.start_web("b1");
                let begin = Instant::now();
                assert!(eventually(Duration::from_secs(6), || is("up")), "b1 does not come back");
                // The second success in a row comes an interval after the first, of which jitter may take a tenth.
                assert!(begin.elapsed() > Duration::from_millis(850), "up again after {:?}", begin.elapsed());
                assert_eq!(places(lab, family, 1), during, "clients do not keep their backend when b1 returns");
            }
            loaded.stop();
        }
    });
}

#[test]
fn a_backend_that_returns_starts_slowly() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &web("affinity = \"none\"\nslow_start = \"8s\""));
    let share = |family: Family| {
        let answers = lab.within("client", || {
            let one = |n: u16| get(family.client(10 + n % 30), family.vip(), 80).unwrap();
            (0..120).map(one).collect::<Vec<_>>()
        });
        answers.iter().filter(|answer| answer.starts_with("b1 ")).count()
    };
    lab.kill_web("b1");
    let is = |state: &str| Family::BOTH.iter().all(|f| loaded.backend("web", f.backend(1))["state"] == state);
    assert!(eventually(Duration::from_secs(5), || is("down")));
    lab.start_web("b1");
    assert!(eventually(Duration::from_secs(6), || is("up")));
    let early = Family::BOTH.map(share);
    assert!(loaded.backend("web", Family::V4.backend(1))["slow_start_left"].as_u64().unwrap() > 0);
    std::thread::sleep(Duration::from_secs(9));
    let late = Family::BOTH.map(share);
    println!("of 120 requests to three backends b1 got {early:?} early and {late:?} late (IPv4, IPv6)");
    assert!(early.iter().all(|count| (1..30).contains(count)), "{early:?}");
    assert!(late.iter().all(|count| (33..=47).contains(count)), "{late:?}");
    loaded.stop();
}

#[test]
fn all_down_is_rejected_said_once_and_recovered_from() {
    timed(|lab| {
        let loaded = Loaded::toml(lab, &web("affinity = \"client\""));
        BACKENDS.iter().for_each(|backend| lab.kill_web(backend));
        let state = || loaded.status()["services"][0]["state"].as_str().unwrap().to_owned();
        assert!(eventually(Duration::from_secs(5), || state() == "all_down"), "{}", state());
        // Both families down, one line.
        std::thread::sleep(Duration::from_secs(2));
        for family in Family::BOTH {
            let begin = Instant::now();
            let error = lab.within("client", || get(family.client(12), family.vip(), 80)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{family:?}: {error}");
            assert!(begin.elapsed() < Duration::from_millis(500), "{family:?}: {:?}", begin.elapsed());
        }
        assert!(loaded.count("refused_reset") >= 2);
        let is_said = |line: &&str| line.contains("all backends are down") && !line.contains("verdict: ");
        let lines = loaded.log().lines().filter(is_said).count();
        assert_eq!(lines, 1, "{}", loaded.log());
        BACKENDS.iter().for_each(|backend| lab.start_web(backend));
        assert!(eventually(Duration::from_secs(8), || state() == "ok"), "{}", state());
        std::thread::sleep(HEARD);
        for family in Family::BOTH {
            lab.within("client", || get(family.client(12), family.vip(), 80)).unwrap();
        }
        loaded.stop();
    });
}
