//! Backends that fail in every way we could think of: each failure is found in time, and the status names its cause.

use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::machine::timed;
use crate::rig::net::Family;
use crate::rig::servers::{HEARD, Mood, Server, backends, becomes, events, service};
use std::time::{Duration, SystemTime};

/// Two failures take a backend down, two successes bring it up.
const PACE: &str = "interval = \"200ms\", timeout = \"150ms\", rise = 2, fall = 2";
/// Two failures are 0.9 intervals apart, and end at most 1.1 intervals and a timeout later, two of them for a ping
/// and a connection. The rest is for a busy machine.
const IN_TIME: std::ops::RangeInclusive<Duration> = Duration::from_millis(150)..=Duration::from_millis(1600);

/// How a backend fails.
#[derive(Debug, Clone, Copy)]
enum Ill {
    /// Its server behaves like this.
    Feels(Mood),
    /// Its server is gone: connections are refused.
    Gone,
    /// Incoming packets are lost.
    Filtered,
    /// A router, or the host itself, reports it unreachable.
    Prohibited,
    /// It does not answer pings.
    Mute,
}

/// Name, check, port, how the backend fails, what the status must say.
type Case = (&'static str, &'static str, u16, Ill, &'static str);

const CASES: [Case; 14] = [
    // It answers to pings: the service "pinged" is of the same host.
    ("deaf", "kind = \"icmp+tcp\"", 8101, Ill::Gone, "connection refused"),
    ("deaf-tcp", "kind = \"tcp\"", 8102, Ill::Gone, "connection refused"),
    ("silent", "kind = \"http\"", 8103, Ill::Feels(Mood::Silent), "no answer in time"),
    ("late", "kind = \"http\"", 8104, Ill::Feels(Mood::Late(Duration::from_millis(400))), "no answer in time"),
    ("busy", "kind = \"http\"", 8105, Ill::Feels(Mood::Says(503)), "HTTP status 503"),
    ("closing", "kind = \"http\"", 8106, Ill::Feels(Mood::Closes), "connection closed without an answer"),
    ("strange", "kind = \"http\"", 8107, Ill::Feels(Mood::Strange), "wrong answer"),
    ("filtered", "kind = \"tcp\"", 8108, Ill::Filtered, "no connection in time"),
    ("prohibited", "kind = \"tcp\"", 8109, Ill::Prohibited, "unreachable"),
    ("udp-silent", UDP, 8110, Ill::Feels(Mood::Silent), "no answer in time"),
    ("udp-strange", UDP, 8111, Ill::Feels(Mood::Strange), "wrong answer"),
    ("udp-gone", UDP, 8112, Ill::Gone, "connection refused"),
    ("dns", "kind = \"dns\", name = \"www.example.com\"", 8113, Ill::Feels(Mood::Strange), "DNS error code 3"),
    ("mute", "kind = \"icmp\"", 0, Ill::Mute, "no answer to ping"),
];
const UDP: &str = "kind = \"udp\", send = \"ping\", expect = \"pong\"";

/// The backend that answers no ping is another host, so that pings to the others still mean something.
fn host(ill: Ill) -> u16 {
    if matches!(ill, Ill::Mute) { 3 } else { 1 }
}

fn serve(lab: &Lab, (_, check, port, ..): &Case) -> Option<Server> {
    let udp = |bytes: &[u8], mood| match mood {
        Mood::Says(_) => (bytes == b"ping").then(|| b"pong and more".to_vec()),
        Mood::Strange => Some(b"gnop".to_vec()),
        _ => None,
    };
    // The question with the bit of an answer set, and NXDOMAIN (RFC 1035 §4.1.1) if it feels so.
    let dns = |bytes: &[u8], mood| {
        let mut answer = bytes.to_vec();
        answer[2] |= 0x80;
        answer[3] = if mood == Mood::Strange { 0x83 } else { 0x80 };
        Some(answer)
    };
    match check {
        _ if check.contains("\"udp\"") => Some(Server::datagrams(lab, "b1", *port, udp)),
        _ if check.contains("\"dns\"") => Some(Server::datagrams(lab, "b1", *port, dns)),
        _ if check.contains("tcp\"") || check.contains("http\"") => Some(Server::web(lab, "b1", *port)),
        _ => None,
    }
}

fn filter(lab: &Lab, act: &str, port: u16, target: [&str; 2]) {
    for (tool, target) in ["iptables", "ip6tables"].into_iter().zip(target) {
        lab.sh("b1", &format!("{tool} -w {act} INPUT -p tcp --dport {port} -j {target}"));
    }
}

const PROHIBIT: [&str; 2] =
    ["REJECT --reject-with icmp-host-unreachable", "REJECT --reject-with icmp6-addr-unreachable"];

/// Makes the backend fail, or repairs it.
fn turn(lab: &Lab, case: &Case, server: &mut Option<Server>, ill: bool) {
    let act = if ill { "-A" } else { "-D" };
    match (case.3, &server) {
        (Ill::Feels(mood), Some(server)) => server.set(if ill { mood } else { Mood::Says(200) }),
        (Ill::Gone, _) if ill => *server = None,
        (Ill::Gone, _) => *server = serve(lab, case),
        (Ill::Filtered, _) => filter(lab, act, case.2, ["DROP"; 2]),
        (Ill::Prohibited, _) => filter(lab, act, case.2, PROHIBIT),
        (Ill::Mute, _) => {
            let ignore = u8::from(ill);
            let four = format!("net.ipv4.icmp_echo_ignore_all={ignore}");
            lab.sh("b3", &format!("sysctl -qw {four} net.ipv6.icmp.echo_ignore_all={ignore}"));
        }
        (Ill::Feels(_), None) => panic!("{} has no server", case.0),
    }
}

#[test]
fn each_illness_is_found_in_time_and_named() {
    timed(|lab| {
        // An ICMP error for each packet: which ones come must not depend on what else was refused (icmp(7)).
        lab.sh("b1", "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
        let mut servers = CASES.each_ref().map(|case| serve(lab, case));
        let one = |(number, (name, check, port, ill, _)): (u16, Case)| {
            let port = if port == 0 { String::new() } else { format!(", port = {port}") };
            let check = format!("check = {{ {check}{port}, {PACE} }}");
            service(name, "tcp", 1000 + number, &check) + &backends(&[host(ill)], "")
        };
        let services: String = (0..).zip(CASES).map(one).collect();
        let pinged = service("pinged", "tcp", 2000, &format!("check = {{ kind = \"icmp\", {PACE} }}"));
        let loaded = Loaded::toml(lab, &format!("cores = \"0-1\"\n{services}{pinged}{}", backends(&[1], "")));
        CASES.iter().for_each(|(name, _, _, ill, _)| becomes(&loaded, name, host(*ill), "up"));

        for (what, ill, wanted) in [("down", true, None), ("up", false, Some("check passed"))] {
            let mut turned = Vec::new();
            for (case, server) in CASES.iter().zip(&mut servers) {
                turned.push(SystemTime::now());
                turn(lab, case, server, ill);
            }
            // A cause is that of the last check, whatever took it down.
            CASES.iter().for_each(|(name, _, _, ill, _)| becomes(&loaded, name, host(*ill), what));
            for ((name, _, _, ill, cause), since) in CASES.into_iter().zip(turned) {
                let seen = events(&loaded, name, since);
                println!("{name}: {seen:?}");
                assert_eq!(seen.len(), 2, "{name}: one change in each family: {seen:?}");
                for family in Family::BOTH {
                    let address = family.backend(host(ill));
                    let (at, _) = seen.iter().find(|(_, event)| *event == format!("{address} {what}")).unwrap();
                    assert!(IN_TIME.contains(at), "{name}: {address} {what} after {at:?}");
                    let backend = loaded.backend(name, address);
                    assert_eq!(backend["cause"], wanted.unwrap_or(cause), "{name}: {backend}");
                }
            }
            for family in Family::BOTH {
                let backend = loaded.backend("pinged", family.backend(1));
                assert_eq!(
                    (&backend["state"], &backend["cause"]),
                    (&"up".into(), &"check passed".into()),
                    "{family:?}"
                );
            }
        }
        assert_eq!(events(&loaded, "pinged", SystemTime::UNIX_EPOCH).len(), 0, "pings were answered all the time");
        loaded.stop();
    });
}

/// Healthy and failing for 250 ms in turn, which is time for at most three checks.
#[test]
fn a_flapping_backend_changes_no_more_than_the_rules_allow() {
    const HALF: Duration = Duration::from_millis(250);
    const HALVES: u32 = 24;
    let Some(lab) = Lab::up() else { return };
    let server = Server::web(&lab, "b1", 8101);
    // Five in a row bring it up: never. Five take it down: never. Two: as it comes.
    let rules = [("reluctant", 5, 1), ("patient", 1, 5), ("nervous", 2, 2)];
    let text = rules.map(|(name, rise, fall)| {
        let pace = "interval = \"100ms\", timeout = \"100ms\", jitter = 0";
        let check = format!("check = {{ kind = \"http\", port = 8101, {pace}, rise = {rise}, fall = {fall} }}");
        service(name, "tcp", 1000 + rise * 10 + fall, &check) + &backends(&[1], "")
    });
    let loaded = Loaded::toml(&lab, &format!("cores = \"0-1\"\n{}", text.concat()));
    rules.iter().for_each(|(name, ..)| becomes(&loaded, name, 1, "up"));

    let since = SystemTime::now();
    for half in 0..HALVES {
        server.set(if half % 2 == 0 { Mood::Says(503) } else { Mood::Says(200) });
        std::thread::sleep(HALF);
    }
    let changes = |name, family: Family| {
        let address = format!("{} ", family.backend(1));
        events(&loaded, name, since).iter().filter(|(_, event)| event.starts_with(&address)).count()
    };
    for family in Family::BOTH {
        let [reluctant, patient, nervous] = rules.map(|(name, ..)| changes(name, family));
        println!("{family:?}: changes in {HALVES} halves: 5/1 {reluctant}, 1/5 {patient}, 2/2 {nervous}");
        assert_eq!((reluctant, patient), (1, 0), "{family:?}: (goes down once and stays down; never goes down)");
        assert_eq!(loaded.backend("reluctant", family.backend(1))["state"], "down");
        let most = usize::try_from(HALVES).unwrap();
        assert!((most / 2..=most).contains(&nervous), "{family:?}: follows, once a half at most: {nervous}");
    }
    server.set(Mood::Says(200));
    rules.iter().for_each(|(name, ..)| becomes(&loaded, name, 1, "up"));
    std::thread::sleep(HEARD);
    loaded.stop();
}
