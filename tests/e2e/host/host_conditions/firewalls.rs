//! Firewalls of others that cut balanced packets off, and those that do not.

use super::Row;

const NFT: &str = "nft delete table inet theirs";

/// A chain of nft, and what it has.
macro_rules! chain {
    ($hook:literal, $policy:literal, $rules:literal) => {
        concat!(
            "nft -f - <<'END'\ntable inet theirs {\n set one { type ipv4_addr; elements = { 198.51.100.11 } }\n",
            " map states { typeof ct state : verdict; elements = { established : accept, untracked : drop } }\n",
            " chain zone { return\n }\n chain theirs {\n  type filter hook ",
            $hook,
            "; policy ",
            $policy,
            ";\n  ",
            $rules,
            "\n }\n}\nEND"
        )
    };
}

pub(super) const NFTABLES: [Row; 16] = [
    // As firewalld has it.
    (
        chain!(
            "forward priority 10",
            "accept",
            "ct state { established, related } accept\n ct status dnat accept\n iifname lo accept\n jump zone\n
             ct state invalid drop\n reject with icmpx admin-prohibited"
        ),
        2,
        "in chain theirs of the nftables table inet theirs drops balanced requests and replies",
        NFT,
    ),
    (chain!("forward priority 10", "drop", "ct state established,related accept"), 2, "has the policy DROP", NFT),
    (
        chain!("prerouting priority 10", "accept", "meta nfproto ipv6 fib saddr . mark . iif oif missing drop"),
        1,
        "drops balanced replies (IPv6)",
        NFT,
    ),
    (chain!("prerouting priority -10", "accept", "fib saddr oif missing drop"), 2, "drops balanced replies", NFT),
    (chain!("prerouting priority -310", "drop", "meta l4proto { icmp, icmpv6 } accept"), 2, "has the policy DROP", NFT),
    (chain!("forward priority -5", "accept", "ct state vmap @states"), 2, "drops balanced requests and replies", NFT),
    (chain!("forward priority 0", "accept", "ip daddr @one drop"), 1, "drops balanced requests (IPv4)", NFT),
    (
        chain!(
            "forward priority 0",
            "accept",
            "iifname . oifname vmap { eth0 . eth1 : goto zone, eth1 . eth0 : drop }"
        ),
        2,
        "drops balanced replies",
        NFT,
    ),
    (
        chain!("postrouting priority 0", "drop", "ct state established accept\n meta l4proto icmpv6 accept"),
        2,
        "has the policy DROP",
        NFT,
    ),
    (
        "nft -f - <<'END'\ntable netdev theirs {\n chain theirs {\n  type filter hook ingress device eth0 priority 0;\n\
         ip daddr 192.0.2.100 drop\n }\n}\nEND",
        1,
        "in chain theirs of the nftables table netdev theirs drops balanced requests (IPv4)",
        "nft delete table netdev theirs",
    ),
    (
        "nft -f - <<'END'\ntable netdev theirs {\n chain theirs {\n  type filter hook ingress device eth1 priority 0;\n\
         ip saddr 198.51.100.11 drop\n }\n}\nEND",
        1,
        "in chain theirs of the nftables table netdev theirs drops balanced replies (IPv4)",
        "nft delete table netdev theirs",
    ),
    (
        "nft -f - <<'END'\ntable ip6 theirs {\n chain theirs {\n  type filter hook forward priority 0; policy drop;\n }\n}\n\
         END",
        1,
        "has the policy DROP",
        "nft delete table ip6 theirs",
    ),
    (chain!("forward priority 20", "accept", "tcp dport { 80, 443 } drop"), 2, "drops balanced requests", NFT),
    (
        chain!("prerouting priority -150", "accept", "ip saddr 192.0.2.100 drop"),
        1,
        "drops balanced replies (IPv4)",
        NFT,
    ),
    (
        chain!("postrouting priority 50", "accept", "oifname eth0 meta l4proto tcp drop"),
        2,
        "drops balanced replies",
        NFT,
    ),
    (
        chain!("forward priority 5", "accept", "ip6 daddr 2001:db8:2::/64 counter reject"),
        1,
        "drops balanced requests (IPv6)",
        NFT,
    ),
];

