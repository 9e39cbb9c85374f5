//! Why there is no kernel path.

use std::fmt;

/// Why all packets go by the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Off {
    /// The operator does not want it.
    NotWanted,
    /// The kernel refuses the program: its reason.
    Refused(String),
    /// The instance was started without it, so its tables are in memory that no program reads; or upgraded while it was off.
    StartedWithout,
    /// The binary that was upgraded from has another program, or other tables.
    OtherProgram,
}

impl Off {
    /// Its name for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotWanted => "not_wanted",
            Self::Refused(_) => "refused",
            Self::StartedWithout => "started_without",
            Self::OtherProgram => "other_program",
        }
    }

    /// The same, once the log says it, if that is not what the operator wants.
    pub(crate) fn told(self) -> Self {
        if self != Self::NotWanted {
            log::warn!("kernel path: off, all packets go by the queue: {self}");
        }
        self
    }
}

impl fmt::Display for Off {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotWanted => "fast = \"off\"",
            Self::Refused(why) => why,
            Self::StartedWithout => {
                "the instance was started without it, or upgraded while it was off: on when it is started anew"
            }
            Self::OtherProgram => {
                "this binary has another program, or other tables, than the one it was upgraded from: on when it is started anew"
            }
        })
    }
}
