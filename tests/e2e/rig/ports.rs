//! The run with backends on other ports. With `E2E_PORTS` set, every service of one port that a test configures in TOML has
//! its backends ten thousand ports higher, where the lab's servers listen too; and at the service's own port they hear no
//! client any more, so that a port that did not change shows.

use super::lab::Lab;
use super::servers::{backends, service};
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// How much higher the backends are.
const SHIFT: u16 = 10_000;
/// Where the lab's servers listen.
const SERVED: [u16; 3] = [80, 81, 7007];

/// Whether this is that run.
pub(super) fn change() -> bool {
    std::env::var_os("E2E_PORTS").is_some()
}

/// How the program names a backend of a service on port 80.
pub(crate) fn named(address: IpAddr) -> String {
    if change() { SocketAddr::new(address, 80 + SHIFT).to_string() } else { address.to_string() }
}

/// The configuration as this run has it; what it no longer uses is closed in the lab.
pub(super) fn changed(lab: &Lab, text: &str) -> String {
    let mut closed = BTreeSet::new();
    let mut out = String::new();
    for (n, part) in text.split("[[service]]").enumerate() {
        if n > 0 {
            out += "[[service]]";
        }
        match port(part).filter(|_| n > 0) {
            None => out += part,
            Some(port) => {
                closed.insert(port);
                let line = format!("ports = [{port}]");
                out += &part.replacen(&line, &format!("{line}\nport = {}", port + SHIFT), 1);
            }
        }
    }
    closed.into_iter().for_each(|port| close(lab, port));
    out
}

/// What the lab's servers serve by TCP and UDP, for tests that use the classic configuration: it has every port and protocol, so
/// its backends cannot be elsewhere.
pub(super) fn instead_of_classic() -> String {
    let service = |(name, protocol, port)| {
        let keys = "affinity = { by = \"client\", prefix6 = 128 }";
        service(name, protocol, port, keys) + &backends(&[1, 2, 3], "")
    };
    [("web", "tcp", 80), ("second", "tcp", 81), ("echo", "udp", 7007)].map(service).concat()
}

/// The only port of a service whose backends can be elsewhere.
fn port(service: &str) -> Option<u16> {
    let has = |text: &str| service.lines().any(|line| line.trim().starts_with(text));
    let protocol = has("protocol = \"tcp\"") || has("protocol = \"udp\"");
    let port =
        service.lines().find_map(|line| line.trim().strip_prefix("ports = [")?.strip_suffix(']')?.parse().ok())?;
    (protocol && !has("mode = \"dsr\"") && !has("port = ") && SERVED.contains(&port)).then_some(port)
}

/// Clients are not heard any more at this port of the backends.
fn close(lab: &Lab, port: u16) {
    let done = lab.state().join(format!("closed-{port}"));
    if done.exists() {
        return;
    }
    fs::write(done, "").unwrap();
    for who in lab.backends() {
        lab.sh(
            &who,
            &format!(
                "nft 'add table inet closed; add chain inet closed in {{ type filter hook prerouting priority -300; }}
                add rule inet closed in ip saddr 192.0.2.0/24 meta l4proto {{ tcp, udp }} th dport {port} drop;
                add rule inet closed in ip6 saddr 2001:db8:1::/64 meta l4proto {{ tcp, udp }} th dport {port} drop'"
            ),
        );
    }
}
