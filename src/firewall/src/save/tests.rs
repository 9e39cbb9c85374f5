//! Rules as iptables-save 1.8.9 writes them.

use super::*;
use crate::matches::{Match, States};

fn of(line: &str) -> Rule {
    rule(line, &words(line)[2..], &|name| name == "mine")
}

fn net(low: [u8; 4], high: [u8; 4]) -> Vec<(std::net::IpAddr, std::net::IpAddr)> {
    vec![(low.into(), high.into())]
}

#[test]
fn each_match_is_read() {
    let state = |invalid, untracked| Match::State(States { invalid, untracked });
    for (text, expected) in [
        ("-s 192.0.2.0/24", vec![Match::Source(net([192, 0, 2, 0], [192, 0, 2, 255]))]),
        ("! -d 192.0.2.1/32", vec![Match::Destination(net([192, 0, 2, 1], [192, 0, 2, 1])).not()]),
        ("-s 10.0.0.1/255.0.255.0", vec![Match::Unread]),
        ("-i eth+ ! -o lo", vec![Match::Input("eth*".into()), Match::Output("lo".into()).not()]),
        ("-p tcp -m tcp --dport 80:90", vec![Match::Protocol(6), Match::DestinationPort(vec![(80, 90)])]),
        ("-p 132", vec![Match::Protocol(132)]),
        ("! -f", vec![Match::never().not()]),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", vec![state(false, false)]),
        ("-m conntrack ! --ctstate INVALID,NEW", vec![state(true, false).not()]),
        ("-m state --state UNTRACKED", vec![state(false, true)]),
        ("-m conntrack ! --ctdir REPLY", vec![Match::Tracked]),
        ("-m comment --comment \"a \\\"b\\\" -j DROP\"", vec![]),
        ("-m rpfilter --loose --accept-local --invert", vec![Match::RouteBack { strict: false, local: true }.not()]),
        ("-m rpfilter", vec![Match::RouteBack { strict: true, local: false }]),
        ("-m multiport --dports 80,443:450", vec![Match::DestinationPort(vec![(80, 80), (443, 450)])]),
        ("-m iprange --src-range 10.0.0.1-10.0.0.9", vec![Match::Source(net([10, 0, 0, 1], [10, 0, 0, 9]))]),
        (
            "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
            vec![Match::Protocol(6), Match::Flags { mask: 0x17, value: 0x02 }],
        ),
        ("-m addrtype ! --dst-type LOCAL", vec![Match::DestinationLocal.not()]),
        ("-m limit --limit 1/sec", vec![Match::Part]),
        ("-m set --match-set blocked src", vec![Match::Unread]),
    ] {
        let found = of(&format!("-A FORWARD {text} -j DROP"));
        assert_eq!((found.matches, found.ruling), (expected, Ruling::Drop), "{text}");
    }
}

#[test]
fn each_target_is_read() {
    for (target, ruling) in [
        ("-j ACCEPT", Ruling::Accept),
        ("-j REJECT --reject-with icmp-port-unreachable", Ruling::Drop),
        ("-j mine", Ruling::Jump("mine".into())),
        ("-g mine", Ruling::Goto("mine".into())),
        ("-j RETURN", Ruling::Return),
        ("-j LOG --log-prefix \"-j DROP \"", Ruling::Nothing),
        ("-j NFQUEUE --queue-num 3", Ruling::Queues(3, 3)),
        ("-j NFQUEUE --queue-balance 3:5 --queue-cpu-fanout", Ruling::Queues(3, 5)),
        ("-j NFQUEUE --queue-num 3 --queue-bypass", Ruling::Hands),
        ("-j TPROXY --on-port 9999", Ruling::Drop),
        ("-j LOADED-7", Ruling::Nothing),
        ("", Ruling::Nothing),
    ] {
        assert_eq!(of(&format!("-A FORWARD {target}")).ruling, ruling, "{target}");
    }
}

#[test]
fn our_jump_splits_the_chain() {
    let saved = "*raw\n:PREROUTING DROP [0:0]\n:LOADED-3 - [0:0]\n-A PREROUTING -s 192.0.2.9/32 -j DROP\n-A PREROUTING -j LOADED-3\n\
                 -A PREROUTING -p tcp -j ACCEPT\n-A PREROUTING -p udp -j ACCEPT\nCOMMIT\n*nat\n:PREROUTING DROP [0:0]\nCOMMIT\n";
    let of = |base| -> Vec<_> {
        let tables = tables(Family::V4, saved, base);
        assert_eq!(tables.len(), 1, "nat sees no balanced packet");
        tables[0].bases.iter().map(|base| (base.order, base.rules, base.drops)).collect()
    };
    assert_eq!(of(Some(3)), [(ChainOrder::Before, (0, 1), false), (ChainOrder::Below, (2, 4), true)]);
    assert_eq!(
        of(Some(4)),
        [(ChainOrder::Before, (0, 0), false), (ChainOrder::Below, (0, 4), true)],
        "it goes to the top"
    );
}

#[test]
fn no_text_makes_it_panic() {
    use proptest::prelude::*;
    let word = prop_oneof![
        Just("-A"),
        Just("-j"),
        Just("-g"),
        Just("-m"),
        Just("!"),
        Just("--dports"),
        Just("1:2,"),
        Just("-s"),
        Just("::/200"),
        Just("rpfilter"),
        Just("--tcp-flags"),
        Just("\""),
        Just("\\"),
        Just("*filter\n:FORWARD DROP\n"),
        Just("COMMIT\n"),
    ];
    proptest!(|(words in proptest::collection::vec(word, 0..40))| {
        let _ = tables(Family::V6, &words.join(" "), Some(1));
        let _ = tables(Family::V6, &words.concat(), None);
    });
}
