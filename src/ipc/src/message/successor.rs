//! Messages between a supervisor and its successor at an upgrade.

use bincode::{Decode, Encode};

/// Supervisor to its successor at an upgrade. Here two different binaries talk to each other: neither these messages nor
/// their order may ever change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToSuccessor {
    /// The predecessor's workers have ended: queues and tables are the successor's.
    Yours,
}

/// Successor to its predecessor at an upgrade. May never change either.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromSuccessor {
    /// The successor cannot take over, and says why; nothing has changed. At most [`crate::MAX_TEXT`] bytes.
    Refused(String),
    /// Its workers wait for the queues; its rules stand.
    Prepared {
        /// Whether its tables have another layout, so that their contents must be exported.
        export: bool,
    },
    /// Its workers serve.
    Serving,
}
