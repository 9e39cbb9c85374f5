//! Problems with services of mode "dsr", whose backends answer clients directly.

use super::{Host, fatal, no_redirects, set, v4, warning};
use crate::problem::Problem;
use crate::route::{default_route, lookup};
use loaded_config::plan::Plan;
use loaded_ipc::{Mode, Protocol, Unserved};
use std::collections::BTreeSet;
use std::net::IpAddr;

impl Host<'_> {
    pub(super) fn direct(&self, plan: &Plan) -> Vec<Problem> {
        let services = || plan.services.iter().filter(|service| service.mode == Mode::Dsr);
        let vips: BTreeSet<_> = services().flat_map(|service| &service.vips).copied().collect();
        let backends: BTreeSet<_> = services().flat_map(|s| s.backends.iter().map(|b| b.address)).collect();
        let mut problems = Vec::new();
        // The local table is consulted at priority 0, before any rule of ours.
        let own = vips.iter().filter(|vip| self.own.contains(vip));
        problems.extend(own.map(|vip| {
            fatal(format!(
                "{vip} is an address of this host, which receives its packets itself before they are routed by their \
                 mark (mode dsr): have a router send its packets here, and remove it"
            ))
            .mended_by(format!("ip address del {vip} dev …"))
        }));
        let far = backends.iter().filter(|backend| self.networks.interface(**backend).is_none());
        problems.extend(far.map(|backend| {
            fatal(format!(
                "backend {backend} is not in a network of this host, and mode dsr sends to a backend's link address: \
                 give this host an address there"
            ))
        }));
        problems.extend(vips.iter().filter(|vip| !self.own.contains(vip)).filter_map(|vip| self.unheard(*vip)));
        let default = default_route(&self.routes).map(|route| route.interface.as_str());
        let to_vips = v4(vips.iter()).filter_map(|vip| Some(lookup(&self.routes, vip)?.interface.as_str()));
        let clients: BTreeSet<_> = to_vips.chain(default).collect();
        for interface in &clients {
            problems.extend(v4(vips.iter()).filter_map(|vip| self.strict_towards_clients(IpAddr::V4(vip), interface)));
        }
        let towards: BTreeSet<_> = v4(backends.iter()).filter_map(|b| self.networks.interface(b.into())).collect();
        if plan.unserved == Unserved::Pass && services().any(|service| service.protocol != Protocol::Any) {
            let text = "packets to a VIP of mode dsr that no service serves are not for this host, and may loop between \
                        it and a router";
            problems.push(warning(text).mended_by("unserved = \"drop\""));
        }
        problems.extend(towards.intersection(&clients).filter_map(|interface| self.redirects(interface)));
        problems
    }

    /// A VIP in a network this host is on: its neighbours ask for the VIP's link address.
    fn unheard(&self, vip: IpAddr) -> Option<Problem> {
        let interface = self.networks.interface(vip)?;
        // Somebody has added a host route, as proxy ARP requires.
        if lookup(&self.routes, as_v4(vip)?).is_some_and(|route| route.length == 32) {
            return None;
        }
        Some(
            warning(format!(
                "{vip} (mode dsr) is in the network of {interface}: unless routers there have a route for it to this \
             host, they ask who has it, and this host does not answer; and no backend may answer there (arp_ignore=1). \
             To answer for it"
            ))
            .mended_by(format!("ip route add {vip} dev lo && ip neigh add proxy {vip} dev {interface}")),
        )
    }

    /// Resets to clients are made here with the VIP as their source, which is no address of this host. And with
    /// src_valid_mark the return path to a client is looked up with our mark, which leads to a backend.
    fn strict_towards_clients(&self, vip: IpAddr, interface: &str) -> Option<Problem> {
        if !self.is_strict(interface) {
            return None;
        }
        let cure = [set(interface, "rp_filter", 2)];
        let by_mark = self.setting("all", "src_valid_mark").max(self.setting(interface, "src_valid_mark")) != 0;
        if by_mark {
            return Some(
                fatal(format!(
                    "strict reverse path filtering with src_valid_mark drops what clients send by {interface} (mode dsr)"
                ))
                .mended_by_setting(cure),
            );
        }
        let back = lookup(&self.routes, as_v4(vip)?).map(|route| route.interface.as_str());
        (back != Some(interface)).then(|| {
            warning(format!(
                "resets and rejections to clients that come in by {interface} are dropped by strict reverse path \
                 filtering (mode dsr, {vip})"
            ))
            .mended_by_setting(cure)
        })
    }

    /// A packet that leaves by the interface it came in by makes the kernel tell its sender of a shorter way
    /// (ip_rt_send_redirect, net/ipv4/route.c): past the balancer. IN_DEV_TX_REDIRECTS is "all or this one". IPv6 names
    /// only routers with link-local addresses in redirects (ndisc_send_redirect), and a backend's is none.
    fn redirects(&self, interface: &str) -> Option<Problem> {
        let on = self.setting("all", "send_redirects").max(self.setting(interface, "send_redirects")) != 0;
        on.then(|| {
            warning(format!(
                "clients and routers on {interface} may be told by redirects to send to a backend themselves (mode dsr)"
            ))
            .mended_by(no_redirects(interface))
            .settable(self.redirecting(interface))
        })
    }
}

fn as_v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}
