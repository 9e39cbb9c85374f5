//! Mode "dsr": checks that need to ask on the link.

use super::finding::{Finding, fatal, sound, unseen, warning};
use loaded_config::plan::Plan;
use loaded_host::ConnectedNetworks;
use loaded_ipc::Mode;
use loaded_netfilter::Tools;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A neighbour answers within milliseconds.
const NEIGHBOUR_WAIT: Duration = Duration::from_millis(300);
/// The discard port (RFC 863): the receiver drops the datagram.
const DISCARD: u16 = 9;

/// Asks whether a backend answers ARP for a VIP, which all of them have: some clients would then bypass the balancer. Also
/// checks that `ip` is installed.
pub(super) fn findings(plan: &Plan) -> Vec<Finding> {
    let direct = || plan.services.iter().filter(|service| service.mode == Mode::Dsr);
    if direct().next().is_none() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if Tools::find().is_ok_and(|tools| !tools.has_ip()) {
        findings.push(fatal("dsr", "ip not found, and mode dsr routes by it; install the package iproute2"));
    }
    let networks = match ConnectedNetworks::read() {
        Ok(networks) => networks,
        Err(error) => {
            findings.push(unseen("dsr", format!("which networks this host is in: {error}")));
            return findings;
        }
    };
    let vips: BTreeSet<_> = direct().flat_map(|service| &service.vips).copied().collect();
    let v4 = vips.iter().filter(|vip| vip.is_ipv4());
    let here: BTreeSet<_> = v4.filter_map(|vip| Some((vip, networks.interface(*vip)?))).collect();
    for (vip, interface) in &here {
        if let Err(error) = ask(**vip, interface) {
            findings.push(unseen("dsr", format!("who answers ARP for {vip}: {error}")));
        }
    }
    if !here.is_empty() {
        std::thread::sleep(NEIGHBOUR_WAIT);
    }
    let table = fs::read_to_string("/proc/net/arp").unwrap_or_default();
    let answers: Vec<_> = here.iter().filter_map(|(vip, _)| Some((**vip, neighbour(&table, **vip)?))).collect();
    findings.extend(answers.iter().map(|(vip, link)| {
        warning(
            "dsr",
            format!(
                "{link} answers ARP for {vip}: if that is a backend, clients on this link bypass the balancer; on \
                 that host: \
                 sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, and {vip}/32 on lo only"
            ),
        )
    }));
    if findings.is_empty() {
        findings.push(sound("dsr", "no host on our links answers ARP for a VIP of mode dsr"));
    }
    findings
}

/// Makes the kernel ask who has an address on the link, by sending there. The socket is bound to the interface, so a local
/// route by which this host answers for the address itself is bypassed.
fn ask(vip: IpAddr, interface: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    setsockopt(&socket, BindToDevice, &OsString::from(interface))?;
    socket.send_to(&[], SocketAddr::new(vip, DISCARD)).map(drop)
}

/// The link address of a neighbour that has answered: `192.0.2.1 0x1 0x2 aa:bb:cc:dd:ee:ff * eth0`, ATF_COM (0x2) set
/// (include/uapi/linux/if_arp.h).
fn neighbour(table: &str, address: IpAddr) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[who, _, flags, link, ..] = fields.as_slice() else { return None };
        let complete = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()? & 2 != 0;
        (complete && who.parse() == Ok(address)).then_some(link)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_answered_is_a_neighbour() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     192.0.2.1        0x1         0x2         de:ad:be:ef:00:01     *        eth0\n\
                     192.0.2.2        0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        assert_eq!(neighbour(table, IpAddr::from([192, 0, 2, 1])), Some("de:ad:be:ef:00:01"));
        assert_eq!(neighbour(table, IpAddr::from([192, 0, 2, 2])), None);
        assert_eq!(neighbour(table, IpAddr::from([192, 0, 2, 3])), None);
    }
}
