//! One backend of a pool: what the configuration says of it, and its standing.

use loaded_ipc::BackendIndex;
use siphasher::sip::SipHasher13;

/// The share of a member outside its slow start: all of its weight.
pub const FULL_SHARE: u16 = 1024;

/// One backend of a service, as the configuration gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSpec {
    /// The backend's stable number.
    pub backend: BackendIndex,
    /// Its address; IPv4 as `::ffff:a.b.c.d`. Maglev's permutations depend on this and the port alone.
    pub address: [u8; 16],
    /// The port that its packets get; `None`: they keep the one they came to.
    pub port: Option<u16>,
    /// Its part relative to the others: 0..=65535. With 0 it gets no new clients and counts nowhere.
    pub weight: u16,
    /// Whether it serves only when no primary (a member that is no backup) can.
    pub backup: bool,
}

impl MemberSpec {
    /// A hash of where it is. Without a port it is that of its address, as versions without ports make it.
    pub(super) fn hash(&self, hasher: &SipHasher13) -> u64 {
        match self.port {
            None => hasher.hash(&self.address),
            Some(port) => {
                let mut place = [0; 18];
                place[..16].copy_from_slice(&self.address);
                place[16..].copy_from_slice(&port.to_be_bytes());
                hasher.hash(&place)
            }
        }
    }

    /// Where it is, to put members in the same order everywhere.
    pub(super) fn place(&self) -> ([u8; 16], Option<u16>) {
        (self.address, self.port)
    }
}

/// What speaks for or against a member, each from its own source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The operator has neither drained nor disabled it.
    pub enabled: bool,
    /// The operator has named it, or a check has passed. A node that was only found may not exist, whatever is doubted about
    /// the checks: it is no candidate and does not count.
    pub confirmed: bool,
    /// The active checks report it up.
    pub up: bool,
    /// Passive observation has ejected it: it does not accept connections.
    pub ejected: bool,
}

/// A member and its standing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) spec: MemberSpec,
    pub(super) standing: Standing,
    /// The number of its latest failure among those of the whole pool; 0: it never failed.
    pub(super) last_failure: u64,
    /// 0..=`FULL_SHARE`, as the caller said.
    pub(super) share: u16,
    /// Its weight in 1/1024 if it is a candidate, else 0.
    pub(super) effective: u64,
    /// Its share relative to the largest of any candidate: 1..=`FULL_SHARE`; 0 if it is no candidate.
    pub(super) part: u16,
}

impl Member {
    pub(super) fn new(spec: MemberSpec) -> Self {
        let standing = Standing { enabled: true, confirmed: true, up: true, ejected: false };
        Self { spec, standing, last_failure: 0, share: FULL_SHARE, effective: 0, part: 0 }
    }

    #[inline]
    pub(super) fn is_candidate(&self) -> bool {
        self.part > 0
    }

    /// 1..=[`FULL_SHARE`] for a candidate, else 0.
    #[inline]
    pub(super) fn part(&self) -> u16 {
        self.part
    }

    /// Weight times part: in 1/1024, at most 2^26; not 0 for a candidate, 0 for any other.
    #[inline]
    pub(super) fn effective(&self) -> u64 {
        self.effective
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.standing.enabled && self.standing.confirmed && self.spec.weight > 0
    }

    pub(super) fn is_usable(&self) -> bool {
        self.is_enabled() && self.standing.is_well()
    }
}

impl Standing {
    /// Whether neither the active checks nor passive observation speak against it.
    pub(super) fn is_well(self) -> bool {
        self.up && !self.ejected
    }
}
