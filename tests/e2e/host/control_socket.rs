//! The control socket from outside, also during a flood.

use crate::rig::lab::Lab;
use crate::rig::loaded::{Loaded, classic};
use crate::rig::machine::measured;
use crate::rig::net::{Family, get};
use crate::rig::wire::Sender;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A SYN of a spoofed source to port 80 of the IPv4 VIP, without checksums: the flood need not be answered.
fn syn(n: u32) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(std::net::Ipv4Addr::from(0x0a00_0000 | n & 0x00ff_ffff).octets());
    let IpAddr::V4(vip) = Family::V4.vip() else { unreachable!() };
    packet.extend(vip.octets());
    let sum: u32 = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn status_answers_while_a_flood_runs() {
    measured(|lab| {
        let loaded = Loaded::start(lab, &[classic(), vec!["-f".to_owned()]].concat());
        let sender = Sender::to_balancer(lab, "client", "eth0");
        let over = AtomicBool::new(false);
        let (mut times, sent) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let mut sent = 0;
                while !over.load(Ordering::Relaxed) {
                    sender.send(&syn(sent));
                    sent += 1;
                }
                sent
            });
            std::thread::sleep(Duration::from_millis(300));
            let times: Vec<Duration> = (0..40)
                .map(|_| {
                    let begin = Instant::now();
                    let mut stream = UnixStream::connect(lab.state().join("control.sock")).unwrap();
                    stream.write_all(b"\"status\"\n").unwrap();
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).unwrap();
                    assert!(answer.starts_with("{\"status\":"), "{answer}");
                    let time = begin.elapsed();
                    std::thread::sleep(Duration::from_millis(40));
                    time
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            (times, flood.join().unwrap())
        });
        times.sort_unstable();
        println!("status under {sent} SYNs: median {:?}, slowest {:?}", times[20], times[39]);
        assert!(sent > 20_000 && times[36] < Duration::from_millis(50), "{times:?}");
        lab.within("client", || get(Family::V4.client(12), Family::V4.vip(), 80)).unwrap();
        let metrics = loaded.ask(&["metrics"]);
        assert!(metrics.code == Some(0) && metrics.out.contains("# TYPE loaded_"), "{metrics:?}");
        loaded.stop();
    });
}

#[test]
fn strangers_and_garbage_are_turned_away() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let path = lab.state().join("control.sock");
    let said = |request: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for wrong in [&b"garbage\n"[..], b"\"reboot\"\n", b"\"status\" x\n", &[b'x'; 1 << 20], b"\"sta"] {
        let answer = said(wrong);
        assert!(answer.contains("\"error\"") || answer.is_empty(), "{answer}");
    }
    assert!(said(b"garbage\n").contains("not understood"));
    // As another user: by the socket's mode, and then in spite of it.
    std::fs::set_permissions(lab.state(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let stranger = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(crate::rig::lab::binary());
        let said = command.args(["status", "--control", path.to_str().unwrap()]).output().unwrap();
        assert_ne!(said.status.code(), Some(0));
        String::from_utf8_lossy(&said.stderr).into_owned()
    };
    assert!(stranger().contains("root may ask"), "{}", stranger());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(stranger().contains("ask as root"), "{}", stranger());
    // A thousand at once, each served in its turn.
    let streams: Vec<_> = (0..1000).filter_map(|_| UnixStream::connect(&path).ok()).collect();
    assert_eq!(streams.len(), 1000);
    drop(streams);
    assert_eq!(loaded.status()["generation"], 1);
    loaded.stop();
}
