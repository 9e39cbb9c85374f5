//! Places on hosts that are only described, and this host's own loopback.

use super::*;
use crate::fixture::plan;
use crate::problem::Severity;
use loaded_ipc::Protocol;

fn link(interface: &str, address: &str) -> InterfaceAddress {
    let (address, length) = Network::split(address).unwrap();
    InterfaceAddress { interface: interface.into(), address, network: Network::around(address, length).unwrap() }
}

fn place(network: &str, interface: Option<&str>) -> Place {
    let network = Network::parse(network).unwrap();
    let to = if network.is_ipv4() { network.last() } else { "ff02::1".parse().unwrap() };
    Place { network, to, interface: interface.map(str::to_owned) }
}

fn host() -> Vec<InterfaceAddress> {
    let list = [
        ("lo", "127.0.0.1/8"),
        ("eth0", "192.0.2.254/24"),
        ("eth1", "198.51.100.100/32"),
        ("eth1", "198.51.100.254/24"),
        ("eth1", "fe80::1/64"),
        ("eth1", "2001:db8:2::fe/64"),
        ("eth2", "fe80::2/64"),
    ];
    list.map(|(interface, address)| link(interface, address)).to_vec()
}

fn refused(network: &str, interface: &str) -> Option<String> {
    obstacle(&place(network, Some(interface)), &host(), |name| host().iter().any(|link| link.interface == name))
}

#[test]
fn a_place_must_be_on_its_interface_and_not_wider_than_it() {
    for good in ["198.51.100.0/24", "198.51.100.128/25", "2001:db8:2::/64", "2001:db8:2::/80"] {
        assert_eq!(refused(good, "eth1"), None, "{good}");
    }
    let wide = refused("198.51.0.0/16", "eth1").unwrap();
    assert_eq!(wide, "discovery network 198.51.0.0/16 is wider than 198.51.100.0/24 of eth1");
    assert!(refused("2001:db8::/32", "eth1").unwrap().contains("wider than 2001:db8:2::/64 of eth1"));
    assert!(refused("::/0", "eth1").unwrap().contains("wider than"));
    let gone = refused("198.51.100.0/24", "eth9").unwrap();
    assert_eq!(gone, "discovery network 198.51.100.0/24: there is no interface eth9");
    assert!(refused("198.51.100.0/24", "eth0").unwrap().contains("eth0 has no address to send from"));
    assert!(refused("2001:db8:2::/64", "eth2").unwrap().contains("eth2 has no address"), "link-local alone");
}

#[test]
fn an_interface_with_a_narrow_and_a_wide_network_is_as_wide_as_the_wide_one() {
    let mut links = host();
    links.push(link("eth1", "198.51.0.1/16"));
    assert_eq!(obstacle(&place("198.51.0.0/16", Some("eth1")), &links, |_| true), None);
    assert!(obstacle(&place("198.0.0.0/8", Some("eth1")), &links, |_| true).is_some());
}

#[test]
fn questions_are_sent_from_a_global_address_of_the_network() {
    let from = |network, interface| source(&place(network, interface), &host()).map(|link| link.address.to_string());
    assert_eq!(from("198.51.100.0/25", Some("eth1")).as_deref(), Some("198.51.100.100"));
    assert_eq!(from("198.51.100.128/25", None).as_deref(), Some("198.51.100.254"));
    assert_eq!(from("2001:db8:2::/64", Some("eth1")).as_deref(), Some("2001:db8:2::fe"));
    assert_eq!(from("2001:db8:7::/64", Some("eth1")).as_deref(), Some("2001:db8:2::fe"), "for ff02::1 any will do");
    assert_eq!(from("198.51.7.0/24", Some("eth1")), None);
    assert_eq!(from("2001:db8:2::/64", Some("eth2")), None);
}

#[test]
fn this_host_s_own_addresses_and_interfaces() {
    let loopback = IpAddr::from([127, 0, 0, 1]);
    // A fresh namespace has none while lo is down.
    let up = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default().contains("127.0.0.1");
    assert_eq!(own_addresses().contains(&loopback), up);
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    assert_eq!(check_discovery(&plan), []);
    let places = vec![place("198.51.100.0/24", Some("no-such-nic")); 2];
    plan.services[0].discover = Some(loaded_config::plan::Discover { places, limit: 10, interval: 1000 });
    let found = check_discovery(&plan);
    assert!(found.len() == 1 && found[0].severity == Severity::NoStart, "{found:?}");
    assert!(found[0].text.contains("no interface no-such-nic"));
}
