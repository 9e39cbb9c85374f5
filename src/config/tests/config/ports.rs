//! Backends on other ports than the service's: `port`.

use crate::{plan, refused};
use loaded_config::plan::{Service, diff};
use loaded_ipc::{CheckKind, Destination};

const NAME: &str = "f.toml";

/// Lines 6 and more are `lines`; then come the backends, each of four lines, the last of which is the given one.
fn text(protocol: &str, ports: &str, lines: &str, backends: &[(&str, &str)]) -> String {
    let head = format!(
        "[[service]]\nname = \"web\"\nvip = [\"192.0.2.100\", \"2001:db8:1::100\"]\nprotocol = \"{protocol}\"\n\
         ports = {ports}\n{lines}\n"
    );
    let one =
        |(address, line): &(&str, &str)| format!("[[service.backend]]\naddress = \"{address}\"\nweight = 2\n{line}\n");
    head + &backends.iter().map(one).collect::<String>()
}

const TWO: [(&str, &str); 2] = [("198.51.100.11", ""), ("2001:db8:2::11", "")];

fn service(protocol: &str, ports: &str, lines: &str, backends: &[(&str, &str)]) -> Service {
    plan(NAME, &text(protocol, ports, lines, backends)).services.remove(0)
}

fn destinations(service: &Service) -> Vec<String> {
    service.backends.iter().map(|backend| backend.destination().to_string()).collect()
}

#[track_caller]
fn bad(protocol: &str, lines: &str, backends: &[(&str, &str)], expected: &str) {
    refused(NAME, &text(protocol, "[80, 443]", lines, backends), expected);
}

#[test]
fn a_port_of_the_service_is_that_of_each_backend_that_names_none() {
    for protocol in ["tcp", "udp", "sctp"] {
        let all = service(protocol, "[80]", "port = 8080", &[TWO[0], (TWO[1].0, "port = 8081")]);
        assert_eq!(destinations(&all), ["198.51.100.11:8080", "[2001:db8:2::11]:8081"]);
        let one = service(protocol, "[\"80-90\", 443]", "", &[(TWO[0].0, "port = 8080"), TWO[1]]);
        assert_eq!(destinations(&one), ["198.51.100.11:8080", "2001:db8:2::11"], "a range goes to one port, or stays");
    }
    let text = plan(NAME, &text("tcp", "[80]", "port = 8080", &TWO)).to_string();
    assert!(text.contains("  backend    [2001:db8:2::11]:8080, weight 2\n"), "{text}");
}

#[test]
fn an_address_may_have_several_ports() {
    let v6 = TWO[1];
    let two = [("198.51.100.11", "port = 8080"), ("198.51.100.11", "port = 8081"), v6];
    assert_eq!(destinations(&service("tcp", "[80]", "", &two))[..2], ["198.51.100.11:8080", "198.51.100.11:8081"]);
    // What comes to 80 stays at 80.
    let beside = [("198.51.100.11", "port = 8080"), ("198.51.100.11", ""), v6];
    assert_eq!(destinations(&service("tcp", "[80]", "", &beside))[..2], ["198.51.100.11:8080", "198.51.100.11"]);
    let twice = [("198.51.100.11", "port = 8080"), ("198.51.100.11", "port = 8080"), v6];
    bad("tcp", "", &twice, "12:11: 198.51.100.11:8080 is a backend of \"web\" twice; remove one");
    let same = [("198.51.100.11", "port = 443"), ("198.51.100.11", ""), v6];
    bad(
        "tcp",
        "",
        &same,
        "12:11: 198.51.100.11 without a port gets what comes to port 443, as does 198.51.100.11 with port 443",
    );
}

#[test]
fn what_cannot_be_is_refused_with_its_place_and_a_way_out() {
    let one = [(TWO[0].0, "port = 8080"), TWO[1]];
    let dsr = "in mode \"dsr\" a packet reaches its backend unchanged";
    bad("tcp", "mode = \"dsr\"", &one, &format!("10:8: {dsr}"));
    bad("tcp", "mode = \"dsr\"\nport = 8080", &TWO, &format!("7:8: {dsr}"));
    let text = text("any", "[80]", "port = 8080", &TWO).replace("ports = [80]", "");
    refused(NAME, &text, "6:8: with protocol \"any\" packets come that have no port (ICMP, ESP, GRE …)");
    for wrong in ["[80]", "\"8000-8010\"", "\"8080\"", "true"] {
        bad("tcp", &format!("port = {wrong}"), &TWO, "6:8: port is the backends' port, one number to which packets");
    }
    for wrong in ["0", "65536", "-1"] {
        bad("tcp", &format!("port = {wrong}"), &TWO, &format!("6:8: port is {wrong}; write a number from 1 to 65535"));
    }
    let pieces = format!("defragment = false\n{}", super::ports::text("sctp", "[80]", "port = 8080", &TWO));
    refused(NAME, &pieces, "7:8: SCTP's checksum covers the whole packet, so a fragment cannot get another port");
    plan(NAME, &pieces.replace("sctp", "udp"));
    plan(NAME, &pieces.replace("port = 8080", ""));
}

