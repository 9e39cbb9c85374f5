//! A configuration in both families, as text.

use super::lab::Lab;
use super::loaded::Loaded;
use super::net::Family;
use std::fmt;

/// A client is an address and keeps its backend.
pub(crate) const STICKY: &str = "affinity = { by = \"client\", prefix6 = 128 }";
/// Each connection is balanced by itself.
pub(crate) const FREE: &str = "affinity = \"none\"";

/// A service: unless said otherwise, HTTP on the VIP of the lab by two backends.
#[derive(Debug, Clone)]
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    /// Last numbers of its VIPs in both families.
    pub(crate) vips: &'a [u16],
    pub(crate) protocol: &'a str,
    /// In brackets; empty with the protocol any.
    pub(crate) ports: &'a str,
    /// Further lines.
    pub(crate) keys: &'a str,
    /// Numbers and weights.
    pub(crate) backends: &'a [(u16, u16)],
}

impl Default for Service<'_> {
    fn default() -> Self {
        let backends = &[(1, 1), (2, 1)];
        Self { name: "web", vips: &[100], protocol: "tcp", ports: "80", keys: STICKY, backends }
    }
}

impl fmt::Display for Service<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, vips, protocol, ports, keys, backends } = self;
        let vips = Family::BOTH.map(|family| vips.iter().map(|n| family.client(*n).to_string()).collect::<Vec<_>>());
        writeln!(f, "[[service]]\nname = {name:?}\nvip = {:?}", vips.concat())?;
        writeln!(f, "protocol = {protocol:?}\n{keys}")?;
        if !ports.is_empty() {
            writeln!(f, "ports = [{ports}]")?;
        }
        for (n, weight) in *backends {
            for address in Family::BOTH.map(|family| family.backend(*n)) {
                writeln!(f, "[[service.backend]]\naddress = \"{address}\"\nweight = {weight}")?;
            }
        }
        Ok(())
    }
}

/// What is taken out keeps its flows for `drain`.
pub(crate) fn config(drain: &str, services: &[Service<'_>]) -> String {
    let services = services.iter().map(Service::to_string).collect::<String>();
    format!("drain = {drain:?}\n{services}")
}

/// Writes another configuration and reloads; it must be taken.
#[track_caller]
pub(crate) fn change(lab: &Lab, loaded: &Loaded, text: &str) {
    lab.file("loaded.toml", text);
    let (ok, said) = loaded.reload();
    assert!(ok && said.starts_with("generation"), "{said}");
}
