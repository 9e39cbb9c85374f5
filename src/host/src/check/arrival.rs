//! Whether packets of clients can come to the VIPs and go on, as far as interfaces, addresses and routes tell.

use super::{Host, host};
use crate::links::Silence;
use crate::problem::{Problem, Severity};
use loaded_config::plan::Plan;
use loaded_ipc::Mode;
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Host<'_> {
    /// Nothing here keeps an instance from starting: links and addresses come and go.
    pub(super) fn arrival(&self, plan: &Plan) -> Vec<Problem> {
        let translated = || plan.services.iter().filter(|service| service.mode == Mode::Nat);
        let vips: BTreeSet<_> = translated().flat_map(|service| &service.vips).copied().collect();
        let backends: BTreeSet<_> = plan.services.iter().flat_map(|s| s.backends.iter().map(|b| b.address)).collect();
        let mut problems: Vec<_> = vips.iter().filter_map(|vip| self.vip(*vip)).collect();
        for family in [4, 6] {
            let is_of = |address: &&IpAddr| address.is_ipv4() == (family == 4);
            let vips: Vec<_> = vips.iter().filter(is_of).copied().collect();
            let backends: Vec<_> = backends.iter().filter(is_of).copied().collect();
            problems.extend(self.no_clients(family, &vips, &backends));
            problems.extend(self.links_to(family, &backends));
            problems.extend(self.astray(family, &backends));
        }
        problems.extend(self.unforwarded(&vips, &backends));
        problems
    }

    /// What keeps packets to a VIP of mode "nat" from coming here.
    fn vip(&self, vip: IpAddr) -> Option<Problem> {
        let impairs = |text| host(Severity::Impairing, text);
        let link = self.networks.interface(vip);
        let Some(holder) = self.links.holder(vip) else {
            let is_routed = matches!(vip, IpAddr::V4(v4) if self.locals.contains(&v4));
            return (!is_routed).then(|| self.absent(vip, link));
        };
        if self.links.duplicates.contains(&vip) {
            let text = format!("{vip} of {holder} is out of use: another host on that link has it (dadfailed)");
            return Some(impairs(text).mended_by(format!(
                "there remove it, and here: ip address del {vip} dev {holder}; ip address add {vip} dev {holder}"
            )));
        }
        match self.silence(holder, link) {
            Some(Silence::Down) => {
                let text = format!("{vip} is an address of {holder}, which is down: no client comes by it");
                return Some(impairs(text).mended_by(format!("ip link set {holder} up")));
            }
            Some(Silence::NoLink) => {
                let text = format!(
                    "{vip} is an address of {holder}, which has no link, so no client comes by it: look at its cable, or at \
                     the other end (ip link show {holder})"
                );
                return Some(impairs(text));
            }
            Some(Silence::NoArp) => {
                let text = format!("nobody who asks on {holder} for {vip} gets an answer: the interface has noarp");
                return Some(impairs(text).mended_by(format!("ip link set {holder} arp on")));
            }
            Some(Silence::BridgePort) => {
                let text = format!(
                    "{vip} is an address of {holder}, a port of a bridge, which takes the packets that come by it: give the \
                     address to the bridge, or"
                );
                return Some(impairs(text).mended_by(format!("ip link set {holder} nomaster")));
            }
            None => {}
        }
        if let IpAddr::V4(v4) = vip
            && !self.locals.is_empty()
            && !self.locals.contains(&v4)
        {
            let text = format!("nobody who asks for {vip} gets an answer: its route of type local is gone");
            let cure = format!("ip route add local {vip} dev {holder} table local src {vip}");
            return Some(impairs(text).of_family(4).mended_by(cure));
        }
        let link = link?;
        // Modes 1 and 2 answer for addresses of the interface that is asked alone, 8 for none (arp_ignore, net/ipv4/arp.c).
        // IN_DEV_ARP_IGNORE is the greater of both.
        let ignores = self.setting("all", "arp_ignore").max(self.setting(link, "arp_ignore"));
        let unheard = vip.is_ipv4() && (ignores == 8 || (matches!(ignores, 1 | 2) && holder != link));
        unheard.then(|| {
            let text = format!("nobody who asks on {link} for {vip} gets an answer (arp_ignore={ignores})");
            let cure = format!("sysctl -w net.ipv4.conf.all.arp_ignore=0 {}=0", super::key_of(link, "arp_ignore"));
            impairs(text).of_family(4).mended_by(cure)
        })
    }

    /// What keeps an interface from bringing packets. Whether it has ARP matters only where it is the link of the address.
    pub(super) fn silence(&self, interface: &str, link: Option<&str>) -> Option<Silence> {
        match self.links.silence(interface) {
            Some(Silence::NoArp) if link != Some(interface) => None,
            None if (self.is_bridge_port)(interface) => Some(Silence::BridgePort),
            silence => silence,
        }
    }

    /// A standby has no VIP and is well; and a router may send a VIP's packets here. So it is no more than a warning.
    fn absent(&self, vip: IpAddr, link: Option<&str>) -> Problem {
        let text = format!(
            "{vip} is no address of this host, so its packets come only from a router that has a route for it to this host; \
             on a standby VRRP brings it. To have it here"
        );
        Problem::new("vip_absent", Severity::Warning, text)
            .mended_by(format!("ip address add {vip} dev {}", link.unwrap_or("…")))
    }

    /// No route leads anywhere but to backends: replies to clients have no way, wherever those are.
    fn no_clients(&self, family: u8, vips: &[IpAddr], backends: &[IpAddr]) -> Option<Problem> {
        let first = vips.first()?;
        let behind: BTreeSet<_> = backends.iter().filter_map(|backend| self.networks.towards(*backend)).collect();
        let others = self.networks.interfaces(first.is_ipv4()).into_iter().any(|name| !behind.contains(name));
        // Rules may send packets to other tables; the kernel knows.
        if others || vips.iter().any(|vip| self.networks.of_clients(*vip).next().is_some()) || (self.leads_out)(*first)
        {
            return None;
        }
        let text = format!("no route leads to clients of IPv{family}: replies to them are lost");
        Some(host(Severity::Impairing, text).of_family(family).mended_by("ip route add default via …"))
    }
}

