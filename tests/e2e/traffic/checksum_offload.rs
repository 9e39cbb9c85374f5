//! Checksums, whatever is left to the devices: an end that makes every sum anew sees none wrong, also in what the balancer
//! itself answers, and bulk arrives as it was sent.
//!
//! A packet whose checksum is left to its device has none yet, and a packet socket sees it so. Hence the last device
//! before each end, `eth1` of its router, always does it in software: what it sends is complete, and if a worker has left
//! a wrong sum for it to complete, it is wrong there. The ends themselves do not merge what comes in, so every packet is
//! seen as it came.

use super::path_mtu::Transfer;
use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial};
use crate::rig::packet::{ICMP, ICMP6, TCP, UDP, destination, sound, upper};
use crate::rig::requests::pings;
use crate::rig::routers::{BACKEND, FAR, Narrow, far};
use crate::rig::wire::capture;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

const ON: &str = "tx on rx on gso on tso on gro on";
const OFF: &str = "tx off rx off tso off gso off gro off";

/// What the ends have, and what the balancer and the devices next to it have.
const SETTINGS: [(&str, &str); 6] = [
    (ON, ON),
    (OFF, OFF),
    // Whole checksums and single segments come in, and are merged by the balancer.
    (OFF, ON),
    // Checksums and segments that are not made come in, and go out by devices that make neither.
    (ON, OFF),
    // Checksums are left to devices, segments are not.
    ("tx on rx on tso off gso off gro off", "tx on rx on tso off gso off gro off"),
    // The other way round: what is merged is taken apart by the kernel.
    ("tx off rx off tso off gso on gro on", "tx off rx off tso off gso on gro on"),
];

/// Devices between the ends, by namespace. Not those that must complete.
const BETWEEN: [(&str, &str); 6] =
    [("b8", "eth0"), ("client", "eth0 eth1"), ("lb", "eth0 eth1"), ("sw", "lb r"), ("b6", "eth0 eth1"), ("b7", "eth0")];

/// The last number of VIPs whose backend counts as down, so that the balancer answers.
const GONE: u16 = 101;

fn text() -> String {
    let backends = Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\n", f.backend(1))).concat();
    let service = |name: &str, number: u16, keys: &str| {
        let vips = Family::BOTH.map(|f| format!("\"{}\"", f.client(number))).join(", ");
        format!("[[service]]\nname = \"{name}\"\nvip = [{vips}]\nprotocol = \"any\"\n{keys}\n{backends}")
    };
    let down = "check = { kind = \"tcp\", port = 82, interval = \"200ms\", timeout = \"150ms\", fall = 1 }";
    format!("cores = \"0-1\"\n{}{}", service("all", 100, ""), service("gone", GONE, down))
}

fn set(lab: &Lab, ends: &str, between: &str) {
    for who in [FAR, BACKEND] {
        lab.sh(who, &format!("ethtool -K eth0 {ends} >/dev/null && ethtool -K eth0 gro off >/dev/null"));
    }
    for (who, devices) in BETWEEN {
        lab.sh(who, &format!("for dev in {devices}; do ethtool -K $dev {between} >/dev/null || exit; done"));
    }
}

