//! `loaded migrate`: what it makes of another balancer's configuration serves clients.

use crate::rig::lab::{Lab, binary, eventually, said};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, backend_of, get};
use crate::rig::servers::Server;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// Another port on which b1 listens.
const OTHER: u16 = 10_080;

/// Both families in one upstream.
fn nginx() -> String {
    let line = |address, port| SocketAddr::new(address, port);
    let servers = Family::BOTH
        .map(|f| format!("server {} weight=2; server {};", line(f.backend(1), OTHER), line(f.backend(2), 80)));
    let listens = Family::BOTH.map(|f| format!("listen {};", line(f.vip(), 80)));
    format!(
        "stream {{\n upstream web {{ {} }}\n server {{ {} proxy_pass web; }}\n}}",
        servers.concat(),
        listens.concat()
    )
}

/// A service of each family.
fn ipvsadm() -> String {
    let line = |address, port| SocketAddr::new(address, port);
    let one = |f: Family| {
        let vip = line(f.vip(), 80);
        let server = |n, port| format!("-a -t {vip} -r {} -m -w 1\n", line(f.backend(n), port));
        format!("-A -t {vip} -s rr\n{}{}", server(1, OTHER), server(2, 80))
    };
    Family::BOTH.map(one).concat()
}

#[test]
fn what_was_migrated_serves() {
    let Some(lab) = Lab::up() else { return };
    for (name, text) in [("nginx.conf", nginx()), ("dump", ipvsadm())] {
        let file = lab.file(name, &text);
        let migrated = said(&Command::new(binary()).args(["migrate", &file]).output().unwrap());
        assert_eq!((migrated.code, migrated.err.as_str()), (Some(0), ""), "{}", migrated.out);
        let loaded = Loaded::toml(&lab, &migrated.out);
        for family in Family::BOTH {
            let client = family.client(12);
            let answers = |_| backend_of(&get(client, family.vip(), 80).unwrap(), client);
            let backends: BTreeSet<_> = lab.within("client", || (0..6).map(answers).collect());
            assert_eq!(backends.len(), 2, "{name}, {client}: {backends:?}");
        }
        loaded.stop();
    }
}

/// Where Debian's keepalived has its authors' samples. A machine without documentation has none.
const SAMPLES: &str = "/usr/share/doc/keepalived/samples";
/// A server that answers every path, so that the samples' checks pass.
const ANYTHING: u16 = 8090;

/// The strings in the lines that begin with `key`.
fn values(text: &str, key: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// The TCP services of a file: first VIP, first port.
fn services(text: &str) -> Vec<SocketAddr> {
    let one = |table: &str| {
        let vip = table.split_once("vip = ")?.1.split('"').nth(1)?.parse().ok()?;
        let port = table.split_once("\nports = [")?.1.split([',', ']', '-']).next()?.trim_matches('"').parse().ok()?;
        table.contains("protocol = \"tcp\"").then_some(SocketAddr::new(vip, port))
    };
    text.split("[[service]]").skip(1).filter_map(one).collect()
}

/// Gives the lab's hosts the addresses of a file, or takes them away.
fn place(lab: &Lab, act: &str, vips: &BTreeSet<String>, backends: &BTreeSet<String>) {
    let family = |address: &str| if address.contains(':') { Family::V6 } else { Family::V4 };
    let flags = |address: &str| if address.contains(':') { ("-6", "128", "nodad") } else { ("-4", "32", "") };
    for vip in vips {
        let (ip, length, nodad) = flags(vip);
        lab.sh("lb", &format!("ip {ip} address {act} {vip}/{length} dev lo {nodad}"));
        lab.sh("client", &format!("ip {ip} route {act} {vip} via {}", family(vip).vip()));
    }
    for backend in backends {
        let (ip, length, nodad) = flags(backend);
        lab.sh("b1", &format!("ip {ip} address {act} {backend}/{length} dev lo {nodad}"));
        lab.sh("lb", &format!("ip {ip} route {act} {backend} via {}", family(backend).backend(1)));
    }
}

/// They serve as they are migrated, with not a letter changed: the lab has their addresses instead.
#[test]
fn keepaliveds_own_samples_serve() {
    let samples = std::fs::read_dir(SAMPLES).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut samples: Vec<_> = samples.filter(|path| path.to_string_lossy().contains("keepalived.conf.")).collect();
    samples.sort();
    if samples.is_empty() {
        println!("skipped: no {SAMPLES}");
        return;
    }
    let Some(lab) = Lab::up() else { return };
    let _server = Server::web(&lab, "b1", ANYTHING);
    for tool in ["iptables", "ip6tables"] {
        lab.sh("b1", &format!("{tool} -w -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports {ANYTHING}"));
    }
    let mut served = Vec::new();
    for sample in &samples {
        let migrated = said(&Command::new(binary()).arg("migrate").arg(sample).output().unwrap());
        assert!(migrated.code < Some(2), "{}: {}", sample.display(), migrated.err);
        let all = services(&migrated.out);
        if all.is_empty() {
            continue;
        }
        let (vips, backends) = (values(&migrated.out, "vip"), values(&migrated.out, "address"));
        place(&lab, "add", &vips, &backends);
        let loaded = Loaded::toml(&lab, &migrated.out);
        for to in all {
            let client = if to.is_ipv4() { Family::V4 } else { Family::V6 }.client(12);
            let answers = || lab.within("client", || get(client, to.ip(), to.port())).is_ok();
            assert!(
                eventually(Duration::from_secs(8), answers),
                "{}: {to}: {}",
                sample.display(),
                loaded.ask(&["status"]).out
            );
            served.push(to);
        }
        loaded.stop();
        place(&lab, "del", &vips, &backends);
    }
    println!("{} services of {} samples: {served:?}", served.len(), samples.len());
    assert!(served.len() >= 12, "{served:?}");
}
