//! Whether this kernel's ring buffer is safe from a hostile reader. CVE-2024-41009: a reader that lies about how far it has read
//! makes records overlap, and a record then overwrites what the kernel keeps of another. The reader is a worker, whose hijacking must
//! not reach the kernel, so without the fix ("bpf: Fix overrunning reservations in ringbuf") there is no kernel path.

use crate::error::Error;
use aya::util::KernelVersion;

/// The first release with the fix, and the first of the next series.
const FIXED: [([u8; 3], [u8; 3]); 4] =
    [([5, 15, 162], [5, 16, 0]), ([6, 1, 97], [6, 2, 0]), ([6, 6, 37], [6, 7, 0]), ([6, 9, 8], [6, 10, 0])];
const FIRST: [u8; 3] = [6, 10, 0];

/// # Errors
/// If the fix may be missing.
pub(crate) fn require() -> Result<(), Error> {
    let version = KernelVersion::current().ok();
    if version.is_some_and(is_fixed) {
        return Ok(());
    }
    let version = version.map_or_else(|| "of unknown version".to_owned(), |version| version.to_string());
    Err(Error::Kernel {
        act: "trust the ring of reports",
        reason: format!(
            "this kernel, {version}, may lack the fix of CVE-2024-41009, and a worker that was taken over could reach the kernel; \
             it is in Linux 6.10, 6.9.8, 6.6.37, 6.1.97 and 5.15.162"
        ),
    })
}

fn is_fixed(version: KernelVersion) -> bool {
    let number = |[major, minor, patch]: [u8; 3]| KernelVersion::new(major, minor, patch.into());
    version >= number(FIRST) || FIXED.iter().any(|(from, to)| (number(*from)..number(*to)).contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_with_the_fix_are_known() {
        for (version, fixed) in [
            ((5, 12, 19), false),
            ((5, 15, 161), false),
            ((5, 15, 162), true),
            ((5, 16, 20), false),
            ((6, 1, 96), false),
            ((6, 1, 106), true),
            ((6, 2, 0), false),
            ((6, 6, 36), false),
            ((6, 6, 37), true),
            ((6, 8, 0), false),
            ((6, 9, 8), true),
            ((6, 10, 0), true),
            ((6, 18, 5), true),
            ((7, 0, 0), true),
        ] {
            let (major, minor, patch) = version;
            assert_eq!(is_fixed(KernelVersion::new(major, minor, patch)), fixed, "{version:?}");
        }
    }
}
