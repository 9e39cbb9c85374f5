//! `loaded migrate`: what it makes of another balancer's configuration serves clients.

use crate::rig::debian::documents;
use crate::rig::lab::{Lab, Said, binary, eventually, said, shipped};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, backend_of, get};
use crate::rig::servers::Server;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
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

/// Servers that answer every path and every datagram, so that the checks of these files pass.
const ANYTHING: u16 = 8090;
/// What nginx's `listen 80` stands for.
const EVERYWHERE: [&str; 2] = ["203.0.113.99", "2001:db8:5::99"];

/// The files of a folder whose names are of this kind, in their order.
fn files(folder: &Path, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let list = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file() && is_one(path.file_name().unwrap().to_str().unwrap()));
    files.sort();
    files
}

/// A service of a file.
struct Service {
    protocol: String,
    /// Mode dsr.
    direct: bool,
    vips: BTreeSet<IpAddr>,
    /// The first of its ports, or 80 if it serves all of them.
    port: u16,
    backends: BTreeSet<IpAddr>,
}

fn services(text: &str) -> Vec<Service> {
    let values = |table: &str, key: &str| -> BTreeSet<String> {
        let lines = table.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
    };
    let addresses = |table: &str, key| values(table, key).iter().map(|text| text.parse().unwrap()).collect();
    let one = |table: &str| {
        let ports = table.split_once("\nports = [").map_or("80", |(_, rest)| rest);
        Service {
            protocol: values(table, "protocol").pop_first().unwrap(),
            direct: values(table, "mode").contains("dsr"),
            vips: addresses(table, "vip"),
            port: ports.trim_start_matches('"').split(['"', ',', ']', '-']).next().unwrap().parse().unwrap(),
            backends: addresses(table, "address"),
        }
    };
    text.split("[[service]]").skip(1).map(one).collect()
}

/// What `ip` is told of an address alone: family and length of the prefix.
fn alone(address: IpAddr) -> (&'static str, String) {
    if address.is_ipv4() { ("-4", format!("{address}/32")) } else { ("-6", format!("{address}/128 nodad")) }
}

/// The balancer's own address in a backend's network.
fn beside(backend: IpAddr) -> String {
    match backend {
        IpAddr::V4(address) => {
            format!("{}/24", Ipv4Addr::from_bits(address.to_bits() | 0xff).to_string().replace(".255", ".254"))
        }
        IpAddr::V6(address) => format!("{}/64 nodad", Ipv6Addr::from_bits(address.to_bits() >> 64 << 64 | 0xfe)),
    }
}

/// Gives the lab's hosts the addresses of a file, or takes them away.
fn place(lab: &Lab, act: &str, services: &[Service]) {
    let family = |address: &IpAddr| if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let is_labs = |address: &IpAddr| {
        let text = address.to_string();
        ["192.0.2.", "198.51.100.", "2001:db8:1:", "2001:db8:2:"].iter().any(|network| text.starts_with(network))
    };
    let (mut lb, mut client, mut b1) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for service in services {
        for vip in service.vips.iter().filter(|vip| !is_labs(vip)) {
            let (ip, length) = alone(*vip);
            // In mode dsr it is no address of the balancer.
            lb.extend((!service.direct).then(|| format!("ip {ip} address {act} {length} dev lo")));
            client.insert(format!("ip {ip} route {act} {vip} via {}", family(vip).vip()));
        }
        for backend in service.backends.iter().filter(|backend| !is_labs(backend)) {
            let (ip, length) = alone(*backend);
            b1.insert(format!("ip {ip} address {act} {length} dev eth0"));
            lb.insert(match service.direct {
                true => format!("ip {ip} address {act} {} dev eth1", beside(*backend)),
                false => format!("ip {ip} route {act} {backend} via {}", family(backend).backend(1)),
            });
        }
    }
    for (who, lines) in [("b1", b1), ("lb", lb), ("client", client)] {
        lab.sh(who, &lines.into_iter().collect::<Vec<_>>().join(" && "));
    }
}

/// A lab in which b1 answers everything that is sent to it.
fn obliging() -> Option<(Lab, [Server; 2])> {
    let lab = Lab::up()?;
    let web = Server::web(&lab, "b1", ANYTHING);
    // Good enough as an answer of a name server.
    let answer =
        |query: &[u8], _| Some(query.iter().enumerate().map(|(n, byte)| byte | u8::from(n == 2) << 7).collect());
    let datagrams = Server::datagrams(&lab, "b1", ANYTHING, answer);
    for tool in ["iptables", "ip6tables"] {
        for protocol in ["tcp", "udp"] {
            let redirect = format!("-A PREROUTING -i eth0 -p {protocol} -j REDIRECT --to-ports {ANYTHING}");
            lab.sh("b1", &format!("{tool} -w -t nat {redirect}"));
        }
    }
    Some((lab, [web, datagrams]))
}

fn migrate(file: &Path) -> Said {
    let vips = EVERYWHERE.map(|vip| format!("--vip={vip}"));
    said(&Command::new(binary()).arg("migrate").args(vips).arg(file).output().unwrap())
}

