//! Configuration files for both families, as TOML.

use super::lab::Lab;
use super::loaded::Loaded;
use super::net::Family;
use std::fmt;

/// Affinity by client address.
pub(crate) const STICKY: &str = "affinity = { by = \"client\", prefix6 = 128 }";
/// No affinity: each connection is balanced by itself.
pub(crate) const FREE: &str = "affinity = \"none\"";

/// A service; by default HTTP on the lab's VIP, with two backends.
#[derive(Debug, Clone)]
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    /// Last numbers of its VIPs in both families.
    pub(crate) vips: &'a [u16],
    pub(crate) protocol: &'a str,
    /// What goes between the brackets of `ports`; empty with protocol any.
    pub(crate) ports: &'a str,
    /// Further lines of the service.
    pub(crate) keys: &'a str,
    /// Numbers and weights of the backends.
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

/// A configuration file; backends and services that a reload removes keep their flows for `drain`.
pub(crate) fn config(drain: &str, services: &[Service<'_>]) -> String {
    let services = services.iter().map(Service::to_string).collect::<String>();
    format!("drain = {drain:?}\n{services}")
}

/// Writes another configuration and reloads it, which must succeed.
#[track_caller]
pub(crate) fn change(lab: &Lab, loaded: &Loaded, text: &str) {
    lab.file("loaded.toml", text);
    let (ok, said) = loaded.reload();
    assert!(ok && said.starts_with("generation"), "{said}");
}
