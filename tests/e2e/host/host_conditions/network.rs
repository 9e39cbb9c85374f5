//! Settings, routes, interfaces and addresses that change.

use super::Row;

const FORWARDING: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
const ROUTE4: &str = "ip route replace 198.51.100.0/24 dev eth1 src 198.51.100.254";
const ROUTE6: &str = "ip -6 route replace 2001:db8:2::/64 dev eth1";

pub(super) const SETTINGS: [Row; 13] = [
    ("sysctl -qw net.ipv4.ip_forward=0", 1, "IPv4 packets are not forwarded", FORWARDING),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", 1, "IPv6 packets are not forwarded", FORWARDING),
    ("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", 2, "packets are not forwarded", FORWARDING),
    (
        "sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0",
        1,
        "replies from backends on eth1 would be dropped as coming from our own address",
        "sysctl -qw net.ipv4.conf.eth1.accept_local=1",
    ),
    (
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
        1,
        "strict reverse path filtering drops replies that come in on eth1",
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=0",
    ),
    (
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        1,
        "strict reverse path filtering",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0",
    ),
    (
        "sysctl -qw net.ipv4.conf.eth1.forwarding=0",
        1,
        "IPv4 packets that come in on eth1, as replies of backends do, are not forwarded",
        "sysctl -qw net.ipv4.conf.eth1.forwarding=1",
    ),
    (
        "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
        1,
        "IPv4 packets that come in on eth0, as those of clients do, are not forwarded",
        "sysctl -qw net.ipv4.conf.eth0.forwarding=1",
    ),
    (
        "sysctl -qw net.ipv4.conf.eth0.arp_ignore=8",
        1,
        "nobody who asks on eth0 for 192.0.2.100 gets an answer (arp_ignore=8)",
        "sysctl -qw net.ipv4.conf.eth0.arp_ignore=0",
    ),
    (
        "sysctl -qw net.ipv4.conf.all.arp_ignore=8",
        1,
        "nobody who asks on eth0 for 192.0.2.100 gets an answer (arp_ignore=8)",
        "sysctl -qw net.ipv4.conf.all.arp_ignore=0",
    ),
    (
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
        1,
        "no route leads to clients of IPv6",
        "sysctl -qw net.ipv6.conf.all.disable_ipv6=0; ip -6 addr replace 2001:db8:1::100/64 dev eth0 nodad
         ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    // As userdel does; only the instance sees these files. Where systemd is asked too, it has a nobody of its own.
    (
        "grep -v ^nobody: /etc/passwd >STATE/accounts; nsenter -t PID -m mount --bind STATE/accounts /etc/passwd
         echo passwd: files >STATE/sources; nsenter -t PID -m mount --bind STATE/sources /etc/nsswitch.conf",
        1,
        "\"nobody\": no such user",
        "nsenter -t PID -m umount /etc/passwd /etc/nsswitch.conf",
    ),
    (
        "nsenter -t PID -m sh -c 'mount -t tmpfs -o mode=755 none /var/run/empty && touch /var/run/empty/left'",
        1,
        "is not empty (it holds \"left\")",
        "nsenter -t PID -m umount /var/run/empty",
    ),
];

pub(super) const NETWORK: [Row; 7] = [
    ("ip route del 198.51.100.0/24 dev eth1", 1, "no route to backend 198.51.100.11", ROUTE4),
    ("ip -6 route del 2001:db8:2::/64 dev eth1", 1, "no route to backend 2001:db8:2::11", ROUTE6),
    (
        "ip link set eth1 down",
        1,
        "no route to backend 198.51.100.12",
        "ip link set eth1 up; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    (
        "ip addr flush dev eth1 scope global",
        1,
        "no route to backend 198.51.100.11",
        "ip addr add 198.51.100.254/24 dev eth1; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    // Too little for IPv6 (RFC 8200 §5).
    (
        "ip link set eth1 mtu 1000",
        1,
        "no route to backend 2001:db8:2::11",
        "ip link set eth1 mtu 1500; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    (
        "ip link del eth1",
        1,
        "no route to backend 198.51.100.12",
        "ip link add eth1 type veth peer name lb netns SWITCH; ip -n SWITCH link set lb master br0 up; ip link set eth1 up
         ip addr add 198.51.100.254/24 dev eth1; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad
         sysctl -qw net.ipv4.conf.eth1.accept_local=1; ip -n B1 neigh flush all; ip -n B2 neigh flush all",
    ),
    // A VIP that VRRP brings while one setting is not as it has to be.
    (
        "ip addr del 192.0.2.100/24 dev eth0; sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0
         sleep 3; ip addr add 192.0.2.100/24 dev eth0",
        1,
        "replies from backends on eth1 would be dropped as coming from our own address",
        "sysctl -qw net.ipv4.conf.eth1.accept_local=1",
    ),
];

pub(super) const ROUTES: [Row; 15] = [
    (
        "ip route add blackhole 198.51.100.11",
        1,
        "the route to backend 198.51.100.11 throws its packets away",
        "ip route del blackhole 198.51.100.11",
    ),
    (
        "ip route add prohibit 198.51.100.12",
        1,
        "the route to backend 198.51.100.12 throws its packets away",
        "ip route del prohibit 198.51.100.12",
    ),
    (
        "ip -6 route add unreachable 2001:db8:2::11",
        1,
        "the route to backend 2001:db8:2::11 throws its packets away",
        "ip -6 route del unreachable 2001:db8:2::11",
    ),
    (
        "ip route del 192.0.2.0/24 dev eth0",
        1,
        "no route leads to clients of IPv4",
        "ip route replace 192.0.2.0/24 dev eth0 src 192.0.2.100",
    ),
    (
        "ip -6 route del 2001:db8:1::/64 dev eth0",
        1,
        "no route leads to clients of IPv6",
        "ip -6 route replace 2001:db8:1::/64 dev eth0",
    ),
    (
        "ip rule add to 198.51.100.11 prohibit",
        1,
        "a rule or a route of another table refuses what goes to backend 198.51.100.11,",
        "ip rule del to 198.51.100.11 prohibit",
    ),
    (
        "ip -6 rule add to 2001:db8:2::12 unreachable",
        1,
        "a rule or a route of another table refuses what goes to backend 2001:db8:2::12,",
        "ip -6 rule del to 2001:db8:2::12 unreachable",
    ),
    (
        "ip route add blackhole default table 99; ip rule add to 198.51.100.0/24 table 99",
        1,
        "refuses what goes to backend 198.51.100.11, 198.51.100.12,",
        "ip rule del to 198.51.100.0/24 table 99; ip route del blackhole default table 99",
    ),
    // What only packets that pass through meet.
    (
        "ip rule add iif eth0 prohibit",
        1,
        "from clients such as 192.0.2.1, by eth0, to backend 198.51.100.11, 198.51.100.12",
        "ip rule del iif eth0 prohibit",
    ),
    (
        "ip -6 rule add iif eth1 blackhole",
        1,
        "no reply on from 2001:db8:1::100, by eth1, to clients such as 2001:db8:1::1:",
        "ip -6 rule del iif eth1 blackhole",
    ),
    (
        "ip route add blackhole default table 98; ip rule add from 192.0.2.0/24 table 98",
        1,
        "passes no packet on from clients such as 192.0.2.1",
        "ip rule del from 192.0.2.0/24 table 98; ip route del blackhole default table 98",
    ),
    (
        "ip rule add from 192.0.2.100 prohibit",
        1,
        "no reply on from 192.0.2.100, by eth1, to clients such as 192.0.2.1:",
        "ip rule del from 192.0.2.100 prohibit",
    ),
    (
        "ip route add blackhole 192.0.2.0/25",
        1,
        "no reply on from 192.0.2.100, by eth1, to clients such as 192.0.2.1:",
        "ip route del blackhole 192.0.2.0/25",
    ),
    (
        "ip -6 rule add to 2001:db8:1::/64 unreachable",
        1,
        "no reply on from 2001:db8:1::100, by eth1, to clients such as 2001:db8:1::1:",
        "ip -6 rule del to 2001:db8:1::/64 unreachable",
    ),
    (
        "ip route del local 192.0.2.100 table local",
        1,
        "nobody who asks for 192.0.2.100 gets an answer: its route of type local is gone",
        "ip route add local 192.0.2.100 dev eth0 table local proto kernel scope host src 192.0.2.100",
    ),
];

pub(super) const LINKS: [Row; 14] = [
    (
        "ip link set eth0 down",
        1,
        "192.0.2.100 is an address of eth0, which is down",
        "ip link set eth0 up; ip -6 addr replace 2001:db8:1::100/64 dev eth0 nodad",
    ),
    ("ip -n SWITCH link set lb down", 1, "eth1 has no link", "ip -n SWITCH link set lb up"),
    (
        "sysctl -qw net.ipv6.conf.eth1.disable_ipv6=1",
        1,
        "no route to backend 2001:db8:2::12",
        "sysctl -qw net.ipv6.conf.eth1.disable_ipv6=0; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    (
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1",
        1,
        "no route leads to clients of IPv6",
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip -6 addr replace 2001:db8:1::100/64 dev eth0 nodad",
    ),
    (
        "ip link set eth1 down; ip link set eth1 name moved; ip link set moved up",
        1,
        "no route to backend 2001:db8:2::11",
        "ip link set moved down; ip link set moved name eth1; ip link set eth1 up
         ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    // A second host has the VIP.
    (
        "ip -n CLIENT -6 addr add 2001:db8:1::100/64 dev eth0 nodad; sysctl -qw net.ipv6.conf.eth0.accept_dad=1
         ip -6 addr del 2001:db8:1::100/64 dev eth0; ip -6 addr add 2001:db8:1::100/64 dev eth0",
        1,
        "2001:db8:1::100 of eth0 is out of use",
        "ip -n CLIENT -6 addr del 2001:db8:1::100/64 dev eth0; ip -6 addr del 2001:db8:1::100/64 dev eth0
         ip -6 addr add 2001:db8:1::100/64 dev eth0 nodad",
    ),
    (
        "ip link set eth0 arp off",
        1,
        "nobody who asks on eth0 for 192.0.2.100 gets an answer: the interface has noarp",
        "ip link set eth0 arp on",
    ),
    ("ip link set eth1 arp off", 1, "eth1 has noarp", "ip link set eth1 arp on"),
    (
        "ip link add br9 type bridge; ip link set br9 up; ip link set eth0 master br9",
        1,
        "192.0.2.100 is an address of eth0, a port of a bridge",
        "ip link set eth0 nomaster; ip link del br9",
    ),
    (
        "ip addr add 198.51.100.11/32 dev lo",
        1,
        "this host has the address of backend 198.51.100.11 itself",
        "ip addr del 198.51.100.11/32 dev lo",
    ),
    // The first ping after the mending can still belong to the search that found nobody.
    (
        "ip -n B1 link set eth0 arp off; ip neigh flush dev eth1; ping -c 1 -W 1 198.51.100.11 || true",
        1,
        "backend 198.51.100.11 does not answer on eth1",
        "ip -n B1 link set eth0 arp on; ping -c 1 -W 1 198.51.100.11 || ping -c 1 -W 1 198.51.100.11",
    ),
    (
        "ip -n B2 -6 addr del 2001:db8:2::12/64 dev eth0; ip -6 neigh flush dev eth1; ping -c 1 -W 1 2001:db8:2::12 || true",
        1,
        "backend 2001:db8:2::12 does not answer on eth1",
        "ip -n B2 -6 addr add 2001:db8:2::12/64 dev eth0 nodad; ping -c 1 -W 1 2001:db8:2::12 || ping -c 1 -W 1 2001:db8:2::12",
    ),
    // Another router takes its place, and this one is as silent as before.
    (
        "ip route add default via 192.0.2.77 dev eth0; ping -c 1 -W 1 203.0.113.9 || true",
        1,
        "router 192.0.2.77 does not answer on eth0: packets to clients beyond it are lost",
        "ip route del default via 192.0.2.77 dev eth0",
    ),
    (
        "ip -6 route add default via 2001:db8:1::77 dev eth0; ping -c 1 -W 1 2001:db8:9::9 || true",
        1,
        "router 2001:db8:1::77 does not answer on eth0: packets to clients beyond it are lost",
        "ip -6 route del default via 2001:db8:1::77 dev eth0",
    ),
];
