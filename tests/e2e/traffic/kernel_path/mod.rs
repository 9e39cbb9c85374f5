//! The kernel path: packets of open flows meet no worker, what is not believed by the rules is not believed there, and what is
//! attached comes, stays and goes as it should.

mod links;

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, binary, eventually, install_script};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::net::{Family, dial};
use crate::rig::packet::{TCP, complete, ip};
use crate::rig::wire::Sender;
use crate::traffic::protocols::text;
use nix::sys::signal::Signal;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// What each open connection asks for.
const REQUESTS: usize = 200;
/// Another program's filter.
const FOREIGN: &str = "tc filter show dev eth1 ingress | grep -c 'pref 10 bpf chain 0 handle'";

fn begin(lab: &Lab) -> Loaded {
    let file = lab.file("loaded.toml", &format!("cores = \"0-1\"\n{}", config("60s", &[Service::default()])));
    let spawned = Loaded::spawn_with(lab, |command| {
        command.args(["-D", "--fast", "auto", "-c", &file]);
    });
    spawned.until_it_serves()
}

/// Asks for the small file this many times, by one connection.
fn converse(stream: &mut TcpStream, requests: usize) {
    (0..requests).for_each(|_| ask(stream).unwrap());
}

/// Asks for it once. An error if the answer does not come in the stream's time to read.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut answer = Vec::new();
    loop {
        let n = stream.read(&mut buffer)?;
        assert_ne!(n, 0, "closed: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer);
        if text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= 612) {
            assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
            return Ok(());
        }
    }
}

fn open(lab: &Lab) -> Vec<TcpStream> {
    lab.within("client", || {
        let one = |family: Family| dial(family.client(11), SocketAddr::new(family.vip(), 80)).unwrap();
        Family::BOTH.map(one).into_iter().collect()
    })
}

fn missed(loaded: &Loaded, why: &str) -> u64 {
    loaded.status()["kernel_path"]["missed"][why].as_u64().unwrap()
}

fn interfaces(loaded: &Loaded) -> Vec<String> {
    let status = loaded.status();
    let names = status["kernel_path"]["interfaces"].as_array().unwrap().iter();
    let mut names: Vec<_> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Whatever tc shows of the balancer's interfaces.
fn tc(lab: &Lab) -> String {
    lab.sh("lb", "for i in eth0 eth1; do tc qdisc show dev $i; tc filter show dev $i ingress; done")
}

#[test]
fn open_flows_meet_no_worker_and_forged_replies_do() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", "tc qdisc add dev eth1 clsact; tc filter add dev eth1 ingress prio 10 bpf bytecode '1,6 0 0 0'");
    let loaded = begin(&lab);
    assert_eq!(interfaces(&loaded), ["eth0", "eth1"], "{}", loaded.log());
    let mut streams = open(&lab);
    streams.iter_mut().for_each(|stream| converse(stream, REQUESTS));
    let all = 2 * REQUESTS as u64;
    let [to, from] = ["kernel_forwarded", "kernel_returned"].map(|label| loaded.packets(&[label]));
    assert!(to >= all && from >= all, "{}", loaded.ask(&["status"]).out);
    let by_workers = ["forwarded", "returned"].map(|label| loaded.packets(&[label]));
    assert!(by_workers.iter().sum::<u64>() < 40, "{}", loaded.ask(&["status"]).out);

    // From where clients are, in the name of both backends: no reply.
    let before = missed(&loaded, "backend");
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for (family, stream) in Family::BOTH.into_iter().zip(&streams) {
        for n in [1, 2] {
            let (from, to) = (SocketAddr::new(family.backend(n), 80), stream.local_addr().unwrap());
            sender.send(&forged(from, to));
        }
    }
    assert!(eventually(SOON, || missed(&loaded, "backend") == before + 2), "{}", loaded.ask(&["status"]).out);
    assert_eq!(loaded.packets(&["kernel_returned"]), from);
    streams.iter_mut().for_each(|stream| converse(stream, 1));

    follows_interfaces(&lab, &loaded);
    loaded.stop();
    let left = tc(&lab);
    assert!(!left.contains("loaded-"), "{left}");
    assert_eq!(left.matches("clsact").count(), 1, "eth1's is another's: {left}");
    assert_eq!(lab.sh("lb", FOREIGN).trim(), "1", "{left}");
}

