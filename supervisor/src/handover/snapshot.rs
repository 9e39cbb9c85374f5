//! Everything that the next supervisor has to know, as it is written into the journal.

use super::kernel_path::PathHandover;
use crate::roster::Roster;
use crate::settings::WrittenSetting;
use loaded_config::Amendment;
use loaded_config::plan::{MetricsAddress, Plan};
use loaded_control::History;
use loaded_ipc::TableKeys;
use loaded_netfilter::Steering;
use loaded_table::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// Version of [`Snapshot`] as text. A field may be added with a default; any other change needs another number.
pub(crate) const FORMAT: u32 = 1;

/// Everything a supervisor writes down for the next one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Snapshot<'a> {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// [`loaded_table::LAYOUT_VERSION`] of the tables.
    pub(crate) tables: u32,
    /// Queue of each worker, and the keys of its tables. Older versions have trusted what the tables said of themselves.
    #[serde(default)]
    pub(crate) keys: Cow<'a, [(u16, TableKeys)]>,
    /// What the workers count, in the order of their memory.
    pub(crate) counters: Cow<'a, str>,
    /// Version of the binary, for the log.
    pub(crate) version: Cow<'a, str>,
    /// The supervisor's process id.
    pub(crate) pid: u32,
    /// When it was written: milliseconds of the monotonic clock.
    #[serde(default)]
    pub(crate) at: i64,
    /// Whether another supervisor could take over the workers of this one, should it be killed.
    pub(crate) adoptable: bool,
    /// The supervisor's own sandbox, as text.
    // Format 1 has it by this name; another would be another format, and would end the workers of a binary rolled back.
    #[serde(rename = "fence")]
    pub(crate) sandbox: Cow<'a, str>,
    /// Path of its control socket.
    pub(crate) control: Cow<'a, Path>,
    /// Core and queue of each worker, in their order.
    pub(crate) queues: Cow<'a, [(u16, u16)]>,
    /// Queue and process id of each process that answers packets.
    pub(crate) workers: Cow<'a, [(u16, u32)]>,
    pub(crate) steering: Steering,
    pub(crate) plan: Cow<'a, Plan>,
    pub(crate) roster: Cow<'a, Roster>,
    pub(crate) history: Cow<'a, History>,
    /// The kernel path, if there is one.
    #[serde(default)]
    pub(crate) kernel_path: Option<PathHandover>,
    /// Where its socket for metrics listens, if it has one.
    #[serde(default)]
    pub(crate) metrics: Option<MetricsAddress>,
    /// Interfaces whose `clsact` is there for a kernel path's sake, by their indexes: the last instance removes it.
    #[serde(default)]
    pub(crate) clsacts: Cow<'a, [u32]>,
    /// What was changed at run time.
    #[serde(default)]
    pub(crate) amendments: Cow<'a, [Amendment]>,
    /// Settings of the host that are to be put back at the end.
    #[serde(default)]
    pub(crate) settings: Cow<'a, [WrittenSetting]>,
}

impl Snapshot<'_> {
    /// The keys of a worker's tables; `None` if this binary cannot open them.
    pub(crate) fn keys_of(&self, queue: u16) -> Option<TableKeys> {
        let mut keys = self.keys.iter().filter(|_| self.tables == LAYOUT_VERSION);
        keys.find(|(of, _)| *of == queue).map(|(_, keys)| *keys)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    #[test]
    fn a_policy_key_that_an_older_version_does_not_know_has_its_default() {
        let policy = loaded_ipc::Policy { slow_start: 30, ..loaded_ipc::Policy::STANDARD };
        assert_eq!(serde_json::from_str::<loaded_ipc::Policy>("{\"slow_start\":30}").unwrap(), policy);
    }
}
