//! Path MTU discovery, wherever on the way the link is that is too narrow: TCP and datagrams that must not be fragmented,
//! both ways, both families. Without our translation of the errors the same transfers hang.

use crate::rig::lab::{Lab, Said, shipped};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::routers::{BACKEND, BULK, FAR, NARROW, Narrow, by_ports, far};
use nix::sys::signal::Signal;

/// Size of a TCP transfer.
const TCP_BYTES: usize = 4 << 20;
/// Size of a UDP transfer, smaller because its datagrams go one at a time.
const UDP_BYTES: usize = 200_000;

/// A common firewall: drop what is INVALID. Balanced packets and the errors about them must pass it.
const FIREWALL: &str = "for tool in iptables ip6tables; do
        for chain in INPUT FORWARD; do $tool -A $chain -m conntrack --ctstate INVALID -j DROP; done
    done";

/// A kind of transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// A download from nginx.
    TcpGet,
    TcpPut,
    UdpGet,
    UdpPut,
}

impl Transfer {
    pub(crate) const ALL: [Self; 4] = [Self::TcpGet, Self::TcpPut, Self::UdpGet, Self::UdpPut];

    /// Runs it; what it says on success is the same for all of one kind, up to the MTU.
    pub(crate) fn run(self, lab: &Lab, family: Family) -> Said {
        // A TCP that has learned a path's MTU tells its peer a small MSS, and so the peer never has to learn.
        for who in [FAR, BACKEND] {
            lab.sh(who, "ip -4 route flush cache; ip -6 route flush cache");
        }
        let vip = family.vip();
        let (act, bytes) = match self {
            Self::TcpGet => {
                let host = if family == Family::V4 { vip.to_string() } else { format!("[{vip}]") };
                let range = format!("0-{}", TCP_BYTES - 1);
                let curl = format!("curl -gsS --max-time 8 -Y 1 -y 3 -r {range} http://{host}/big | sha256sum");
                return lab.exec(FAR, &["bash", "-o", "pipefail", "-c", &curl]);
            }
            Self::TcpPut => ("tcp-put", TCP_BYTES),
            Self::UdpGet => ("udp-get", UDP_BYTES),
            Self::UdpPut => ("udp-put", UDP_BYTES),
        };
        let (script, source) = (shipped("scripts/lab.d/bulk"), far(family));
        lab.exec(FAR, &[&script, act, &source.to_string(), &vip.to_string(), &BULK.to_string(), &bytes.to_string()])
    }

    /// What it prints if every byte has arrived.
    pub(crate) fn expected(self, lab: &Lab, narrow: Narrow) -> String {
        let mtu = if narrow == Narrow::Nowhere { 1500 } else { NARROW };
        let bulk = |bytes| {
            let python = "import hashlib,sys; n=int(sys.argv[1]); \
                print(hashlib.sha256(hashlib.shake_128(b'bulk').digest(n)).hexdigest(), n, sys.argv[2])";
            lab.sh("client", &format!("/usr/bin/python3 -c \"{python}\" {bytes} {mtu}"))
        };
        match self {
            Self::TcpGet => {
                let data = std::env::var("LAB_DATA").unwrap_or_else(|_| "/var/cache/loaded-lab".to_owned());
                lab.sh("client", &format!("head -c {TCP_BYTES} {data}/big | sha256sum"))
            }
            Self::TcpPut => bulk(TCP_BYTES),
            Self::UdpGet | Self::UdpPut => bulk(UDP_BYTES),
        }
    }
}

/// Runs all transfers in both families with one narrow link.
#[track_caller]
fn completes(narrow: Narrow) -> Option<(Lab, Loaded)> {
    let lab = Lab::up()?;
    lab.lengthen(narrow);
    lab.serve_bulk();
    lab.sh("lb", FIREWALL);
    let loaded = by_ports(&lab);
    for transfer in Transfer::ALL {
        let expected = transfer.expected(&lab, narrow);
        for family in Family::BOTH {
            let said = transfer.run(&lab, family);
            assert_eq!(said.out, expected, "{narrow:?} {family:?} {transfer:?}: {}", said.err);
        }
    }
    Some((lab, loaded))
}