/// New ones, renamed ones, and those that are gone.
fn follows_interfaces(lab: &Lab, loaded: &Loaded) {
    lab.sh("lb", "ip link add new0 type veth peer name far0 && ip address add 203.0.113.1/24 dev new0");
    assert!(eventually(SOON, || interfaces(loaded) == ["eth0", "eth1", "new0"]), "{:?}", interfaces(loaded));
    lab.sh("lb", "ip link set new0 name new1");
    assert!(eventually(SOON, || interfaces(loaded) == ["eth0", "eth1", "new1"]), "{:?}", interfaces(loaded));
    lab.sh("lb", "tc qdisc del dev eth0 clsact");
    assert!(eventually(SOON, || tc(lab).matches("loaded-").count() == 2), "{}", tc(lab));
    lab.sh("lb", "ip link delete new1");
    assert!(eventually(SOON, || interfaces(loaded) == ["eth0", "eth1"]), "{:?}", interfaces(loaded));
}

/// A segment of data with some numbers.
fn forged(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0, 1, 2, 3, 4];
    complete(ip(from.ip(), to.ip(), TCP, &[&ports[..], &rest].concat()))
}

/// Runs a program, whose path follows, where bpf(2) is not permitted: as in most containers.
const WITHOUT_BPF: &str = r#"#!/usr/bin/env python3
import ctypes, os, platform, struct, sys
call = {"x86_64": 321, "aarch64": 280}[platform.machine()]
# Load the call's number; if it is bpf: EPERM (SECCOMP_RET_ERRNO), else allow.
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
# PR_SET_SECCOMP, SECCOMP_MODE_FILTER
assert ctypes.CDLL(None, use_errno=True).prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(os.environ["LOADED_BIN"], ["loaded", *sys.argv[1:]])
"#;

/// It starts all the same, says so, and every packet meets a worker.
#[test]
fn without_bpf_the_queue_serves_and_the_log_says_so() {
    let Some(lab) = Lab::up() else { return };
    let wrapped = lab.state().join("without-bpf");
    install_script(WITHOUT_BPF, &wrapped);
    let file = lab.file("loaded.toml", &format!("fast = \"auto\"\n{}", config("60s", &[Service::default()])));
    let loaded = Loaded::spawn_as(&wrapped, &lab, |command| {
        command.args(["-D", "-c", &file]).env("LOADED_BIN", binary());
    })
    .until_it_serves();
    let log = loaded.log();
    let said = log.lines().find(|line| line.contains("warning: kernel path: off, all packets go by the queue: "));
    assert!(said.is_some_and(|line| line.contains("not permitted")), "{log}");
    open(&lab).iter_mut().for_each(|stream| converse(stream, 5));
    assert!(loaded.packets(&["forwarded"]) > 0);
    let status = loaded.ask(&["status"]).out;
    assert!(status.lines().any(|line| line.starts_with("kernel path") && line.contains("not permitted")), "{status}");
    assert!(loaded.ask(&["metrics"]).out.contains("loaded_kernel_path_off{reason=\"refused\"} 1"));
    loaded.stop();
    assert!(!tc(&lab).contains("clsact"), "{}", tc(&lab));
}

/// Before a connection, while it is open, and after it; with the path on and off.
#[test]
fn explain_says_which_path_a_packet_takes() {
    let Some(lab) = Lab::up() else { return };
    let text = |fast: &str| format!("cores = \"0-1\"\nfast = {fast:?}\n{}", config("60s", &[Service::default()]));
    let loaded = Loaded::toml(&lab, &text("auto"));
    let path_of = |client: SocketAddr, vip: IpAddr| {
        let explained = loaded.json(&["explain", "tcp", &client.to_string(), &SocketAddr::new(vip, 80).to_string()]);
        let word = |name: &str| explained["path"][name].as_str().unwrap().to_owned();
        (word("by"), word("reason"))
    };
    let is = |by: &str, reason: &str| (by.to_owned(), reason.to_owned());
    let mut streams = open(&lab);
    streams.iter_mut().for_each(|stream| converse(stream, 5));
    let are_open = || loaded.json(&["flows", "--state", "established"])["matched"] == 2;
    assert!(eventually(SOON, are_open), "{}", loaded.ask(&["flows"]).out);
    for (family, stream) in Family::BOTH.into_iter().zip(&mut streams) {
        let client = stream.local_addr().unwrap();
        assert_eq!(path_of(client, family.vip()), is("kernel", "silent"));
        let other = SocketAddr::new(client.ip(), client.port() ^ 1);
        assert_eq!(path_of(other, family.vip()), is("queue", "opens"));
        // What was said is what happens.
        let before = loaded.packets(&["kernel_forwarded"]);
        converse(stream, 1);
        assert!(loaded.packets(&["kernel_forwarded"]) > before);
    }
    let client = streams[0].local_addr().unwrap();
    lab.file("loaded.toml", &text("off"));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert_eq!(path_of(client, Family::V4.vip()), is("queue", "off"));
    let said = loaded.ask(&["explain", "tcp", &client.to_string(), &SocketAddr::new(Family::V4.vip(), 80).to_string()]);
    assert!(said.out.ends_with("\nby the queue: the kernel path is off: fast = \"off\"\n"), "{}", said.out);
    loaded.stop();
}

