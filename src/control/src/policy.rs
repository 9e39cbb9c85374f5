//! What the status says of a service's policy: in JSON beside the service's other fields, for people as one line.

use loaded_ipc::Policy;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happens to a service's flows when backends fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// What becomes of flows of a backend that is down: `reset`, `rehash` or `drain`.
    pub on_backend_down: String,
    /// What becomes of new flows when no backend can be chosen: `reject`, `drop` or `last`.
    pub all_down: String,
    /// Percent of backends below which the checks are not believed; 0: never.
    pub panic_threshold: u8,
    /// Seconds in which a backend that came up gets its full share.
    pub slow_start: u32,
}

impl From<&Policy> for PolicyStatus {
    fn from(policy: &Policy) -> Self {
        Self {
            on_backend_down: policy.on_backend_down.to_string(),
            all_down: policy.all_down.to_string(),
            panic_threshold: policy.panic_threshold,
            slow_start: policy.slow_start,
        }
    }
}

/// Values that are off are left out.
impl fmt::Display for PolicyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend down: {}; all down: {}", self.on_backend_down, self.all_down)?;
        if self.panic_threshold > 0 {
            write!(f, "; panic below {} %", self.panic_threshold)?;
        }
        if self.slow_start > 0 {
            write!(f, "; slow start {} s", self.slow_start)?;
        }
        Ok(())
    }
}
