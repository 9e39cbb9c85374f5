//! What the packet path needs to know of a backend, in one byte, and what the kernel path is told of it.

use loaded_fastpath::{Keep, Keeping};

/// What the packet path needs to know of a backend, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BackendFlags(pub(super) u8);

impl BackendFlags {
    pub(super) const KEEPS_FLOWS: u8 = 1;
    pub(super) const TAKES_NEW: u8 = 2;
    /// It has failed openings, which its next answer clears.
    pub(super) const SUSPECTED: u8 = 4;
    /// A tick may change something about it: it is ejected, or in its slow start.
    pub(super) const TIMED: u8 = 8;

    /// It keeps its flows and may be given new ones.
    #[inline]
    pub(crate) fn is_serving(self) -> bool {
        self.0 & (Self::KEEPS_FLOWS | Self::TAKES_NEW) == Self::KEEPS_FLOWS | Self::TAKES_NEW
    }

    /// It keeps its flows.
    #[inline]
    pub(crate) fn keeps_flows(self) -> bool {
        self.0 & Self::KEEPS_FLOWS != 0
    }

    /// It may be given new flows.
    #[inline]
    pub(crate) fn takes_new_flows(self) -> bool {
        self.0 & Self::TAKES_NEW != 0
    }

    /// It keeps its flows, and has no failed openings.
    #[inline]
    pub(crate) fn is_unsuspected(self) -> bool {
        self.0 & (Self::KEEPS_FLOWS | Self::SUSPECTED) == Self::KEEPS_FLOWS
    }

    pub(super) fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Tells the kernel path of a change: in one store its flows stop there. A backend with failed openings is heard in full, since
/// its next answer clears them.
pub(super) fn announce(keeping: Option<&Keeping>, backend: u16, flags: BackendFlags) {
    if let Some(keeping) = keeping {
        let keep = match (flags.keeps_flows(), flags.is_unsuspected()) {
            (false, _) => Keep::No,
            (true, true) => Keep::Yes,
            (true, false) => Keep::Heard,
        };
        keeping.set(backend, keep);
    }
}

pub(super) fn bit(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}
