//! `loaded migrate`: what it makes of another balancer's configuration serves clients.

use crate::rig::lab::{Lab, binary, said};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, backend_of, get};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

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
