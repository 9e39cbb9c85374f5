//! What a service of mode "nat" lacks to be served by several balancers at once, where a backend's answer may come back by another
//! balancer than the request has gone by.

use super::Service;
use loaded_ipc::{Mode, Strategy};

impl Service {
    /// What to change so that another balancer adopts the answers to what this one has sent on, and this one does not hold it against
    /// backends that it sees none. Empty: nothing.
    #[must_use]
    pub fn lacks_for_several(&self) -> Vec<&'static str> {
        if self.mode == Mode::Dsr {
            return Vec::new();
        }
        let two = |v4: bool| self.vips.iter().filter(|vip| vip.is_ipv4() == v4).count() > 1;
        let one_port = matches!(self.ports.as_slice(), [only] if only.low == only.high);
        let changes = self.port.is_some() || self.backends.iter().any(|backend| backend.port.is_some());
        [
            (!matches!(self.strategy, Strategy::Maglev { .. }), "strategy = \"maglev\""),
            (self.affinity.is_some(), "affinity = \"none\""),
            (self.policy.passive.is_some(), "passive = false"),
            (!self.policy.adopt, "adopt = true (a protocol and ports that are named)"),
            (two(true) || two(false), "a service for each VIP of a family"),
            (changes && !one_port, "a service for each port"),
        ]
        .into_iter()
        .filter_map(|(lacks, what)| lacks.then_some(what))
        .collect()
    }
}
