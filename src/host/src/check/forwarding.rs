//! Whether this host forwards packets of clients to backends and back. Both families have a switch for all interfaces. What they
//! do besides is why it is not the first thing that `host = "set"` writes: IPv4's ip_forward sets each interface's switch and
//! turns accept_redirects off (inet_forward_change, net/ipv4/devinet.c); IPv6's conf/all/forwarding sets each interface's too, and
//! takes away routes that came by router advertisements, the host's default route among them, unless the interface has
//! accept_ra=2 (addrconf_fixup_forwarding, net/ipv6/addrconf.c; rt6_purge_dflt_routers, net/ipv6/route.c).

use super::{Host, fatal, host, set};
use crate::problem::{Problem, Setting, Severity};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Host<'_> {
    /// The interfaces that packets of one family come in by: from clients, as far as one can guess, and from backends.
    fn in_use(&self, v4: bool, vips: &BTreeSet<IpAddr>, backends: &BTreeSet<IpAddr>) -> BTreeSet<&str> {
        let clients = vips.iter().filter(|vip| vip.is_ipv4() == v4).flat_map(|vip| self.networks.of_clients(*vip));
        let backends = backends.iter().filter(|backend| backend.is_ipv4() == v4);
        clients.chain(backends.filter_map(|backend| self.networks.towards(*backend))).collect()
    }

    /// IPv4 is off as a whole, and not on for each interface in use.
    pub(super) fn forwarding4(&self, vips: &BTreeSet<IpAddr>, backends: &BTreeSet<IpAddr>) -> Option<Problem> {
        if !vips.iter().any(IpAddr::is_ipv4) || !self.off("ipv4/ip_forward") {
            return None;
        }
        let used = self.in_use(true, vips, backends);
        let is_off = |name: &&&str| (self.sysctl)(&format!("ipv4/conf/{name}/forwarding")) != Some(1);
        let off: Vec<_> = used.iter().filter(is_off).map(|name| set(name, "forwarding", 1)).collect();
        let problem = || fatal("IPv4 packets are not forwarded to backends").of_family(4);
        let is_problem = used.is_empty() || !off.is_empty();
        is_problem.then(|| problem().mended_by("sysctl -w net.ipv4.ip_forward=1").settable(off))
    }

    /// The same of IPv6. Since Linux 6.17 an interface can be told apart, by force_forwarding (ip6_forward,
    /// net/ipv6/ip6_output.c).
    pub(super) fn forwarding6(&self, vips: &BTreeSet<IpAddr>, backends: &BTreeSet<IpAddr>) -> Option<Problem> {
        if !vips.iter().any(IpAddr::is_ipv6) || !self.off("ipv6/conf/all/forwarding") {
            return None;
        }
        let used = self.in_use(false, vips, backends);
        let forced = |name: &str| (self.sysctl)(&format!("ipv6/conf/{name}/force_forwarding"));
        let off: Vec<_> = used.iter().copied().filter(|name| forced(name) != Some(1)).collect();
        if off.is_empty() && !used.is_empty() {
            return None;
        }
        let advertised = self.configured_by_advertisements();
        let keep = advertised.iter().map(|name| Setting::of(6, name, "accept_ra", 2));
        let cure: Vec<_> = keep.chain([Setting::of(6, "all", "forwarding", 1)]).map(|one| one.to_string()).collect();
        let mut text = "IPv6 packets are not forwarded to backends".to_owned();
        if !advertised.is_empty() {
            let names = advertised.join(", ");
            text += &format!(
                ", and {names}, configured by router advertisements, needs accept_ra=2 to keep its routes then"
            );
        }
        let problem = fatal(text).of_family(6).mended_by(format!("sysctl -w {}", cure.join(" ")));
        let one_by_one = !off.is_empty() && off.iter().all(|name| forced(name).is_some());
        Some(match () {
            () if one_by_one => problem.settable(off.iter().map(|name| Setting::of(6, name, "force_forwarding", 1))),
            () if advertised.is_empty() && !self.is_mixed6() => {
                problem.settable([Setting::of(6, "all", "forwarding", 1)])
            }
            () => problem,
        })
    }

    /// Interfaces that would lose routes as soon as IPv6 is forwarded.
    fn configured_by_advertisements(&self) -> Vec<&str> {
        let loses = |name: &&str| (self.sysctl)(&format!("ipv6/conf/{name}/accept_ra")) != Some(2);
        self.networks.advertised().into_iter().filter(loses).collect()
    }

    /// Whether some interface has its switch for IPv6 on, which would be off when the switch for all were put back.
    fn is_mixed6(&self) -> bool {
        let is_on = |name: &str| (self.sysctl)(&format!("ipv6/conf/{name}/forwarding")) == Some(1);
        self.networks.interfaces(false).into_iter().any(is_on)
    }

    /// Whether IPv4 is forwarded is asked of the interface that a packet comes in by (ip_route_input_slow, net/ipv4/route.c):
    /// `ip_forward` sets it for all, and each can be set apart.
    pub(super) fn unforwarded(&self, vips: &BTreeSet<IpAddr>, backends: &BTreeSet<IpAddr>) -> Vec<Problem> {
        if self.off("ipv4/ip_forward") {
            return Vec::new();
        }
        let is_off = |name: &&str| self.off(&format!("ipv4/conf/{name}/forwarding"));
        let v4 = |address: &&IpAddr| address.is_ipv4();
        let mut problems = Vec::new();
        let towards: BTreeSet<_> = backends.iter().filter(v4).filter_map(|b| self.networks.towards(*b)).collect();
        if !vips.iter().any(|vip| vip.is_ipv4()) {
            return problems;
        }
        problems.extend(towards.iter().copied().filter(is_off).map(|name| {
            let text = format!("IPv4 packets that come in on {name}, as replies of backends do, are not forwarded");
            fatal(text).of_family(4).mended_by_setting([set(name, "forwarding", 1)])
        }));
        let clients: BTreeSet<_> = vips.iter().filter(v4).flat_map(|vip| self.networks.of_clients(*vip)).collect();
        problems.extend(clients.difference(&towards).copied().filter(is_off).map(|name| {
            let text = format!("IPv4 packets that come in on {name}, as those of clients do, are not forwarded");
            host(Severity::Impairing, text).of_family(4).mended_by_setting([set(name, "forwarding", 1)])
        }));
        problems
    }
}
