//! Whatever a file holds, there is no panic, and `loaded` accepts what comes out.

use crate::plan_of;
use loaded_config::Source;
use loaded_migrate::{Format, Options, guess, migrate};
use proptest::prelude::*;
use proptest::sample::select;

/// Words that mean something somewhere, and a few that hurt.
const WORDS: [&str; 96] = [
    "virtual_server",
    "virtual_server_group",
    "group",
    "real_server",
    "sorry_server",
    "fwmark",
    "lb_algo",
    "lb_kind",
    "NAT",
    "DR",
    "TUN",
    "wrr",
    "sh",
    "persistence_timeout",
    "persistence_granularity",
    "protocol",
    "UDP",
    "SCTP",
    "delay_loop",
    "weight",
    "inhibit_on_failure",
    "HTTP_GET",
    "SSL_GET",
    "TCP_CHECK",
    "DNS_CHECK",
    "PING_CHECK",
    "UDP_CHECK",
    "SMTP_CHECK",
    "url",
    "path",
    "status_code",
    "connect_port",
    "connect_timeout",
    "retry",
    "name",
    "-A",
    "-a",
    "-t",
    "-u",
    "-f",
    "-r",
    "-m",
    "-g",
    "-w",
    "-p",
    "-M",
    "-s",
    "--weight=3",
    "ipvsadm",
    "stream",
    "upstream",
    "server",
    "listen",
    "proxy_pass",
    "proxy_timeout",
    "proxy_connect_timeout",
    "least_conn",
    "hash",
    "$remote_addr",
    "backup",
    "down",
    "weight=0",
    "weight=700",
    "max_fails=0",
    "max_fails=3",
    "fail_timeout=9s",
    "udp",
    "health_check",
    "interval=1",
    "port=80",
    "192.0.2.1",
    "192.0.2.1:80",
    "192.0.2.1:0",
    "192.0.2.1-9",
    "198.51.100.1",
    "198.51.100.1:8080",
    "[2001:db8::1]:53",
    "2001:db8::1",
    "2001:db8:2::1",
    "127.0.0.1:80",
    "80",
    "0",
    "65536",
    "1-70000",
    "{",
    "}",
    ";",
    "\n",
    "\"",
    "\\",
    "#",
    "$X=$X",
    "$X",
    "/p",
    "VIP4=192.0.2.1\n",
    "server4=198.51.100.1\n",
];

fn hold(format: Format, text: &str) -> Result<(), TestCaseError> {
    let options = Options { vips: vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()], failover: true };
    match migrate(&[Source::new("f", text)], format, &options) {
        Ok(migrated) => {
            plan_of(&migrated);
            let comments = migrated.toml.matches("not carried:").count();
            prop_assert!(migrated.lost.is_empty() || comments > 0, "{}", migrated.toml);
        }
        Err(error) => prop_assert!(!error.to_string().is_empty()),
    }
    Ok(())
}

/// A statement of keepalived's or nginx's, well formed, with blocks in it.
fn nested(separator: &'static str) -> impl Strategy<Value = String> {
    let words = proptest::collection::vec(select(WORDS.as_slice()), 1..5).prop_map(|words| words.join(" "));
    let leaf = words.clone().prop_map(move |words| format!("{words}{separator}"));
    leaf.prop_recursive(4, 40, 6, move |inner| {
        (words.clone(), proptest::collection::vec(inner, 0..6))
            .prop_map(|(words, inner)| format!("{words} {{\n{}}}\n", inner.concat()))
    })
}

