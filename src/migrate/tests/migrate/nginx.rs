use crate::{carried, loses, unreadable};
use loaded_ipc::{Passive, Protocol, Strategy};
use loaded_migrate::{Format, Options};

const STREAM: &str = "\
events {}
stream {
    proxy_timeout 30m;
    upstream web {
        least_conn;
        zone web 64k;
        server 198.51.100.1:8080 weight=3 max_fails=2 fail_timeout=30s;
        server 198.51.100.2:80 max_fails=2 fail_timeout=30s;
        server 198.51.100.3:80 backup max_fails=2 fail_timeout=30s;
    }
    upstream \"dns\" {
        hash $remote_addr consistent;
        server [2001:db8:2::1]:53;
    }
    server {
        listen 192.0.2.1:80 so_keepalive=on;
        listen 192.0.2.2:80;
        listen 192.0.2.1:8000-8010;
        proxy_pass web;
        proxy_connect_timeout 2s;
    }
    server {
        listen [2001:db8::1]:53 udp;
        proxy_pass dns;
        proxy_timeout 20s;   # the block's does not count here
    }
}
";

#[test]
fn a_stream_block_is_carried_over_whole() {
    let (migrated, plan) = carried(Format::Nginx, STREAM, &Options::default());
    loses(&migrated, &[]);
    let [web, range, dns] = plan.services.as_slice() else { panic!("{plan:?}") };
    assert_eq!((web.vips.len(), web.strategy, web.affinity), (2, Strategy::Weighted, None));
    assert_eq!(web.policy.idle.tcp, 1800);
    assert_eq!(web.policy.passive, Some(Passive { fails: 2, timeout: 2000, hold: 30, port: None }));
    let backends: Vec<_> = web.backends.iter().map(|one| (one.port, one.weight, one.backup)).collect();
    assert_eq!(backends, [(Some(8080), 3, false), (None, 1, false), (None, 1, true)]);
    assert_eq!((range.ports[0].low, range.ports[0].high), (8000, 8010));
    assert_eq!(range.backends[1].port, Some(80));
    assert_eq!((dns.protocol, dns.policy.idle.udp), (Protocol::Udp, 20));
    assert!(matches!(dns.strategy, Strategy::Maglev { .. }) && dns.affinity.is_some());
}

#[test]
fn listeners_without_an_address_need_one() {
    let text = "server { listen 80; listen [::]:80; proxy_pass 198.51.100.1:80; }";
    let options = Options { vips: vec!["192.0.2.1".parse().unwrap()], failover: false };
    let (migrated, plan) = carried(Format::Nginx, text, &options);
    loses(&migrated, &["f:1:21: listen [::]:80: it listens on every address"]);
    assert_eq!(plan.services[0].vips, options.vips);
}

/// What would change whom a service serves, or what it says, takes the whole service with it.
#[test]
fn a_server_that_would_serve_otherwise_is_left_out() {
    for (directive, why) in [
        ("deny 198.51.100.0/24;", "loaded lets every client in"),
        ("allow 10.0.0.0/8;", "loaded lets every client in"),
        ("ssl_certificate a.pem;", "loaded ends no TLS"),
        ("proxy_ssl on;", "backends expect what loaded does not add"),
        ("proxy_protocol on;", "backends expect what loaded does not add"),
        ("limit_conn addr 1;", "loaded does not limit clients"),
    ] {
        let good = "server { listen 192.0.2.1:81; proxy_pass 198.51.100.1:80; }";
        let text = format!("{good}\nserver {{ listen 192.0.2.1:80; proxy_pass 198.51.100.1:80;\n {directive} }}");
        let (migrated, plan) = carried(Format::Nginx, &text, &Options::default());
        let said = directive.trim_end_matches(';');
        loses(&migrated, &[&format!("f:3:2: {said}: the server of f:2:1 is left out: {why}")]);
        assert_eq!(plan.services.len(), 1);
    }
    for listen in
        ["192.0.2.1:80 ssl", "192.0.2.1:80 proxy_protocol", "unix:/run/x", "www.example.com:80", "192.0.2.1:80 new"]
    {
        let text = format!("server {{ listen 192.0.2.1:81; listen {listen}; proxy_pass 198.51.100.1:80; }}");
        let (migrated, plan) = carried(Format::Nginx, &text, &Options::default());
        loses(&migrated, &[&format!("f:1:31: listen {listen}: ")]);
        assert_eq!(plan.services.len(), 1);
    }
}

