use crate::{carried, loses, unreadable};
use loaded_config::Source;
use loaded_ipc::{Affinity, CheckKind, Mode, OnBackendDown, Protocol, Strategy};
use loaded_migrate::{Format, Options, migrate};

const WEB: &str = "\
virtual_server 192.0.2.1 443 {   ! a comment
    delay_loop 6
    lb_algo wlc
    lb_kind NAT
    persistence_timeout 600
    persistence_granularity 255.255.255.0
    protocol TCP
    sorry_server 198.51.100.9 80
    real_server 198.51.100.1 8443 {
        weight 2
        inhibit_on_failure
        HTTP_GET {
            url {
                path \"/alive and well\"
                status_code 204
                virtualhost www.example.com
            }
            connect_port 8080
            connect_timeout 2.5
            retry 2
        }
    }
    real_server 198.51.100.2 443
    {
        inhibit_on_failure
        HTTP_GET {
            url {
                path \"/alive and well\"
                status_code 204
                virtualhost www.example.com
            }
            connect_port 8080
            connect_timeout 2.5
            retry 2
        }
    }
}
";

#[test]
fn a_virtual_server_is_carried_over_whole() {
    let text = WEB.replace("/alive and well", "/alive");
    let (migrated, plan) = carried(Format::Keepalived, &text, &Options::default());
    loses(&migrated, &[]);
    let [service] = plan.services.as_slice() else { panic!("{plan:?}") };
    assert_eq!((service.protocol, service.mode, service.strategy), (Protocol::Tcp, Mode::Nat, Strategy::Weighted));
    assert_eq!(service.affinity, Some(Affinity { prefix4: 24, prefix6: 128, timeout: 600 }));
    assert_eq!(service.policy.on_backend_down, OnBackendDown::Drain);
    let backends: Vec<_> =
        service.backends.iter().map(|one| (one.address.to_string(), one.port, one.weight, one.backup)).collect();
    let expected = [
        ("198.51.100.9".to_owned(), Some(80), 1, true),
        ("198.51.100.1".to_owned(), Some(8443), 2, false),
        ("198.51.100.2".to_owned(), None, 1, false),
    ];
    assert_eq!(backends, expected);
    let check = service.check.as_ref().unwrap();
    assert_eq!((check.interval, check.timeout, check.rise, check.fall), (6000, 2500, 1, 3));
    let CheckKind::Http { port, method, path, host, status, .. } = &check.kind else { panic!("{check:?}") };
    assert_eq!((*port, method.as_str(), path.as_str(), *status), (8080, "GET", "/alive", (204, 204)));
    assert_eq!(host, "www.example.com");
}

#[test]
fn what_loadeds_reader_refuses_goes_and_is_named() {
    let (migrated, plan) = carried(Format::Keepalived, WEB, &Options::default());
    loses(&migrated, &["f:1:1: its check: \"/alive and well\" is not a path"]);
    assert!(plan.services[0].check.is_none() && plan.services[0].backends.len() == 3);
}

#[test]
fn a_group_becomes_a_service_for_each_port() {
    let text = "\
$NET=198.51.100
$WEIGHT=5
virtual_server_group G {
    192.0.2.1-3 80
    192.0.2.9 80
    192.0.2.1 8080
    2001:db8::a-c 80
    fwmark 3
}
virtual_server_group H {
    192.0.2.77 80
}
virtual_server group G {
    lb_algo wrr
    lb_kind DR
    real_server 198.51.100.1 80 {
        weight $WEIGHT
        PING_CHECK {
        }
    }
    real_server 2001:db8:2::1 80 {
        weight ${WEIGHT}
        PING_CHECK {
        }
    }
}
";
    let (migrated, plan) = carried(Format::Keepalived, text, &Options::default());
    let strange = ["198.51.100.1 is an IPv4 backend", "2001:db8:2::1 is an IPv6 backend"];
    assert!(strange.iter().all(|text| migrated.lost.iter().any(|line| line.contains(text))), "{:#?}", migrated.lost);
    for line in ["f:8:5: fwmark 3: ", "f:10:1: virtual_server_group H: no virtual_server uses it"] {
        assert!(migrated.lost.iter().any(|lost| lost.starts_with(line)), "{line}: {:#?}", migrated.lost);
    }
    let vips: Vec<_> = plan.services.iter().map(|service| service.vips.len()).collect();
    assert_eq!(vips, [4, 1, 3]);
    assert!(plan.services.iter().all(|service| service.mode == Mode::Dsr && service.backends.len() == 1));
    assert!(plan.services.iter().all(|service| service.backends[0].weight == 5));
}

#[test]
fn every_line_that_has_no_counterpart_is_named() {
    let text = "\
global_defs {
    router_id x
}
vrrp_instance A {
    virtual_ipaddress {
        192.0.2.1
    }
}
include other.conf
@box virtual_server 192.0.2.8 80 {
}
virtual_server fwmark 1 {
}
virtual_server 192.0.2.1 80 {
    lb_algo ovf
    lb_kind TUN
    ops
    quorum 2
    quorum_up /bin/true
    real_server 198.51.100.1 80 {
        notify_up /bin/true
        uthreshold 7
        SSL_GET {
            url {
                path /
                digest 0123
            }
            bindto 198.51.100.254
            delay_before_retry 3
        }
        MISC_CHECK {
            misc_path /bin/true
        }
    }
    real_server 198.51.100.2 80 {
        TCP_CHECK {
            connect_timeout 3
        }
    }
    real_server web.example.com 80 {
    }
}
";
    let (migrated, _) = carried(Format::Keepalived, text, &Options::default());
    let lines = [1, 4, 9, 10, 12, 15, 16, 17, 18, 19, 21, 22, 23, 28, 29, 31, 35, 40];
    for line in lines {
        let start = format!("f:{line}:");
        assert!(migrated.lost.iter().any(|lost| lost.starts_with(&start)), "line {line}: {:#?}", migrated.lost);
    }
}

#[test]
fn a_file_without_virtual_servers_leaves_no_service() {
    let source = Source::new("f", "vrrp_instance A {\n    state MASTER\n}\n");
    let migrated = migrate(&[source], Format::Keepalived, &Options::default()).unwrap();
    assert_eq!((migrated.services, migrated.lost.len()), (0, 1));
    assert!(migrated.toml.lines().all(|line| line.is_empty() || line.starts_with('#')), "{}", migrated.toml);
}

#[test]
fn mistakes_are_named_with_their_place() {
    let deep = "a {\n".repeat(40);
    for (text, expected) in [
        ("virtual_server 192.0.2.1 80 {\n", "1:1: the block \"virtual_server\" is not closed"),
        ("a {\n}\n}\n", "3:1: } closes nothing"),
        ("{\n", "1:1: a block begins here, but nothing names it"),
        ("a \"b\n", "1:3: the quote \" is not closed"),
        (deep.as_str(), "33:3: blocks are nested deeper than 32"),
    ] {
        let error = unreadable(Format::Keepalived, text);
        assert!(error.starts_with(expected), "{error}");
    }
}
