//! `loaded flows`, and `loaded status`, which `loaded top` asks for, beside many flows, a load and a flood: how soon they answer, and
//! what the data path has of it. `E2E_FLOWS=1000000 E2E_FLOOD_RATE=20000 E2E_ROUNDS=10` for the figures of docs/figures.md.

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, binary, eventually, setting};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::Family;
use crate::rig::packet::{UDP, complete, ip};
use crate::rig::queues::kernel;
use crate::rig::requests::{url, wrk};
use crate::rig::wire::Sender;
use crate::security::flood::steady;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The port of flows that nobody answers.
const SILENT: u16 = 5000;
/// What the issue asks for.
const ANSWER: Duration = Duration::from_millis(200);

/// Has backends say nothing at that port, not even that nobody listens there.
fn silence(lab: &Lab) {
    for who in ["b1", "b2"] {
        for (tool, protocol) in ["iptables", "ip6tables"].into_iter().flat_map(|tool| [(tool, "udp"), (tool, "tcp")]) {
            lab.sh(who, &format!("{tool} -w -A INPUT -p {protocol} --dport {SILENT} -j DROP"));
        }
    }
}

/// Datagrams of as many clients, from a network beyond that of the lab.
fn fill(lab: &Lab, flows: u32) {
    let sender = Sender::to_balancer(lab, "client", "eth0");
    let packet = |n: u32| {
        let from = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n));
        let header = [1000_u16, SILENT, 12, 0].map(u16::to_be_bytes).concat();
        complete(ip(from, Family::V4.vip(), UDP, &[&header[..], b"many"].concat()))
    };
    let all: Vec<u32> = (0..flows).collect();
    for some in all.chunks(256) {
        sender.send_all(&some.iter().map(|n| sender.frame(&packet(*n))).collect::<Vec<_>>());
        // As fast as a worker gives them places, about.
        std::thread::sleep(Duration::from_micros(1500));
    }
}

/// Requests a second over ten seconds; meanwhile, if `beside`, somebody has `top` open, which asks every second here, and lists flows
/// once.
fn requests(lab: &Lab, loaded: &Loaded, beside: bool) -> f64 {
    let ask = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(words).arg("--control").arg(loaded.control()).stdout(Stdio::null()).spawn().unwrap()
    };
    let asking = beside.then(|| [ask(&["top", "-i", "1", "-n", "10"]), ask(&["flows"])]);
    let said = lab.exec("client", &["wrk", "-t1", "-c16", "-d10s", &url(Family::V4.vip(), 80, "small")]);
    for mut child in asking.into_iter().flatten() {
        assert!(child.wait().unwrap().success());
    }
    let line = said.out.lines().find_map(|line| line.strip_prefix("Requests/sec:")).expect(&said.out);
    line.trim().parse().unwrap()
}

/// What is left of the requests a second beside those who ask, of each of these rounds, in ascending order. Every other round begins
/// with those who ask.
fn shares(lab: &Lab, loaded: &Loaded, rounds: u64) -> Vec<f64> {
    let share = |round: u64| {
        let first = requests(lab, loaded, !round.is_multiple_of(2));
        let second = requests(lab, loaded, round.is_multiple_of(2));
        if round.is_multiple_of(2) { second / first } else { first / second }
    };
    let mut shares: Vec<_> = (0..rounds).map(share).collect();
    shares.sort_by(f64::total_cmp);
    shares
}

#[test]
fn many_flows_and_a_load_do_not_delay_an_answer() {
    let flows = u32::try_from(setting("E2E_FLOWS", 50_000)).unwrap();
    let (rounds, rate) = (setting("E2E_ROUNDS", 0), setting("E2E_FLOOD_RATE", 2000));
    paired(|lab| {
        let idle = "affinity = \"none\"\nidle = { half_open = \"1h\" }";
        let silent = |name, protocol| Service { name, protocol, ports: "5000", keys: idle, ..Service::default() };
        let text = config("60s", &[Service::default(), silent("silent", "udp"), silent("mute", "tcp")]);
        // So many are what the tables of two workers promise; a flood takes as many places again.
        let loaded = Loaded::toml(lab, &format!("cores = \"0-1\"\nflows = {}\n{text}", (flows / 2).max(2048)));
        silence(lab);
        fill(lab, flows);
        let count = || loaded.json(&["flows", "--limit", "0"])["total"].as_u64().unwrap();
        assert!(
            eventually(Duration::from_secs(20), || count() >= u64::from(flows) * 99 / 100),
            "{} of {flows}",
            count()
        );

        let ask = |words: &[&str]| {
            let began = Instant::now();
            let said = loaded.ask(words);
            assert_eq!(said.code, Some(0), "{}", said.err);
            began.elapsed()
        };
        let all: [&[&str]; 3] = [&["flows", "--limit", "100"], &["flows", "--client", "10.0.7.0/24"], &["status"]];
        let mut times = all.map(|_| Vec::new());
        let under_load = || {
            std::thread::scope(|scope| {
                scope.spawn(|| wrk(lab, &url(Family::V4.vip(), 80, "small"), 16, 4));
                std::thread::sleep(Duration::from_millis(300));
                let end = Instant::now() + Duration::from_secs(3);
                while Instant::now() < end {
                    for (words, times) in all.iter().zip(&mut times) {
                        times.push(ask(words));
                    }
                }
            });
        };
        let ((), flooded) = steady::beside(lab, (SILENT, rate), under_load);
        for (words, times) in all.iter().zip(&mut times) {
            times.sort();
            let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
            println!(
                "{flows} flows, a load and a flood of {flooded}/s: {words:?}: median {median:.0?}, longest of {} {most:.0?}",
                times.len()
            );
            assert!(median < ANSWER, "{words:?} takes {times:?}");
        }
        if rounds > 0 {
            let (shares, flooded) = steady::beside(lab, (SILENT, rate), || shares(lab, &loaded, rounds));
            println!("{} flows in the end, after {flooded}/s of the flood; {:?}", count(), kernel(lab));
            let (least, median, most) = (shares[0], shares[shares.len() / 2], shares[shares.len() - 1]);
            println!(
                "requests a second beside top and a list of flows: {median:.3} ({least:.3} to {most:.3}) of those without"
            );
        }
        loaded.stop();
    });
}
