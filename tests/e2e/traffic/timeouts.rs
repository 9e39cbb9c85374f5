//! Idle flows are forgotten by the timeouts of their service; timeouts changed by a reload apply to existing flows.

use super::protocols::text;
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::net::{Family, dial};
use crate::rig::packet::{TCP, ip, syn};
use crate::rig::wire::Sender;
use nix::sys::signal::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const WEB: &str = "protocol = \"tcp\"\nports = [80]";
const OPENINGS: u16 = 6;

fn flows(loaded: &Loaded) -> u64 {
    let of = |family: Family, n| loaded.backend("all", family.backend(n))["flows"].as_u64().expect("a number");
    Family::BOTH.iter().flat_map(|family| (1..=3).map(|n| of(*family, n))).sum()
}

/// One request on a keep-alive connection.
#[track_caller]
fn request(stream: &mut TcpStream) {
    write!(stream, "GET / HTTP/1.1\r\nHost: vip\r\n\r\n").unwrap();
    let end = format!(" {}\n", stream.local_addr().unwrap().ip());
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let mut part = [0; 2048];
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "the end, after {answer:?}");
        answer.extend(&part[..length]);
    }
}

fn connect(lab: &Lab, family: Family) -> TcpStream {
    let mut stream = lab.within("client", || dial(family.client(20), SocketAddr::new(family.vip(), 80))).unwrap();
    request(&mut stream);
    stream
}

/// Makes, for each family, an open connection and half-open ones that nobody answers.
fn begin(lab: &Lab, sender: &Sender, port: u16) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for family in Family::BOTH {
        open.push(connect(lab, family));
        for n in 0..OPENINGS {
            // Without a right checksum nobody answers.
            sender.send(&ip(family.client(20), family.vip(), TCP, &syn(port + n, 80)));
        }
    }
    open
}

#[test]
fn flows_are_forgotten_by_the_clock_of_their_service() {
    let Some(lab) = Lab::up() else { return };
    // Of small tables each sweep meets all.
    let config = |idle: &str| text(&format!("{WEB}\n{idle}"), "flows = 1024\nclients = 1024");
    let loaded = Loaded::toml(&lab, &config("idle = { tcp = \"8s\", half_open = \"2s\" }"));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    let all = 2 * u64::from(OPENINGS) + 2;

    let mut open = begin(&lab, &sender, 5000);
    assert!(eventually(Duration::from_secs(1), || flows(&loaded) == all), "{} flows, not {all}", flows(&loaded));
    // What is half open goes first; what is open is there, and works.
    assert!(eventually(Duration::from_secs(5), || flows(&loaded) == 2), "{} flows", flows(&loaded));
    open.iter_mut().for_each(request);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(flows(&loaded), 2);
    open.iter_mut().for_each(request);
    assert!(eventually(Duration::from_secs(12), || flows(&loaded) == 0), "{} flows", flows(&loaded));

    // By default both are remembered for longer; and a reload says so to flows that are there.
    let _open = begin(&lab, &sender, 6000);
    lab.file("loaded.toml", &config(""));
    let (done, text) = loaded.reload();
    assert!(done, "{text}");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(flows(&loaded), all);
    are_listed(&loaded, all);
    loaded.stop();
}

/// `loaded flows` counts those that `begin` has made, and finds them by what they are.
fn are_listed(loaded: &Loaded, all: u64) {
    let list = loaded.json(&["flows"]);
    assert_eq!((&list["matched"], &list["total"]), (&json!(all), &json!(all)), "{list}");
    assert_eq!(list["states"], json!({ "established": 2, "half_open": all - 2 }));
    let client = Family::V6.client(20).to_string();
    let one = loaded.json(&["flows", "--state", "established", "--client", &client, "--service", "all"]);
    let [flow] = one["flows"].as_array().unwrap().as_slice() else { panic!("{one}") };
    assert_eq!((&flow["client"], &flow["vip"]), (&json!(client), &json!(Family::V6.vip())));
    assert_eq!((&flow["protocol"], &flow["vip_port"], &flow["state"]), (&json!(6), &json!(80), &json!("established")));
    assert!((3..60).contains(&flow["idle"].as_u64().unwrap()), "{flow}");
    let backend = flow["backend"].as_str().unwrap();
    assert_eq!(loaded.json(&["flows", "--backend", backend, "--state", "established"])["matched"], 1);
    let said = loaded.ask(&["flows", "--limit", "1"]);
    let last = format!("{all} flows: 2 established, {} half_open; 1 shown, --limit shows more\n", all - 2);
    assert!(said.out.starts_with("PROTO  CLIENT") && said.out.ends_with(&last), "{said:?}");
    assert!(loaded.ask(&["flows", "--service", "al"]).err.contains("there is no service \"al\""));
}

/// A packet ends what was idle, and no age; nor does a worker's end, or an upgrade. Without the kernel path, which tells a worker of
/// a flow now and then.
#[test]
fn a_flow_ages_through_packets_kills_and_upgrades() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(WEB, "fast = \"off\""));
    let began = Instant::now();
    let mut open = Family::BOTH.map(|family| connect(&lab, family));
    // The least age, and the longest idle time.
    let look = || {
        let list = loaded.json(&["flows", "--state", "established"]);
        let flows = list["flows"].as_array().unwrap();
        assert_eq!(flows.len(), 2, "{list}");
        let of = |key: &str| flows.iter().map(|flow| flow[key].as_u64().unwrap()).collect::<Vec<_>>();
        (of("age").into_iter().min().unwrap(), of("idle").into_iter().max().unwrap())
    };
    std::thread::sleep(Duration::from_millis(2100));
    let (age, idle) = look();
    assert!(age >= idle && idle >= 2, "{age} {idle}");
    let mut after = |what: &str| {
        open.iter_mut().for_each(request);
        let ((age, idle), seconds) = (look(), began.elapsed().as_secs());
        assert!(age + 1 >= seconds && idle <= 1, "after {what}, {seconds} s: {age} {idle}");
        std::thread::sleep(Duration::from_millis(1100));
    };
    after("a packet");
    let old = loaded.workers();
    old.iter().for_each(|worker| signal_to(*worker, Signal::SIGKILL));
    let followed = || loaded.workers().len() == old.len() && loaded.workers().iter().all(|new| !old.contains(new));
    assert!(eventually(Duration::from_secs(10), followed), "{}", loaded.log());
    after("the workers' end");
    loaded.upgrade().unwrap();
    after("an upgrade");
    let text = loaded.ask(&["flows", "--state", "established"]).out;
    assert!(text.lines().next().unwrap().ends_with("AGE  IDLE"), "{text}");
    loaded.stop();
}
