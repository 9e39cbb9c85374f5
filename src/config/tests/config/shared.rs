//! Notes on VIPs that share backends.

use loaded_config::{Families, Overrides, Source, parse};

/// A service of `more` keys with backends of both families, on the VIPs given.
fn service(name: &str, vips: &str, protocol: &str, more: &str, backends: &[u8]) -> String {
    let backend = |n: &u8| {
        let table = |address: String| format!("[[service.backend]]\naddress = \"{address}\"\n");
        table(format!("198.51.100.{n}")) + &table(format!("2001:db8:2::{n}"))
    };
    let backends: String = backends.iter().map(backend).collect();
    format!("[[service]]\nname = \"{name}\"\nvip = [{vips}]\nprotocol = \"{protocol}\"\n{more}\n{backends}")
}

fn notes(services: &[String], families: Families) -> Vec<String> {
    let source = Source::new("f.toml", services.concat());
    parse(&[source], &Overrides { families, ..Overrides::default() }).unwrap().notes
}

const ONE: &str = "\"192.0.2.100\", \"2001:db8:1::100\"";
const OTHER: &str = "\"192.0.2.101\", \"2001:db8:1::101\"";
const END: &str = "if a client uses one source port to both at once, its second connection goes to another backend, \
                   whatever affinity says, and is refused where none is left; to avoid that, give each VIP backends, \
                   backend addresses or backend ports of its own, or use mode dsr";

#[test]
fn services_that_share_backends_and_a_port_by_other_vips_are_named_once() {
    let web = service("web", ONE, "tcp", "ports = [80, 443]", &[11, 12]);
    let shop = service("shop", OTHER, "tcp", "ports = [\"100-500\"]", &[12, 13, 11]);
    let expected = format!(
        "f.toml:20:11: 198.51.100.12 and 3 more backends get tcp port 443 of services \"web\" and \"shop\", which have \
         different VIPs: {END} (see f.toml:11:11)"
    );
    assert_eq!(notes(&[web.clone(), shop.clone()], Families::Both), [expected]);
    let third = service("third", "\"192.0.2.102\", \"2001:db8:1::102\"", "tcp", "ports = [443]", &[11]);
    let notes = notes(&[web, shop, third], Families::Both);
    assert_eq!(notes.len(), 2, "one a service: {notes:?}");
    assert!(notes[1].contains("services \"web\" and \"third\"") && notes[1].contains("and 1 more backend get"));
}

#[test]
fn a_service_for_everything_shares_with_all() {
    let all = service("all", ONE, "any", "", &[11]);
    for (protocol, ports, what) in [
        ("udp", "ports = [53]", "gets udp of"),
        ("tcp", "ports = \"any\"", "gets tcp of"),
        ("any", "", "gets everything of"),
    ] {
        let notes = notes(&[all.clone(), service("one", OTHER, protocol, ports, &[11])], Families::V6);
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains(what) && notes[0].contains("2001:db8:2::11"), "{notes:?}");
    }
}

#[test]
fn a_service_with_two_vips_of_a_family_shares_with_itself() {
    let vips = format!("{ONE}, \"192.0.2.101\"");
    let expected = format!(
        "f.toml:3:42: 192.0.2.100 and 192.0.2.101 of service \"web\" share its backends: {END} (see f.toml:3:8)"
    );
    assert_eq!(notes(&[service("web", &vips, "tcp", "ports = [80]", &[11])], Families::Both), [expected]);
    assert_eq!(notes(&[service("web", &vips, "tcp", "ports = [80]", &[11])], Families::V6), [""; 0]);
}

/// Another port brings flows together that were apart, and takes others apart.
#[test]
fn ports_of_backends_count_not_those_of_vips() {
    let notes = |services: &[String]| notes(services, Families::Both);
    let web = service("web", ONE, "tcp", "ports = [80]\nport = 8080", &[11]);
    let met = notes(&[web.clone(), service("api", OTHER, "tcp", "ports = [\"8000-8100\"]", &[11])]);
    assert!(met[0].contains("get tcp port 8080 of services \"web\" and \"api\", which have different VIPs"), "{met:?}");
    let met = notes(&[web.clone(), service("api", ONE, "tcp", "ports = [81]\nport = 8080", &[11])]);
    assert!(met[0].contains("\"web\" and \"api\", which have different ports"), "{met:?}");
    let one = notes(&[service("web", ONE, "tcp", "ports = [80, 443]\nport = 8080", &[11])]);
    assert_eq!(one.len(), 1, "{one:?}");
    assert!(
        one[0].starts_with("f.toml:6:8: several ports of service \"web\" become port 8080: if a client"),
        "{one:?}"
    );
    for apart in ["ports = [80]", "ports = [80]\nport = 8081"] {
        assert_eq!(notes(&[web.clone(), service("api", OTHER, "tcp", apart, &[11])]), [""; 0], "{apart}");
    }
}

#[test]
fn what_cannot_clash_is_not_noted() {
    let web = |more: &str, backends: &[u8]| service("web", ONE, "tcp", more, backends);
    let shop = |protocol: &str, more: &str| service("shop", OTHER, protocol, more, &[11]);
    for (why, services) in [
        ("one VIP a family", vec![web("ports = [80]", &[11])]),
        ("other ports", vec![web("ports = [80]", &[11]), shop("tcp", "ports = [81]")]),
        ("another protocol", vec![web("ports = [80]", &[11]), shop("udp", "ports = [80]")]),
        ("other backends", vec![web("ports = [80]", &[12]), shop("tcp", "ports = [80]")]),
        ("one is not translated", vec![web("ports = [80]\nmode = \"dsr\"", &[11]), shop("tcp", "ports = [80]")]),
        ("one VIP", vec![web("ports = [80]", &[11]), service("dns", ONE, "udp", "ports = [80]", &[11])]),
    ] {
        assert_eq!(notes(&services, Families::Both), [""; 0], "{why}");
    }
}