/// What stands around servers holds for each of them that says nothing itself.
#[test]
fn what_would_change_every_server_leaves_out_those_that_do_not_say_otherwise() {
    for (around, own, why) in [
        ("deny 198.51.100.0/24;", "allow all;", "loaded lets every client in"),
        ("allow 10.0.0.0/8; deny all;", "allow all;", "loaded lets every client in"),
        ("proxy_protocol on;", "proxy_protocol off;", "backends expect what loaded does not add"),
        ("limit_conn addr 1;", "", "loaded does not limit clients"),
        ("js_access check.access;", "", "a script decides"),
        ("proxy_download_rate 1k;", "", "loaded does not limit clients"),
    ] {
        let server = |port, own| format!("server {{ listen 192.0.2.1:{port}; proxy_pass 198.51.100.1:80; {own} }}");
        let text = format!("stream {{ {around}\n{}\n{} }}", server(80, ""), server(81, own));
        let migrated = loaded_migrate::migrate(
            &[loaded_config::Source::new("f", text.clone())],
            Format::Nginx,
            &Options::default(),
        )
        .unwrap();
        let named = migrated.lost.iter().filter(|line| line.contains("is left out") && line.contains(why)).count();
        let left = usize::from(!own.is_empty());
        assert_eq!((migrated.services, named), (left, 2 - left), "{text}: {:?}", migrated.lost);
    }
    // How bytes are carried is no matter of packets, wherever it stands.
    let text =
        "stream { tcp_nodelay off; ssl_preread on; server { listen 192.0.2.1:80; proxy_pass 198.51.100.1:80; } }";
    let (migrated, plan) = carried(Format::Nginx, text, &Options::default());
    loses(&migrated, &[]);
    assert_eq!(plan.services.len(), 1);
}

#[test]
fn what_loaded_does_not_have_is_named() {
    let text = "\
http { server { listen 80; } }
include more.conf;
stream {
    log_format main '$remote_addr {';
    map $ssl_preread_server_name $name { default web; }
    upstream web {
        random two;
        server 198.51.100.1:80 max_conns=5 slow_start=30s;
        server backend.example.com:80;
        server 198.51.100.2:80 down;
        server 127.0.0.1:80;
    }
    upstream nobody { server 198.51.100.1:80; }
    server {
        listen 192.0.2.1:80;
        proxy_pass web;
        access_log /var/log/x main;
    }
    server { listen 192.0.2.1:443; proxy_pass $name; }
}
";
    let (migrated, plan) = carried(Format::Nginx, text, &Options::default());
    loses(
        &migrated,
        &[
            "f:1:1: http: ",
            "f:2:1: include more.conf: included files are not opened",
            "f:4:5: log_format main $remote_addr {: ",
            "f:5:5: map $ssl_preread_server_name $name: ",
            "f:7:9: random two: ",
            "f:8:9: server 198.51.100.1:80 max_conns=5 slow_start=30s: max_conns",
            "f:8:9: server 198.51.100.1:80 max_conns=5 slow_start=30s: slow_start",
            "f:9:9: server backend.example.com:80: ",
            "f:10:9: server 198.51.100.2:80 down: it is down",
            "f:11:9: backend 127.0.0.1: ",
            "f:13:5: upstream nobody: ",
            "f:17:9: access_log /var/log/x main: ",
            "f:19:36: proxy_pass $name: the server of f:19:5 is left out",
        ],
    );
    assert_eq!(plan.services[0].backends.len(), 1);
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        ("stream {\n  server {\n", "2:3: the block \"server\" is not closed"),
        ("events {}\nstream { a b }\n", "2:10: this statement has no ; at its end"),
        ("stream { ; }", "1:10: ; ends nothing"),
        ("events {}\n\"x", "2:1: the quote \" is not closed"),
        ("}", "1:1: } closes nothing"),
        ("user", "1:1: this statement has no ; at its end"),
    ] {
        let error = unreadable(Format::Nginx, text);
        assert!(error.starts_with(expected), "{error}");
    }
}