/// A virtual server or a stream of parts that mostly fit.
fn keepalived() -> impl Strategy<Value = String> {
    let key = select(
        [
            "lb_kind DR",
            "lb_algo sh",
            "protocol UDP",
            "persistence_timeout 9",
            "delay_loop 1",
            "inhibit_on_failure",
            "real_server 198.51.100.1 80 {\nTCP_CHECK {\nconnect_timeout 9\n}\n}",
            "real_server 198.51.100.1 81 {\nweight 999\n}",
            "real_server 2001:db8:2::1 80 {\nHTTP_GET {\nurl {\npath x\n}\n}\n}",
            "sorry_server 198.51.100.9 80",
            "real_server 192.0.2.1 80 {\n}",
            "real_server 198.51.100.2 {\nweight 0\nPING_CHECK {\n}\n}",
        ]
        .as_slice(),
    );
    let front = select(["192.0.2.1 80", "192.0.2.1 0", "192.0.2.1", "2001:db8::1 80", "192.0.2.2 1-99"].as_slice());
    let server = (front, proptest::collection::vec(key, 0..8))
        .prop_map(|(front, keys)| format!("virtual_server {front} {{\n{}\n}}\n", keys.join("\n")));
    proptest::collection::vec(server, 1..5).prop_map(|servers| servers.concat())
}

fn nginx() -> impl Strategy<Value = String> {
    let server = select(
        [
            "198.51.100.1:80",
            "198.51.100.1:81 backup",
            "[2001:db8:2::1]:80 weight=900",
            "198.51.100.2:80 max_fails=0",
            "192.0.2.1:80",
            "198.51.100.3:80 down",
            "198.51.100.1:80 max_fails=300 fail_timeout=9w",
        ]
        .as_slice(),
    );
    let listen = select(
        ["192.0.2.1:80", "192.0.2.1:53 udp", "80", "[::]:80 ipv6only=off", "192.0.2.1:70-90", "[2001:db8::1]:80"]
            .as_slice(),
    );
    let extra = select(
        ["proxy_timeout 1s;", "proxy_timeout 99w;", "proxy_connect_timeout 1ms;", "health_check port=7 fails=2;", ""]
            .as_slice(),
    );
    let servers = proptest::collection::vec(server, 0..5)
        .prop_map(|all| all.iter().map(|one| format!("server {one};\n")).collect::<String>());
    let fronts = proptest::collection::vec((listen, extra), 1..4).prop_map(|all| {
        all.iter()
            .map(|(listen, extra)| format!("server {{ listen {listen}; proxy_pass u; {extra} }}\n"))
            .collect::<String>()
    });
    (servers, fronts).prop_map(|(servers, fronts)| format!("stream {{ upstream u {{ {servers} }}\n{fronts} }}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = guess(&text);
        for format in Format::ALL {
            hold(format, &text)?;
        }
    }

    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(select(WORDS.as_slice()), 0..120)) {
        let text = words.join(" ");
        for format in Format::ALL {
            hold(format, &text)?;
        }
    }

    #[test]
    fn any_blocks_are_read_or_refused(keepalived in nested("\n"), nginx in nested(";\n")) {
        hold(Format::Keepalived, &keepalived)?;
        hold(Format::Nginx, &nginx)?;
    }

    #[test]
    fn what_nearly_fits_is_made_to_fit(keepalived in keepalived(), nginx in nginx()) {
        hold(Format::Keepalived, &keepalived)?;
        hold(Format::Nginx, &nginx)?;
    }
}

/// Depth costs no stack, and size no more than its reading.
#[test]
fn hostile_sizes_are_bounded() {
    for open in ["a {\n", "server { ", "{", "upstream x { server 1.2.3.4; ", "a \"{\" "] {
        for format in [Format::Keepalived, Format::Nginx] {
            hold(format, &open.repeat(20_000)).unwrap();
        }
    }
    let many = |line: &dyn Fn(usize) -> String| (0..300).map(line).collect::<String>();
    hold(Format::Ipvsadm, &many(&|n| format!("-A -t 10.0.{}.{}:80\n", n / 250, n % 250))).unwrap();
    let backends = many(&|n| format!("-a -t 192.0.2.1:80 -r 127.0.{}.{}:80 -m\n", n / 250, n % 250));
    hold(Format::Ipvsadm, &format!("-A -t 192.0.2.1:80\n{backends}")).unwrap();
}
