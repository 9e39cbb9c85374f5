//! The header of a region: written by whoever makes the region, and compared by whoever opens it; nothing else relies on it.

use super::hash::split_key;
use crate::error::{Damage, Error};
use crate::layout::{self, Bucket, Kind, LAYOUT_VERSION, MAGIC, RegionHeader};
use crate::shm::Region;
use crate::spec::TableSpec;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, fence};

/// Writes an empty map into `region`, whatever was there before.
pub(crate) fn format(region: &Region, kind: Kind, spec: TableSpec) -> Result<(), Error> {
    let count = spec.buckets()?;
    let size_error = || Error::Size { need: layout::bytes_for(kind, spec.capacity), have: region.bytes() };
    if region.bytes() < layout::bytes_for(kind, spec.capacity) {
        return Err(size_error());
    }
    let header = header(region).ok_or_else(size_error)?;
    let buckets = region.view::<Bucket>(size_of::<RegionHeader>(), count).ok_or_else(size_error)?;
    // The magic is cleared first and written last: a half-formatted region is no table.
    header.magic.store(0, Relaxed);
    fence(Release);
    for bucket in buckets {
        bucket.tags[0].store(0, Relaxed);
        bucket.tags[1].store(0, Relaxed);
    }
    let [k0, k1] = split_key(spec.hash_key);
    header.version.store(LAYOUT_VERSION, Relaxed);
    header.kind.store(kind as u32, Relaxed);
    header.capacity.store(spec.capacity as u64, Relaxed);
    header.buckets.store(count as u64, Relaxed);
    header.key[0].store(k0, Relaxed);
    header.key[1].store(k1, Relaxed);
    header.magic.store(MAGIC, Release);
    Ok(())
}

/// The first field of a header that is not as [`format()`] writes it. Nothing else is done with what it says.
pub(super) fn damage_of(region: &Region, kind: Kind, spec: TableSpec, buckets: usize) -> Option<Damage> {
    let header = header(region)?;
    let fields = [
        ("magic", header.magic.load(Relaxed), MAGIC),
        ("layout version", header.version.load(Relaxed).into(), LAYOUT_VERSION.into()),
        ("kind", header.kind.load(Relaxed).into(), kind as u64),
        ("capacity", header.capacity.load(Relaxed), spec.capacity as u64),
        ("number of buckets", header.buckets.load(Relaxed), buckets as u64),
    ];
    let wrong = fields.into_iter().find(|(_, found, expected)| found != expected);
    let other_key = || [&header.key[0], &header.key[1]].map(|word| word.load(Relaxed)) != split_key(spec.hash_key);
    match wrong {
        Some((field, found, expected)) => Some(Damage::Field { field, found, expected }),
        None => other_key().then_some(Damage::HashKey),
    }
}

fn header(region: &Region) -> Option<&RegionHeader> {
    region.view::<RegionHeader>(0, 1).and_then(<[_]>::first)
}
