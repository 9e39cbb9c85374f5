//! What a check may take from its service: ports, and the name it asks for.

use loaded_ipc::Protocol;
use std::net::IpAddr;

/// HTTP's port, which a Host header does not name, RFC 9110 §4.2.1.
const HTTP_PORT: u16 = 80;

/// The service as its check sees it.
pub(crate) struct Surroundings<'a> {
    /// The service's name.
    pub(crate) service: &'a str,
    /// What it balances.
    pub(crate) protocol: Protocol,
    /// Where its backends are, if each is on one port: the first's.
    pub(crate) backend_port: Option<u16>,
    /// The port that clients come to, if there is exactly one.
    pub(crate) only_port: Option<u16>,
    /// Its first VIP.
    pub(crate) vip: Option<IpAddr>,
    /// The port that the check names.
    pub(crate) port: Option<u16>,
}

impl Surroundings<'_> {
    /// The port that is named, or the backends' if the service speaks the check's protocol.
    pub(super) fn port(&self, kind: &str, protocol: Protocol) -> Result<u16, String> {
        self.port.or(self.own_port(protocol)).ok_or_else(|| {
            format!(
                "port is missing: a check of kind {kind:?} needs one, and service {:?} does not have exactly one \
                 {protocol} port; write port = …",
                self.service
            )
        })
    }

    pub(super) fn own_port(&self, protocol: Protocol) -> Option<u16> {
        self.backend_port.filter(|_| self.protocol == protocol)
    }

    /// What a client that knows only the address sends as Host: the first VIP. The backend's server has to answer to it
    /// anyway; a name would be a guess.
    pub(super) fn default_host(&self, checked: u16) -> Option<String> {
        // A client comes to the service's port, wherever its packets go from there.
        let port = self.only_port.filter(|_| self.port.is_none()).unwrap_or(checked);
        let host = match self.vip? {
            IpAddr::V4(vip) => vip.to_string(),
            IpAddr::V6(vip) => format!("[{vip}]"),
        };
        Some(if port == HTTP_PORT { host } else { format!("{host}:{port}") })
    }
}