/// What shows each kind of packet both ways: bulk, pings of two sizes, errors from a router behind the balancer and from
/// the backend, and the balancer's own answers.
#[track_caller]
fn converse(lab: &Lab, family: Family, expected: &[(Transfer, String)], setting: &str) {
    for (transfer, expected) in expected {
        let said = transfer.run(lab, family);
        assert_eq!(&said.out, expected, "{setting}: {family:?} {transfer:?}: {}", said.err);
    }
    let (from, vip) = (far(family), family.vip());
    for size in [56, 1400] {
        pings(lab, FAR, (from, vip), 3, size);
        let (source, vip, size) = (from.to_string(), vip.to_string(), size.to_string());
        let words = ["ping", "-q", "-c", "3", "-i", "0.02", "-W", "1", "-s", &size, "-t", "4", "-I", &source, &vip];
        let said = lab.exec(FAR, &words);
        let has_died = said.out.contains("+3 errors") && !said.out.contains(" 3 received");
        assert!(has_died, "{setting}: {family:?} {words:?}: {}", said.out);
    }
    lab.within(FAR, || {
        // By the balancer, and where the port is closed at the backend.
        for to in [family.client(GONE), vip] {
            let to = SocketAddr::new(to, 9);
            let refused = dial(from, to).map(drop).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{setting}: TCP to {to}");
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(crate::rig::net::ANSWER_TIMEOUT)).unwrap();
            socket.send(b"anybody there?").unwrap();
            let error = socket.recv(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{setting}: UDP to {to}");
        }
    });
}

/// Checks all that came in for this address; how many packets of each protocol that was.
#[track_caller]
fn verify(packets: &[Vec<u8>], own: IpAddr, setting: &str) -> BTreeMap<u8, usize> {
    let mut seen = BTreeMap::new();
    for packet in packets.iter().filter(|packet| destination(packet) == Some(own)) {
        let (_, protocol) = upper(packet);
        if [TCP, UDP, ICMP, ICMP6].contains(&protocol) {
            assert!(packet.len() <= 1500, "{setting}: {own} gets {} bytes that no device has cut", packet.len());
            assert!(sound(packet), "{setting}: {own} gets a wrong checksum: {:02x?}", &packet[..packet.len().min(120)]);
            *seen.entry(protocol).or_default() += 1;
        }
    }
    seen
}

#[test]
fn checksums_are_right_whatever_is_left_to_the_devices() {
    let Some(lab) = Lab::up() else { return };
    lab.lengthen(Narrow::Nowhere);
    lab.serve_bulk();
    for router in ["b7", "b8"] {
        lab.sh(router, &format!("ethtool -K eth1 {OFF} >/dev/null"));
    }
    crate::rig::lab::more_vips(&lab);
    let expected = Transfer::ALL.map(|transfer| (transfer, transfer.expected(&lab, Narrow::Nowhere)));
    let loaded = Loaded::toml(&lab, &text());
    crate::rig::servers::becomes(&loaded, "gone", 1, "down");
    for (ends, between) in SETTINGS {
        set(&lab, ends, between);
        let setting = format!("ends {ends}; between {between}");
        for family in Family::BOTH {
            let (((), at_backend), at_client) =
                capture(&lab, FAR, || capture(&lab, BACKEND, || converse(&lab, family, &expected, &setting)));
            let icmp = if family == Family::V4 { ICMP } else { ICMP6 };
            for (packets, own) in [(at_client, far(family)), (at_backend, family.backend(1))] {
                let seen = verify(&packets, own, &setting);
                println!("{setting}: {own} has checked {seen:?}");
                for (protocol, least) in [(TCP, 1000), (UDP, 100), (icmp, 6)] {
                    let count = seen.get(&protocol).copied().unwrap_or(0);
                    assert!(count >= least, "{setting}: {own}: {count} of protocol {protocol}");
                }
            }
        }
    }
    let settings = SETTINGS.len() as u64;
    for (label, each) in [("refused_reset", 2), ("refused_unreachable", 2), ("error_relayed", 2), ("error_returned", 2)]
    {
        assert!(loaded.count(label) >= each * settings, "{label}: {:?}", loaded.counters());
    }
    // The kernels at the ends have seen the same.
    for who in [FAR, BACKEND] {
        let errors = lab.sh(who, "nstat -asz | grep CsumErrors");
        let bad: Vec<_> = errors.lines().filter(|line| line.split_whitespace().nth(1) != Some("0")).collect();
        assert!(errors.lines().count() >= 4 && bad.is_empty(), "{who}: {bad:?}");
    }
    loaded.stop();
}