/// Serves what comes out of a file, with not a letter changed: the lab has its addresses instead. Returns how many services have answered.
#[track_caller]
fn serves(lab: &Lab, file: &Path) -> usize {
    let migrated = migrate(file);
    assert!(matches!(migrated.code, Some(0 | 1)), "{}: {}", file.display(), migrated.err);
    let services = services(&migrated.out);
    if services.is_empty() {
        assert!(migrated.err.contains("no service is left"), "{}: {}", file.display(), migrated.err);
        return 0;
    }
    place(lab, "add", &services);
    let loaded = Loaded::toml(lab, &migrated.out);
    let (mut served, mut count) = (Vec::new(), 0);
    for Service { protocol, vips, port, .. } in &services {
        let before = served.len();
        // No server here speaks SCTP; and of its many IPv6 addresses b1 answers a datagram by another than it was redirected to.
        for vip in vips.iter().filter(|vip| protocol == "tcp" || protocol == "udp" && vip.is_ipv4()) {
            let client = if vip.is_ipv4() { Family::V4 } else { Family::V6 }.client(12);
            let answer = || match protocol.as_str() {
                "tcp" => get(client, *vip, *port),
                _ => ask(client, SocketAddr::new(*vip, *port), "\0\0\0\0"),
            };
            let answers = || lab.within("client", answer).is_ok();
            let asked = format!("{protocol} {}", SocketAddr::new(*vip, *port));
            let status = || loaded.ask(&["status"]).out;
            assert!(eventually(Duration::from_secs(8), answers), "{}: {asked}: {}", file.display(), status());
            served.push(asked);
        }
        count += usize::from(served.len() > before);
    }
    loaded.stop();
    place(lab, "del", &services);
    println!("{}: {count} of {} services: {}", file.display(), services.len(), served.join(", "));
    count
}

#[test]
fn keepaliveds_own_samples_serve() {
    let Some(documents) = documents("keepalived") else { return };
    let samples =
        files(&documents.join("usr/share/doc/keepalived/samples"), |name| name.starts_with("keepalived.conf."));
    let Some((lab, _servers)) = obliging() else { return };
    let served: Vec<_> = samples.iter().map(|sample| serves(&lab, sample)).collect();
    let with_services = served.iter().filter(|services| **services > 0).count();
    println!("{} services of {with_services} of {} samples", served.iter().sum::<usize>(), samples.len());
    assert!(with_services >= 15, "{served:?}");
}

/// The examples of a manual page that give orders to ipvsadm, each as a file: as commands, and as what `ipvsadm -R` reads.
fn examples(lab: &Lab, package: &Path) -> Vec<PathBuf> {
    let page = package.join("usr/share/man/man8/ipvsadm.8.gz");
    let text = lab.sh("lb", &format!("zcat {}", page.display()));
    let blocks = text.split("\n.nf\n").skip(1).map(|block| block.split("\n.fi\n").next().unwrap());
    let orders = blocks.map(|block| {
        let is_order = |line: &&str| line.starts_with("ipvsadm -") || line.starts_with('-');
        block.lines().filter(is_order).map(|line| format!("{line}\n")).collect::<String>()
    });
    let orders = orders.filter(|text| text.contains("-A "));
    orders.enumerate().map(|(n, text)| PathBuf::from(lab.file(&format!("ipvsadm.8-{n}"), &text))).collect()
}

/// A file of this machine's own addresses, moved to the lab's.
fn moved(lab: &Lab, file: &Path) -> PathBuf {
    let line = |line: &str| {
        let listens = ["listen ", "-A ", "virtual_server "].iter().any(|word| line.trim_start().starts_with(word));
        let address = |family: Family| if listens { family.vip() } else { family.backend(1) }.to_string();
        line.replace("127.0.0.1", &address(Family::V4)).replace("[::1]", &format!("[{}]", address(Family::V6))) + "\n"
    };
    let text: String = fs::read_to_string(file).unwrap().lines().map(line).collect();
    PathBuf::from(lab.file(file.file_name().unwrap().to_str().unwrap(), &text))
}

/// As tests/e2e/host/migrate/README.md has them: what becomes of each, and that it serves.
#[test]
fn public_configurations_serve() {
    let Some(ipvsadm) = documents("ipvsadm") else { return };
    let Some((lab, _servers)) = obliging() else { return };
    let expected = [
        ("ipvsadm.dr", 2),
        ("ipvsadm.live", 19),
        ("ipvsadm.nat", 2),
        ("ipvsadm.save", 7),
        ("nginx.access", 1),
        ("nginx.core", 2),
        ("nginx.health", 3),
        ("nginx.limit-conn", 1),
        ("nginx.preread", 1),
        ("nginx.proxy", 3),
        ("nginx.t-hash", 2),
        ("nginx.t-random", 2),
        ("nginx.t-udp", 2),
        ("nginx.t-upstream", 4),
        ("nginx.upstream", 2),
    ];
    let ours = files(Path::new(&shipped("tests/e2e/host/migrate")), |name| name != "README.md");
    let served = ours.iter().map(|file| (file.file_name().unwrap().to_str().unwrap(), serves(&lab, file)));
    assert_eq!(served.collect::<Vec<_>>(), expected);
    let examples = examples(&lab, &ipvsadm);
    assert!(examples.len() >= 4, "{examples:?}");
    let served: Vec<_> = examples.iter().map(|example| serves(&lab, example)).collect();
    println!("services of the examples of ipvsadm(8): {served:?}");
    assert!(served.iter().filter(|services| **services > 0).count() >= 3, "{served:?}");
    if let Some(folder) = std::env::var_os("E2E_MIGRATE") {
        try_others(&lab, Path::new(&folder));
    }
}

/// Files of anybody's: what cannot be read is named, what comes out of the others serves.
fn try_others(lab: &Lab, folder: &Path) {
    let (mut services, mut unreadable, files) = (0, 0, files(folder, |_| true));
    for file in &files {
        let file = moved(lab, file);
        let said = migrate(&file);
        match said.code {
            Some(2) => {
                unreadable += 1;
                println!("{}: {}", file.display(), said.err);
            }
            _ => services += serves(lab, &file),
        }
    }
    println!("{services} services of {} files in {}, {unreadable} unreadable", files.len(), folder.display());
}