#[test]
fn a_check_meets_a_backend_where_its_clients_do() {
    let kind = |service: &Service| service.check.as_ref().unwrap().kind.port();
    let check = "check = { kind = \"tcp\" }";
    let same = service("tcp", "[80, 443]", &format!("port = 8080\n{check}"), &TWO);
    assert_eq!((kind(&same), same.checks_own_ports, same.check_port(Some(8080))), (Some(8080), false, Some(8080)));
    let own = service("tcp", "[80]", check, &[(TWO[0].0, "port = 8080"), TWO[1]]);
    assert_eq!(
        (own.checks_own_ports, own.check_port(Some(8080)), own.check_port(None)),
        (true, Some(8080), Some(8080))
    );
    let own = service("tcp", "[80]", check, &[TWO[0], (TWO[1].0, "port = 8080")]);
    assert_eq!((own.checks_own_ports, own.check_port(Some(8080)), own.check_port(None)), (true, Some(8080), Some(80)));
    let named = service("tcp", "[80]", "port = 8080\ncheck = { kind = \"tcp\", port = 9 }", &TWO);
    assert_eq!((named.checks_own_ports, named.check_port(Some(8080))), (false, Some(9)));
    bad("tcp", check, &[(TWO[0].0, "port = 8080"), TWO[1]], "6:9: port is missing: a check of kind \"tcp\" needs one");
    // A client comes to the service's port, so that is what its request says.
    let http = service("tcp", "[80]", "port = 8080\ncheck = { kind = \"http\" }", &TWO).check.unwrap().kind;
    assert!(matches!(http, CheckKind::Http { port: 8080, host, .. } if host == "192.0.2.100"));
    let text = plan(NAME, &text("tcp", "[80]", check, &[TWO[0], (TWO[1].0, "port = 8080")])).to_string();
    assert!(text.contains("up after 2 successes; each backend at its own port\n"), "{text}");
}

#[test]
fn packets_judge_where_all_openings_meet_one_port() {
    let passive = |lines: &str, backends: &[(&str, &str)]| service("tcp", "[80, 443]", lines, backends).policy.passive;
    let check = "check = { kind = \"icmp\" }";
    assert_eq!(passive(&format!("port = 8080\n{check}"), &TWO).unwrap().port, None);
    assert_eq!(passive(check, &[(TWO[0].0, "port = 8080"), TWO[1]]), None);
    bad("sctp", "passive = true", &TWO, "6:11: passive judges by TCP connections, and a service of protocol \"sctp\"");
}

#[test]
fn a_backend_whose_port_changes_is_another_one() {
    let of = |lines: &str, line: &str| plan(NAME, &text("tcp", "[80]", lines, &[(TWO[0].0, line), TWO[1]]));
    let lines = |old: (&str, &str), new: (&str, &str)| {
        diff(&of(old.0, old.1), &of(new.0, new.1)).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        lines(("", "port = 8080"), ("", "port = 8081")),
        [
            "service web: backend 198.51.100.11:8080 is removed: drains for 5m",
            "service web: backend 198.51.100.11:8081 is added (weight 2)"
        ]
    );
    assert_eq!(lines(("", ""), ("port = 80", "")).len(), 4, "both: nobody can tell that it is the same server");
    assert_eq!(lines(("port = 8080", ""), ("port = 8080", "port = 8080")), [""; 0], "two ways to say the same");
    let found = "check = { kind = \"tcp\" }\ndiscover = { network = \"198.51.100.0/24\" }";
    let found = |port: &str| (format!("{found}\n{port}"), "port = 9");
    let (old, new) = (found(""), found("port = 8080"));
    let changes = lines((&old.0, old.1), (&new.0, new.1));
    assert!(changes.contains(&"service web: port of discovered backends as it was → 8080".to_owned()), "{changes:?}");
}

#[test]
fn an_operator_names_a_backend_with_or_without_its_port() {
    let named: Destination = "[2001:db8:2::11]:8080".parse().unwrap();
    assert_eq!(named, service("tcp", "[80]", "port = 8080", &TWO).backends[1].destination());
}