/// A reload detaches it and attaches it again; connections go on either way.
#[test]
fn a_reload_detaches_and_attaches_it() {
    let Some(lab) = Lab::up() else { return };
    let text = |fast: &str| format!("cores = \"0-1\"\nfast = {fast:?}\n{}", config("60s", &[Service::default()]));
    let loaded = Loaded::toml(&lab, &text("auto"));
    let mut streams = open(&lab);
    streams.iter_mut().for_each(|stream| converse(stream, 5));
    lab.file("loaded.toml", &text("off"));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert_eq!(loaded.status()["kernel_path"]["off_reason"], "not_wanted");
    assert!(!tc(&lab).contains("loaded-"), "{}", tc(&lab));
    let sent = loaded.packets(&["kernel_forwarded"]);
    streams.iter_mut().for_each(|stream| converse(stream, 5));
    assert_eq!(loaded.packets(&["kernel_forwarded"]), sent);
    lab.file("loaded.toml", &text("auto"));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert_eq!(interfaces(&loaded), ["eth0", "eth1"], "{}", loaded.log());
    streams.iter_mut().for_each(|stream| converse(stream, REQUESTS));
    assert!(loaded.packets(&["kernel_forwarded"]) >= sent + REQUESTS as u64, "{}", loaded.ask(&["status"]).out);
    loaded.stop();
    assert!(!tc(&lab).contains("loaded-") && !tc(&lab).contains("clsact"), "{}", tc(&lab));
}

/// What is left of a killed instance sends its flows on until they are stale, and the next start takes it away.
#[test]
fn open_flows_outlive_every_process_and_a_new_start_clears_up() {
    let Some(lab) = Lab::up() else { return };
    let loaded = begin(&lab);
    let mut streams = open(&lab);
    // Once workers have read the reports the flows are open.
    streams.iter_mut().for_each(|stream| converse(stream, 5));
    let are_open = || loaded.json(&["flows", "--state", "established"])["matched"] == 2;
    assert!(eventually(SOON, are_open), "{}", loaded.ask(&["flows"]).out);
    kill_all(&loaded);
    streams.iter_mut().for_each(|stream| converse(stream, REQUESTS));
    assert_eq!(tc(&lab).matches("loaded-").count(), 2);
    drop(loaded);
    let loaded = begin(&lab);
    assert!(loaded.log().contains("what an earlier instance has attached to eth0 is detached"), "{}", loaded.log());
    assert_eq!(interfaces(&loaded), ["eth0", "eth1"]);
    open(&lab).iter_mut().for_each(|stream| converse(stream, 5));
    loaded.stop();
    assert!(!tc(&lab).contains("loaded-") && !tc(&lab).contains("clsact"), "{}", tc(&lab));
}

/// Nobody is left whom they could visit: they go on for a quarter of their idle time since the last visit, and no longer.
#[test]
fn when_every_process_is_killed_open_flows_end_once_they_are_stale() {
    let Some(lab) = Lab::up() else { return };
    let service = "protocol = \"tcp\"\nports = [80]\nidle = { tcp = \"16s\" }";
    let loaded = Loaded::toml(&lab, &text(service, "fast = \"auto\""));
    let mut streams = open(&lab);
    let begun = Instant::now();
    let have_just_visited = || {
        let flows = loaded.json(&["flows", "--state", "established"]);
        flows["flows"].as_array().unwrap().iter().filter(|flow| flow["idle"] == 0).count() == 2
    };
    while !have_just_visited() {
        streams.iter_mut().for_each(|stream| converse(stream, 1));
        assert!(begun.elapsed() < SOON, "{}", loaded.ask(&["flows"]).out);
    }
    kill_all(&loaded);
    let killed = Instant::now();
    for stream in &streams {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    }
    let mut ended = [None; 2];
    while ended.contains(&None) && killed.elapsed() < SOON {
        for (end, stream) in ended.iter_mut().zip(&mut streams).filter(|(end, _)| end.is_none()) {
            let asked = killed.elapsed();
            *end = ask(stream).is_err().then_some(asked);
        }
    }
    println!("open flows went on for {ended:?} after every process was killed");
    // Four seconds since the visit, of which one may have passed; clocks count whole seconds; a try may take half a one.
    let [least, most] = [2, 6].map(Duration::from_secs);
    assert!(ended.iter().all(|end| end.is_some_and(|end| end > least && end < most)), "{ended:?}");
}

fn kill_all(loaded: &Loaded) {
    let all = [vec![loaded.pid()], loaded.workers(), loaded.prober().into_iter().collect()].concat();
    all.into_iter().for_each(|pid| signal_to(pid, Signal::SIGKILL));
}
