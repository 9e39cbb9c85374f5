//! What a hostile worker must not change, as root sees it in the balancer.

use crate::rig::lab::Lab;
use std::collections::BTreeSet;
use std::fs;

/// A connection that conntrack is told of, for who flushes it to take away.
const TRACKED: &str = "conntrack -I -p udp -s 192.0.2.77 -d 192.0.2.78 --sport 7 --dport 7 -t 600 2>&1";
const KEPT: [&str; 2] = ["loaded.toml", "control.sock"];

/// The balancer at one moment: lines, each with what it is about.
#[derive(Debug)]
pub(super) struct View(BTreeSet<String>);

impl View {
    /// Plants what is to be missed, and looks.
    pub(super) fn first(lab: &Lab) -> Self {
        lab.sh("lb", TRACKED);
        let view = Self::take(lab);
        for watched in
            ["rule -A PREROUTING", "link eth0", "queue 0 ", "queue 1 ", "tracked udp", "sysctl net.ipv4.ip_forward = 1"]
        {
            assert!(view.0.iter().any(|line| line.starts_with(watched)), "{watched} is not seen: {view:#?}");
        }
        view
    }

    pub(super) fn take(lab: &Lab) -> Self {
        let mut lines = BTreeSet::new();
        let mut add = |what: &str, text: &str| {
            lines.extend(
                text.lines().map(|line| format!("{what} {}", line.split_whitespace().collect::<Vec<_>>().join(" "))),
            );
        };
        add("rule", &lab.rules());
        add("link", &lab.sh("lb", "ip -o link show | sed 's/^[0-9]*: //'"));
        add("filter", &lab.sh("lb", "for i in eth0 eth1; do tc filter show dev $i ingress; done"));
        add(
            "address",
            &lab.sh(
                "lb",
                "ip -o address show; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule",
            ),
        );
        // Number and owner's port; behind them are counters.
        let queues = lab.queues();
        let owners: Vec<String> =
            queues.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ") + " ").collect();
        add("queue", &owners.iter().map(|line| line.replace(' ', "  ")).collect::<Vec<_>>().join("\n"));
        add(
            "tracked",
            &lab.sh(
                "lb",
                "conntrack -L -p udp -s 192.0.2.77 2>/dev/null | sed 's/ [0-9]* src/ src/' | cut -d' ' -f1-12",
            ),
        );
        add("sysctl", &lab.sh("lb", "sysctl -a -r '^net\\.(ipv[46]\\.(conf|ip_forward|tcp|icmp)|netfilter\\.nf_conntrack_max|core)' 2>/dev/null"));
        add("socket", &lab.sh("lb", "ss -Hlntuwx | awk '{print $1, $2, $5}'"));
        let files = fs::read_dir(lab.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.for_each(|name| add("file", &name));
        KEPT.iter().for_each(|name| {
            let path = lab.state().join(name);
            add("content", &fs::read_to_string(&path).unwrap_or_default());
            add("mode", &format!("{name} {:?}", fs::metadata(&path).unwrap().permissions()));
        });
        fs::read_dir("/var/run/empty")
            .unwrap()
            .for_each(|entry| add("chroot", &format!("{:?}", entry.unwrap().path())));
        Self(lines)
    }

    /// What is different, with + where it is new and - where it is gone.
    pub(super) fn changes(&self, before: &Self) -> Vec<String> {
        let gone = before.0.difference(&self.0).map(|line| format!("- {line}"));
        let come = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        gone.chain(come).collect()
    }
}