/// Else the others show nothing.
#[test]
fn a_wide_way_is_used_to_its_width() {
    let Some((_lab, loaded)) = completes(Narrow::Nowhere) else { return };
    for label in ["error_forwarded", "error_relayed", "error_returned"] {
        assert_eq!(loaded.count(label), 0, "{label}: {:?}", loaded.counters());
    }
    loaded.stop();
}

/// A router on the clients' side tells the VIP.
#[test]
fn a_narrow_link_of_a_router_before_the_balancer_is_found() {
    let Some((_lab, loaded)) = completes(Narrow::Outer) else { return };
    assert!(loaded.count("error_forwarded") >= 4, "{:?}", loaded.counters());
    loaded.stop();
}

/// The balancer's own kernel tells its own address.
#[test]
fn a_narrow_link_of_the_balancer_to_clients_is_found() {
    let Some((_lab, loaded)) = completes(Narrow::Front) else { return };
    assert!(loaded.count("error_forwarded") >= 4, "{:?}", loaded.counters());
    loaded.stop();
}

/// The balancer's own kernel tells the client, about a packet with a new destination.
#[test]
fn a_narrow_link_of_the_balancer_to_backends_is_found() {
    let Some((_lab, loaded)) = completes(Narrow::Back) else { return };
    assert!(loaded.count("error_relayed") >= 4, "{:?}", loaded.counters());
    loaded.stop();
}

/// A router on the backends' side tells the client.
#[test]
fn a_narrow_link_of_a_router_behind_the_balancer_is_found() {
    let Some((_lab, loaded)) = completes(Narrow::Inner) else { return };
    assert!(loaded.count("error_relayed") >= 4, "{:?}", loaded.counters());
    loaded.stop();
}

/// The same transfers, with everything as it is but the rules that bring errors to a worker.
#[test]
fn without_our_errors_the_same_transfers_hang() {
    let Some(lab) = Lab::up() else { return };
    lab.lengthen(Narrow::Nowhere);
    lab.serve_bulk();
    let loaded = by_ports(&lab);
    // Who would put them back is held. Workers need nobody.
    loaded.signal(Signal::SIGSTOP);
    lab.sh("lb", "iptables -t raw -F LOADED-0-E && ip6tables -t raw -F LOADED-0-E");
    let narrow = |who: &str, link: &str, mtu: u32| lab.sh(who, &format!("ip link set {link} mtu {mtu}"));
    let hang = |transfers: [Transfer; 2]| {
        std::thread::scope(|scope| {
            for (transfer, family) in transfers.into_iter().flat_map(|t| Family::BOTH.map(|family| (t, family))) {
                let lab = &lab;
                scope.spawn(move || {
                    let said = transfer.run(lab, family);
                    let waited = said.err.contains("no progress") || said.err.contains("curl: (28)");
                    assert!(waited && said.code != Some(0), "{family:?} {transfer:?} does not hang: {said:?}");
                });
            }
        });
    };
    // Each at both ends of the link, and to the sender that has to learn it from an error through the balancer.
    narrow("client", "eth1", NARROW);
    narrow("b8", "eth0", NARROW);
    hang([Transfer::TcpGet, Transfer::UdpGet]);
    narrow("client", "eth1", 1500);
    narrow("b8", "eth0", 1500);
    narrow("b6", "eth1", NARROW);
    narrow("b7", "eth0", NARROW);
    hang([Transfer::TcpPut, Transfer::UdpPut]);
    narrow("b6", "eth1", 1500);
    narrow("b7", "eth0", 1500);
    // And it was nothing else.
    for (transfer, family) in Transfer::ALL.into_iter().flat_map(|t| Family::BOTH.map(|family| (t, family))) {
        assert_eq!(transfer.run(&lab, family).out, transfer.expected(&lab, Narrow::Nowhere), "{family:?} {transfer:?}");
    }
    loaded.signal(Signal::SIGCONT);
    loaded.stop();
}
