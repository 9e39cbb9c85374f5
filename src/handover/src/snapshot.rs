//! Everything that the next supervisor has to know, as it is written into the journal.

use super::kernel_path::PathHandover;
use loaded_config::Amendment;
use loaded_config::plan::{MetricsAddress, Plan};
use loaded_control::History;
use loaded_host::WrittenSetting;
use loaded_ipc::TableKeys;
use loaded_netfilter::Steering;
use loaded_roster::Roster;
use loaded_table::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;

/// Version of [`Snapshot`] as text. A field may be added with a default; any other change needs another number.
pub const FORMAT: u32 = 1;

/// Everything a supervisor writes down for the next one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot<'a> {
    /// [`FORMAT`].
    pub format: u32,
    /// [`loaded_table::LAYOUT_VERSION`] of the tables.
    pub tables: u32,
    /// Queue of each worker, and the keys of its tables. Older versions have trusted what the tables said of themselves.
    #[serde(default)]
    pub keys: Cow<'a, [(u16, TableKeys)]>,
    /// What the workers count, in the order of their memory.
    pub counters: Cow<'a, str>,
    /// Version of the binary, for the log.
    pub version: Cow<'a, str>,
    /// The supervisor's process id.
    pub pid: u32,
    /// When it was written: milliseconds of the monotonic clock.
    #[serde(default)]
    pub at: i64,
    /// Whether another supervisor could take over the workers of this one, should it be killed.
    pub adoptable: bool,
    /// The supervisor's own sandbox, as text.
    // Format 1 has it by this name; another would be another format, and would end the workers of a binary rolled back.
    #[serde(rename = "fence")]
    pub sandbox: Cow<'a, str>,
    /// Path of its control socket.
    pub control: Cow<'a, Path>,
    /// Core and queue of each worker, in their order.
    pub queues: Cow<'a, [(u16, u16)]>,
    /// Queue and process id of each process that answers packets.
    pub workers: Cow<'a, [(u16, u32)]>,
    /// Which packets go to which queue.
    pub steering: Steering,
    /// The configuration in force, with what was changed at run time.
    pub plan: Cow<'a, Plan>,
    /// What runs, with its numbers and its health.
    pub roster: Cow<'a, Roster>,
    /// What has happened.
    pub history: Cow<'a, History>,
    /// The kernel path, if there is one.
    #[serde(default)]
    pub kernel_path: Option<PathHandover>,
    /// Queues of workers whose flow table is a map of a kernel path, which may be off by now: their other maps are handed over too.
    /// Older versions hand them over only if there is a kernel path, and do not write this.
    #[serde(default)]
    pub maps: Cow<'a, [u16]>,
    /// Where its socket for metrics listens, if it has one.
    #[serde(default)]
    pub metrics: Option<MetricsAddress>,
    /// Interfaces whose `clsact` is there for a kernel path's sake, by their indexes: the last instance removes it.
    #[serde(default)]
    pub clsacts: Cow<'a, [u32]>,
    /// What was changed at run time.
    #[serde(default)]
    pub amendments: Cow<'a, [Amendment]>,
    /// Settings of the host that are to be put back at the end.
    #[serde(default)]
    pub settings: Cow<'a, [WrittenSetting]>,
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