#[cfg(all(test, target_endian = "little"))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::connected::ConnectedNetworks;
    use crate::fixture::{ROUTES, plan};
    use crate::links::Links;
    use crate::route::parse_routes;
    use loaded_ipc::Protocol;

    const VIP: &str = "192.0.2.100";
    const BACKEND: &str = "198.51.100.11";

    fn host_with(change: impl FnOnce(&mut Host<'_>), settings: &[(&str, i64)], vip: &str) -> Vec<String> {
        let mut host = Host {
            routes: parse_routes(ROUTES),
            locals: BTreeSet::new(),
            networks: ConnectedNetworks::parse(ROUTES, ""),
            links: Links { holders: [(VIP.parse().unwrap(), "eth0".to_owned())].into(), ..Links::default() },
            own: BTreeSet::new(),
            sysctl: &|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value),
            leads_out: &|_| false,
            reaches: &|_| true,
            passes: &|_| true,
            network_around: &|_| None,
            is_bridge_port: &|_| false,
        };
        change(&mut host);
        let problems = host.arrival(&plan(&[vip], &[BACKEND], Protocol::Any, &[]));
        problems.iter().map(|problem| format!("{:?}: {problem}", problem.severity)).collect()
    }

    fn silent(name: &str, silence: Silence) -> Vec<String> {
        host_with(|host| host.links.silent.extend([(name.to_owned(), silence)]), &[], VIP)
    }

    #[test]
    fn a_host_that_is_set_up_has_no_problem() {
        assert_eq!(host_with(|_| (), &[("ipv4/conf/eth0/arp_ignore", 1)], VIP), [""; 0]);
        assert_eq!(silent("eth7", Silence::Down), [""; 0], "an interface that nobody needs");
    }

    #[test]
    fn an_interface_without_a_link_is_named() {
        let found = silent("eth0", Silence::Down);
        assert!(found.len() == 1 && found[0].ends_with("no client comes by it: ip link set eth0 up"), "{found:?}");
        let found = silent("eth0", Silence::NoLink);
        assert!(found.len() == 1 && found[0].starts_with("Impairing: 192.0.2.100 is an address of eth0"), "{found:?}");
        let found = silent("eth1", Silence::NoLink);
        assert!(found.len() == 1 && found[0].contains("leads through it: 198.51.100.11; look"), "{found:?}");
    }

    #[test]
    fn an_interface_that_answers_nobody_or_is_a_bridges_is_named() {
        let found = silent("eth0", Silence::NoArp);
        assert!(found.len() == 1 && found[0].ends_with("has noarp: ip link set eth0 arp on"), "{found:?}");
        let found = silent("eth1", Silence::NoArp);
        assert!(found.len() == 1 && found[0].starts_with("Impairing: eth1 has noarp"), "{found:?}");
        let elsewhere = |host: &mut Host<'_>| {
            host.links.holders.insert(VIP.parse().unwrap(), "vips".to_owned());
            host.links.silent.insert("vips".to_owned(), Silence::NoArp);
        };
        assert_eq!(host_with(elsewhere, &[], VIP), [""; 0], "a VIP on an interface without ARP, asked for by another");
        let port = |host: &mut Host<'_>| host.is_bridge_port = &|name| name == "eth0";
        let found = host_with(port, &[], VIP);
        assert!(found.len() == 1 && found[0].ends_with("ip link set eth0 nomaster"), "{found:?}");
    }

    #[test]
    fn a_backend_that_packets_do_not_go_to_is_named() {
        let own = |host: &mut Host<'_>| host.own.extend([BACKEND.parse::<IpAddr>().unwrap()]);
        let found = host_with(own, &[], VIP);
        assert!(
            found.len() == 1 && found[0].contains("this host has the address of backend 198.51.100.11"),
            "{found:?}"
        );
        let found = host_with(|host| host.reaches = &|_| false, &[], VIP);
        assert!(found.len() == 1 && found[0].ends_with("ip rule show"), "{found:?}");
    }

    #[test]
    fn a_vip_that_is_not_here_is_a_warning_and_one_that_nobody_hears_is_not() {
        let found = host_with(|host| host.links.holders.clear(), &[], VIP);
        assert!(found.len() == 1 && found[0].starts_with("Warning: 192.0.2.100 is no address"), "{found:?}");
        assert!(found[0].ends_with("ip address add 192.0.2.100 dev eth0"), "{found:?}");
        let routed = |host: &mut Host<'_>| {
            host.links.holders.clear();
            host.locals.insert(VIP.parse().unwrap());
        };
        assert_eq!(host_with(routed, &[], VIP), [""; 0], "a local route takes it");
        let on_lo = |host: &mut Host<'_>| drop(host.links.holders.insert(VIP.parse().unwrap(), "lo".to_owned()));
        let found = host_with(on_lo, &[("ipv4/conf/all/arp_ignore", 1)], VIP);
        assert!(found.len() == 1 && found[0].contains("(arp_ignore=1): sysctl -w"), "{found:?}");
        let found = host_with(|_| (), &[("ipv4/conf/eth0/arp_ignore", 8)], VIP);
        assert!(found.len() == 1 && found[0].starts_with("Impairing: nobody who asks on eth0"), "{found:?}");
        let twice = |host: &mut Host<'_>| host.links.duplicates.push(VIP.parse().unwrap());
        let found = host_with(twice, &[], VIP);
        assert!(found.len() == 1 && found[0].contains("dadfailed"), "{found:?}");
    }

    #[test]
    fn forwarding_is_asked_of_each_interface() {
        let off = |name: &str| host_with(|_| (), &[(&format!("ipv4/conf/{name}/forwarding"), 0)], VIP);
        let (clients, backends) = (off("eth0"), off("eth1"));
        assert!(clients.len() == 1 && clients[0].starts_with("Impairing: IPv4 packets that come in on eth0"));
        assert!(backends.len() == 1 && backends[0].ends_with("sysctl -w net.ipv4.conf.eth1.forwarding=1"));
        assert!(backends[0].starts_with("Fatal: "), "{backends:?}");
        assert_eq!(off("eth2"), [""; 0]);
        let all = [("ipv4/ip_forward", 0), ("ipv4/conf/eth0/forwarding", 0)];
        assert_eq!(host_with(|_| (), &all, VIP), [""; 0], "told as a whole");
    }

    #[test]
    fn clients_without_a_way_back_are_told_of_unless_another_table_has_one() {
        /// eth1 alone.
        const INSIDE: &str = "Iface\neth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let cut = |host: &mut Host<'_>| host.networks = ConnectedNetworks::parse(INSIDE, "");
        let found = host_with(cut, &[], VIP);
        assert!(found.len() == 1 && found[0].starts_with("Impairing: no route leads to clients of IPv4"), "{found:?}");
        let elsewhere = |host: &mut Host<'_>| {
            cut(host);
            host.leads_out = &|_| true;
        };
        assert_eq!(host_with(elsewhere, &[], VIP), [""; 0]);
    }
}
