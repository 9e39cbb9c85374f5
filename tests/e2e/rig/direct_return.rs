//! The lab for direct server return: backends have the VIP, and a way to the client past the balancer.
//!
//! ```text
//!            192.0.2.0/24            198.51.100.0/24
//!   client eth0 ────── eth0 lb eth1 ────── sw ────── eth0 b1 … b3, VIP on lo
//!     │ eth1 198.51.100.1                   │
//!     └─────────────────────────────────────┘
//! ```

use super::lab::{BACKENDS, Lab, root};

/// Sets up backends, routers and balancer as docs/guide.md says.
pub(crate) fn up() -> Option<Lab> {
    let lab = Lab::up()?;
    let namespace = |who: &str| lab.namespace(who);
    lab.sh("sw", &format!("ip link add direct type veth peer name eth1 netns {}", namespace("client")));
    lab.sh("sw", "ip link set direct master br0 up");
    lab.sh(
        "client",
        "ip route del 198.51.100.0/24; ip -6 route del 2001:db8:2::/64; ip link set eth1 up
         ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:2::1/64 dev eth1 nodad
         ip route add 192.0.2.100 via 192.0.2.254; ip -6 route add 2001:db8:1::100 via 2001:db8:1::fe",
    );
    // The balancer has the VIP no more: it gets its packets from the router, which the client is here.
    lab.sh(
        "lb",
        "ip address del 192.0.2.100/24 dev eth0; ip address del 2001:db8:1::100/64 dev eth0
         ip address add 192.0.2.254/24 dev eth0; ip address add 2001:db8:1::fe/64 dev eth0 nodad
         sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
    );
    answer_past_the_balancer(&lab);
    for who in BACKENDS {
        let echo = root().join("scripts/lab.d/udp-echo");
        let echo = format!("setsid {} {who} 7009 192.0.2.100 2001:db8:1::100 >/dev/null 2>&1 &", echo.display());
        lab.sh(who, &echo);
    }
    Some(lab)
}

/// Rules and routes by mark on the balancer.
pub(crate) fn routes(lab: &Lab) -> String {
    lab.sh(
        "lb",
        "ip rule show; ip -6 rule show
         ip -N -o route show table all proto 76; ip -6 -N -o route show table all proto 76",
    )
}

/// Bytes that the balancer's interfaces have received and sent.
pub(crate) fn passed(lab: &Lab) -> u64 {
    let text = lab.sh("lb", "grep -E 'eth0|eth1' /proc/net/dev");
    let numbers = |line: &str| -> Vec<u64> {
        line.split_once(':').unwrap().1.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    text.lines().map(numbers).map(|numbers| numbers[0] + numbers[8]).sum()
}

/// Gives all backends the VIP, and a way to clients by a router that is no balancer.
pub(crate) fn answer_past_the_balancer(lab: &Lab) {
    for who in BACKENDS {
        lab.sh(
            who,
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
             ip address add 192.0.2.100/32 dev lo; ip address add 2001:db8:1::100/128 dev lo nodad
             ip route replace default via 198.51.100.1; ip -6 route replace default via 2001:db8:2::1",
        );
    }
}