pub(super) const IPTABLES: [Row; 13] = [
    (
        "iptables -A FORWARD -j NFQUEUE --queue-num 77",
        1,
        "rule `-A FORWARD -j NFQUEUE --queue-num 77` of iptables (table filter) drops balanced requests and replies",
        "iptables -D FORWARD -j NFQUEUE --queue-num 77",
    ),
    ("iptables -A FORWARD -j REJECT", 1, "rule `-A FORWARD -j REJECT", "iptables -D FORWARD -j REJECT"),
    ("ip6tables -P FORWARD DROP", 1, "no rule of ip6tables accepts untracked packets", "ip6tables -P FORWARD ACCEPT"),
    (
        "iptables -P FORWARD DROP; ip6tables -A FORWARD -m conntrack --ctstate UNTRACKED -j DROP",
        2,
        "no rule of iptables accepts untracked packets",
        "iptables -P FORWARD ACCEPT; ip6tables -F FORWARD",
    ),
    (
        "iptables -t mangle -A PREROUTING -m rpfilter --invert -j DROP",
        1,
        "rule `-A PREROUTING -m rpfilter --invert -j DROP` of iptables (table mangle) drops balanced replies",
        "iptables -t mangle -F PREROUTING",
    ),
    (
        "ip6tables -t mangle -A PREROUTING -m rpfilter --loose --invert -j DROP",
        1,
        "of ip6tables (table mangle) drops balanced replies",
        "ip6tables -t mangle -F PREROUTING",
    ),
    (
        "iptables -t raw -I PREROUTING -d 192.0.2.100 -j ACCEPT",
        1,
        "rule `-A PREROUTING -d 192.0.2.100/32 -j ACCEPT` of the table raw comes before ours",
        "iptables -t raw -D PREROUTING -d 192.0.2.100 -j ACCEPT",
    ),
    (
        "ip6tables -t raw -A PREROUTING -s 2001:db8:1::100 -j DROP",
        1,
        "of ip6tables (table raw) drops balanced replies",
        "ip6tables -t raw -D PREROUTING -s 2001:db8:1::100 -j DROP",
    ),
    (
        "iptables -N zone; iptables -A zone -m conntrack --ctstate ESTABLISHED -j RETURN; iptables -A zone -p tcp -j DROP
         iptables -A FORWARD -i eth0 -g zone",
        1,
        "rule `-A zone -p tcp -j DROP` of iptables (table filter) drops balanced requests",
        "iptables -F FORWARD; iptables -F zone; iptables -X zone",
    ),
    (
        "iptables -t mangle -A FORWARD -o eth1 -p tcp -j DROP",
        1,
        "of iptables (table mangle) drops balanced requests",
        "iptables -t mangle -F FORWARD",
    ),
    (
        "ip6tables -t mangle -A POSTROUTING -s 2001:db8:1::100 -j DROP",
        1,
        "of ip6tables (table mangle) drops balanced replies",
        "ip6tables -t mangle -F POSTROUTING",
    ),
    (
        "iptables -t security -A FORWARD -d 198.51.100.0/24 -j DROP",
        1,
        "of iptables (table security) drops balanced requests",
        "iptables -t security -F FORWARD",
    ),
    (
        "iptables -t raw -I PREROUTING -s 198.51.100.11 -j DROP",
        1,
        "rule `-A PREROUTING -s 198.51.100.11/32 -j DROP` of the table raw comes before ours",
        "iptables -t raw -D PREROUTING -s 198.51.100.11 -j DROP",
    ),
];

/// What takes something, but nothing of ours.
pub(super) const HARMLESS: &str = "
    iptables -A FORWARD -m conntrack --ctstate INVALID,NEW -j DROP
    iptables -A FORWARD -s 203.0.113.0/24 -j DROP
    iptables -A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT
    iptables -P FORWARD DROP
    iptables -A INPUT -m conntrack --ctstate INVALID -j DROP
    iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE
    ip6tables -A FORWARD -m length --length 60000:65535 -j DROP
    ip6tables -A FORWARD -p tcp --dport 22 -j REJECT
    ip6tables -t mangle -A PREROUTING -m rpfilter --loose --accept-local --invert -j LOG
    nft -f - <<'END'
table inet theirs {
    set blocked { type ipv4_addr; flags interval; elements = { 203.0.113.0/24 } }
    chain first { type filter hook prerouting priority -310; policy accept; tcp dport 8443 drop
    }
    chain in { type filter hook input priority 0; policy accept; ct state invalid drop
    }
    chain forward { type filter hook forward priority 10; policy drop;
        ct state vmap { established : accept, related : accept, invalid : drop }
        ip saddr @blocked drop
        ct state untracked accept
        reject with icmpx admin-prohibited
    }
    chain marks { type filter hook prerouting priority -150; policy accept; meta mark set 0x7
        fib saddr type local iifname lo drop
    }
}
END";
pub(super) const NO_HARM: &str = "
    iptables -P FORWARD ACCEPT; iptables -F FORWARD; iptables -F INPUT; iptables -t nat -F; ip6tables -F FORWARD
    ip6tables -t mangle -F; nft delete table inet theirs";
