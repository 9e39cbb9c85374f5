//! What the supervisor tells the program: backends by index, virtual IPs by index, and what an address is. Records are words,
//! which it may change while packets pass.

use crate::error::Error;
use crate::mapping::{Access, Mapping};
use crate::shared::{
    ADDRESS_ADDRESS, ADDRESS_BYTES, ADDRESS_INDEX, ADDRESS_IS_BACKEND, ADDRESS_IS_VIP, ADDRESS_KIND, BACKEND_ADDRESS,
    BACKEND_BYTES, BACKEND_FRESH_TCP, BACKEND_FRESH_UDP, BACKEND_INTERFACE, BACKEND_USED,
};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A backend as the program sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend {
    /// Its address; IPv4 as `::ffff:a.b.c.d`.
    pub address: [u8; 16],
    /// The interface that leads to it: its replies must come from there. 0: from any.
    pub interface: u32,
    /// Seconds for which an open TCP flow goes on without a visit to its worker.
    pub fresh_tcp: u16,
    /// The same for UDP.
    pub fresh_udp: u16,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A virtual IP, by its index.
    Vip(u16),
    /// One or several backends whose replies come this way.
    Backend,
}

/// Both kinds of record have four words.
pub(crate) type Words = [u64; 4];

const _: () = assert!(BACKEND_BYTES == size_of::<Words>() && ADDRESS_BYTES == size_of::<Words>());

/// Records of one map, for writing.
#[derive(Debug)]
pub(crate) struct Records(Mapping);

impl Records {
    pub(crate) fn map(fd: impl AsFd, what: &'static str, records: usize) -> Result<Self, Error> {
        Ok(Self(Mapping::new(fd, what, (0, records * size_of::<Words>()), Access::Write)?))
    }

    /// Writes a record. Its last word says that it is there, so it is cleared first and written last.
    pub(crate) fn set(&self, index: usize, words: Words) {
        let Some([a, b, c, there]) = self.place(index) else { return };
        there.store(0, Release);
        a.store(words[0], Release);
        b.store(words[1], Release);
        c.store(words[2], Release);
        there.store(words[3], Release);
    }

    /// A record as it is.
    pub(crate) fn get(&self, index: usize) -> Option<Words> {
        Some(self.place(index)?.each_ref().map(|word| word.load(Relaxed)))
    }

    fn place(&self, index: usize) -> Option<&[AtomicU64; 4]> {
        self.0.words().as_chunks().0.get(index)
    }
}

impl Backend {
    pub(crate) fn words(&self) -> Words {
        let mut raw = [0; BACKEND_BYTES];
        put(&mut raw, BACKEND_ADDRESS, &self.address);
        put(&mut raw, BACKEND_INTERFACE, &self.interface.to_le_bytes());
        put(&mut raw, BACKEND_FRESH_TCP, &self.fresh_tcp.to_le_bytes());
        put(&mut raw, BACKEND_FRESH_UDP, &self.fresh_udp.to_le_bytes());
        put(&mut raw, BACKEND_USED, &[1]);
        words(&raw)
    }
}

impl Kind {
    /// The record of this address.
    pub(crate) fn words(self, address: &[u8; 16]) -> Words {
        let (kind, index) = match self {
            Self::Vip(index) => (ADDRESS_IS_VIP, index),
            Self::Backend => (ADDRESS_IS_BACKEND, 0),
        };
        let mut raw = [0; ADDRESS_BYTES];
        put(&mut raw, ADDRESS_ADDRESS, address);
        put(&mut raw, ADDRESS_INDEX, &index.to_le_bytes());
        put(&mut raw, ADDRESS_KIND, &kind.to_le_bytes()[..1]);
        words(&raw)
    }
}

fn put(raw: &mut [u8], at: usize, bytes: &[u8]) {
    raw[at..at + bytes.len()].copy_from_slice(bytes);
}

fn words(raw: &[u8; 32]) -> Words {
    let (chunks, _) = raw.as_chunks();
    [0, 1, 2, 3].map(|n| u64::from_le_bytes(chunks[n]))
}
