use crate::{carried, loses, unreadable};
use loaded_ipc::{Affinity, Mode, Protocol, Strategy};
use loaded_migrate::{Format, Options};

const DUMP: &str = "\
-A -t 192.0.2.1:80 -s wrr -p 300 -M 255.255.255.0
-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 3
-a -t 192.0.2.1:80 -r 198.51.100.2:8080 -m -w 1
-A -u [2001:db8::1]:53 -s wlc
-a -u [2001:db8::1]:53 -r [2001:db8:2::1]:53 -g -w 1
-A -t 192.0.2.1:443 -s sh
-a -t 192.0.2.1:443 -r 198.51.100.1:443 -m -w 1
";

#[test]
fn a_dump_is_carried_over_whole() {
    let (migrated, plan) = carried(Format::Ipvsadm, DUMP, &Options::default());
    loses(&migrated, &[]);
    let [web, dns, tls] = plan.services.as_slice() else { panic!("{plan:?}") };
    assert_eq!((web.protocol, web.mode, web.strategy), (Protocol::Tcp, Mode::Nat, Strategy::RoundRobin));
    assert_eq!(web.affinity, Some(Affinity { prefix4: 24, prefix6: 128, timeout: 300 }));
    let backends: Vec<_> = web.backends.iter().map(|one| (one.address.to_string(), one.port, one.weight)).collect();
    assert_eq!(backends, [("198.51.100.1".to_owned(), None, 3), ("198.51.100.2".to_owned(), Some(8080), 1)]);
    assert_eq!((dns.protocol, dns.mode, dns.affinity), (Protocol::Udp, Mode::Dsr, None));
    assert_eq!(dns.strategy, Strategy::Weighted);
    assert!(matches!(tls.strategy, Strategy::Maglev { .. }) && tls.affinity.is_some());
}

/// What the kernel and ipvsadm really print (tests/e2e/host/migrate/README.md), among it what no page shows: `--tun-type ipip` beside every
/// tunnel.
#[test]
fn a_live_dump_is_read_and_what_comes_out_is_valid() {
    let dump = include_str!("../../../../tests/e2e/host/migrate/ipvsadm.live");
    let (migrated, plan) = carried(Format::Ipvsadm, dump, &Options::default());
    assert_eq!((plan.services.len(), migrated.lost.len()), (21, 26), "{:#?}", migrated.lost);
    let of = |protocol| plan.services.iter().filter(|service| service.protocol == protocol).count();
    assert_eq!([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(of), [16, 4, 1]);
    let affinity = |name: &str| plan.services.iter().find(|service| service.name == name).unwrap().affinity;
    assert_eq!(affinity("tcp-203.0.113.30-25"), Some(Affinity { prefix4: 24, prefix6: 128, timeout: 600 }));
    assert_eq!(affinity("tcp-2001-db8-5--30-443"), Some(Affinity { prefix4: 32, prefix6: 64, timeout: 300 }));
}

#[test]
fn a_script_of_commands_is_read_too() {
    let text = "\
ipvsadm -C
ipvsadm --add-service --tcp-service=192.0.2.1:80 --scheduler rr
/sbin/ipvsadm -a -t 192.0.2.1:80 \\
  --real-server 198.51.100.1 --masquerading --weight 7  # one
";
    let (migrated, plan) = carried(Format::Ipvsadm, text, &Options::default());
    loses(&migrated, &["f:1:1: ipvsadm -C: "]);
    // rr takes no notice of weights.
    assert_eq!(plan.services[0].backends[0].weight, 1);
}

#[test]
fn what_loaded_does_not_have_is_named() {
    let text = "\
-A -f 7 -s rr
-a -f 7 -r 198.51.100.1:0 -m
-A -t 192.0.2.1:80 -s lblc -o
-a -t 192.0.2.1:80 -r 198.51.100.1:80 -m -w 0
-a -t 192.0.2.1:80 -r 198.51.100.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 192.0.2.1:80 -r 198.51.100.3:80 -m -w 600 -x 10
-a -t 192.0.2.1:80 -r 127.0.0.1:80 -m -w 300
-a -t 192.0.2.9:80 -r 198.51.100.4:80 -m
";
    let (migrated, plan) = carried(Format::Ipvsadm, text, &Options::default());
    loses(
        &migrated,
        &[
            "f:1:1: -A -f 7 -s rr: loaded chooses packets by address",
            "f:2:1: -a -f 7 ",
            "f:3:1: -A -t 192.0.2.1:80 -s lblc -o: it chooses by destination",
            "f:3:1: -A -t 192.0.2.1:80 -s lblc -o: -o: affinity",
            "f:4:1: backend 198.51.100.1: it has weight 0",
            "f:5:1: -a -t 192.0.2.1:80 -r 198.51.100.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum: a service of loaded forwards in one way",
            "f:6:1: -a -t 192.0.2.1:80 -r 198.51.100.3:80 -m -w 600 -x 10: -x, -y",
            "f:7:1: backend 127.0.0.1: 127.0.0.1 is a loopback address",
            "f:8:1: -a -t 192.0.2.9:80 -r 198.51.100.4:80 -m: no line -A above",
        ],
    );
    let [service] = plan.services.as_slice() else { panic!("{plan:?}") };
    assert_eq!(service.backends.iter().map(|one| one.weight).collect::<Vec<_>>(), [256]);
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        ("-A -t 192.0.2.1:80 -s rr\nhello\n", "2:1: \"hello\" is no line of ipvsadm"),
        ("-A -t 192.0.2.1:80 --no-such\n", "1:20: \"--no-such\" is no option"),
        ("-A -t www:http -s rr\n", "1:1: \"www:http\" is no address and port in numbers"),
        ("-A -s rr\n", "1:1: no service is named"),
        ("-A -t\n", "1:4: -t has no value"),
    ] {
        let error = unreadable(Format::Ipvsadm, text);
        assert!(error.starts_with(expected), "{error}");
    }
}
