//! The documents there are. A newer version comes while somebody still reads the one before: each has memory of its own, which is
//! written again once nobody reads it.

use crate::clock::SECOND;
use loaded_ipc::{Document, LinkError, MAX_DOCUMENT};

/// Versions of one document: the newest, one that comes, and one that somebody slow still reads.
const VERSIONS: usize = 3;
/// Longest text of the health.
const MAX_HEALTH: usize = 64 * 1024;
/// A document that came so many microseconds before it is asked for is new enough. The supervisor makes none sooner.
pub(crate) const FRESH: u64 = SECOND / 4;

/// All documents.
#[derive(Debug)]
pub(crate) struct Shelves {
    metrics: Shelf,
    status: Shelf,
    health: Shelf,
}

impl Shelves {
    pub(crate) fn new() -> Self {
        Self {
            metrics: Shelf::new(Document::Metrics),
            status: Shelf::new(Document::Status),
            health: Shelf::new(Document::Health),
        }
    }

    pub(crate) fn of(&mut self, document: Document) -> &mut Shelf {
        match document {
            Document::Metrics => &mut self.metrics,
            Document::Status => &mut self.status,
            Document::Health => &mut self.health,
        }
    }

    pub(crate) fn bytes(&self, document: Document, version: usize) -> &[u8] {
        match document {
            Document::Metrics => self.metrics.bytes(version),
            Document::Status => self.status.bytes(version),
            Document::Health => self.health.bytes(version),
        }
    }

    /// Somebody asks for a document: so does the supervisor hear of it, unless a new one is there or was asked for.
    pub(crate) fn want(&mut self, document: Document, now: u64) {
        let shelf = self.of(document);
        if shelf.newest(now.saturating_sub(FRESH)).is_none() && !shelf.is_wanted && shelf.free().is_some() {
            (shelf.is_wanted, shelf.is_owed) = (true, true);
        }
    }

    /// The first document that the supervisor is still to be asked for.
    pub(crate) fn owed(&self) -> Option<Document> {
        let all = [
            (Document::Metrics, self.metrics.is_owed),
            (Document::Status, self.status.is_owed),
            (Document::Health, self.health.is_owed),
        ];
        all.into_iter().find(|(_, is_owed)| *is_owed).map(|(document, _)| document)
    }
}

/// One kind of document.
#[derive(Debug)]
pub(crate) struct Shelf {
    versions: [Version; VERSIONS],
    newest: Option<usize>,
    /// When the newest came, microseconds.
    since: u64,
    /// Somebody has asked for it, and it has not come.
    is_wanted: bool,
    /// The supervisor is still to be asked.
    pub(crate) is_owed: bool,
    most: usize,
}

#[derive(Debug, Default)]
struct Version {
    bytes: Vec<u8>,
    serves: bool,
    readers: usize,
}

impl Shelf {
    /// Allocates all it will need. Memory that is never written costs nothing.
    pub(crate) fn new(document: Document) -> Self {
        let most = if document == Document::Health { MAX_HEALTH } else { MAX_DOCUMENT };
        let version = |_| Version { bytes: Vec::with_capacity(most), ..Version::default() };
        Self { versions: std::array::from_fn(version), newest: None, since: 0, is_wanted: false, is_owed: false, most }
    }

    /// The newest, if it came at `from` or later, or none newer can come because slow readers hold every other version.
    pub(crate) fn newest(&self, from: u64) -> Option<usize> {
        self.newest.filter(|_| self.since >= from || (!self.is_wanted && self.free().is_none()))
    }

    fn free(&self) -> Option<usize> {
        (0..VERSIONS).find(|at| Some(*at) != self.newest && self.versions[*at].readers == 0)
    }

    /// Somebody begins to read a version.
    pub(crate) fn begin(&mut self, version: usize) {
        if let Some(version) = self.versions.get_mut(version) {
            version.readers += 1;
        }
    }

    /// Somebody has read it, or has gone.
    pub(crate) fn end(&mut self, version: usize) {
        if let Some(version) = self.versions.get_mut(version) {
            version.readers = version.readers.saturating_sub(1);
        }
    }

    /// What is there.
    pub(crate) fn bytes(&self, version: usize) -> &[u8] {
        self.versions.get(version).map_or(&[], |version| &version.bytes)
    }

    /// What it says of the instance.
    pub(crate) fn serves(&self, version: usize) -> bool {
        self.versions.get(version).is_some_and(|version| version.serves)
    }

    /// A document of so many bytes begins. Returns what comes.
    ///
    /// # Errors
    /// It was not asked for, or is too long.
    pub(crate) fn expect(&mut self, document: Document, bytes: u32, serves: bool) -> Result<Incoming, LinkError> {
        let wrong = |text: &str| LinkError::Malformed(text.to_owned());
        let left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let version = self.free().filter(|_| self.is_wanted).ok_or_else(|| wrong("a document that nobody wants"))?;
        if left == 0 || left > self.most {
            return Err(wrong("a document of impossible length"));
        }
        self.versions[version].bytes.clear();
        self.versions[version].serves = serves;
        Ok(Incoming { document, version, left })
    }

    /// Takes the next part. `true`: it is whole.
    ///
    /// # Errors
    /// It is longer than what is missing.
    pub(crate) fn take(&mut self, incoming: &mut Incoming, part: &[u8], now: u64) -> Result<bool, LinkError> {
        let left = incoming.left.checked_sub(part.len()).filter(|_| !part.is_empty());
        incoming.left = left.ok_or_else(|| LinkError::Malformed("a part that does not fit its document".to_owned()))?;
        // Within the capacity: the whole is no longer than `most`.
        self.versions[incoming.version].bytes.extend_from_slice(part);
        if incoming.left > 0 {
            return Ok(false);
        }
        (self.newest, self.since, self.is_wanted) = (Some(incoming.version), now, false);
        Ok(true)
    }
}

/// A document of which parts are missing.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) document: Document,
    version: usize,
    left: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(shelf: &mut Shelf, text: &str, now: u64) {
        shelf.is_wanted = true;
        let length = u32::try_from(text.len()).expect("short");
        let mut incoming = shelf.expect(Document::Metrics, length, true).expect("wanted");
        for byte in text.as_bytes() {
            let _ = shelf.take(&mut incoming, &[*byte], now).expect("fits");
        }
    }

    #[test]
    fn a_slow_reader_keeps_what_it_reads() {
        let mut shelf = Shelf::new(Document::Metrics);
        assert_eq!(shelf.newest(0), None);
        send(&mut shelf, "one", 1);
        let first = shelf.newest(1).expect("there");
        shelf.begin(first);
        send(&mut shelf, "two", 2);
        let second = shelf.newest(2).expect("there");
        shelf.begin(second);
        send(&mut shelf, "three", 3);
        let third = shelf.newest(3).expect("there");
        assert_eq!([first, second, third].map(|at| shelf.bytes(at)), [&b"one"[..], b"two", b"three"]);
        // Every other version is held: the newest must do, however old.
        assert_eq!(shelf.free(), None);
        assert_eq!(shelf.newest(99), Some(third));
        shelf.end(first);
        assert_eq!(shelf.free(), Some(first));
        assert_eq!(shelf.newest(99), None);
        send(&mut shelf, "four", 4);
        assert_eq!((shelf.newest(4), shelf.bytes(second)), (Some(first), &b"two"[..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut shelf = Shelf::new(Document::Health);
        assert!(shelf.expect(Document::Health, 1, true).is_err(), "nobody wants it");
        shelf.is_wanted = true;
        assert!(shelf.expect(Document::Health, 0, true).is_err());
        assert!(shelf.expect(Document::Health, 64 * 1024 + 1, true).is_err());
        let mut incoming = shelf.expect(Document::Health, 3, true).expect("wanted");
        assert!(shelf.take(&mut incoming, b"", 0).is_err(), "an empty part");
        let mut incoming = shelf.expect(Document::Health, 3, true).expect("wanted");
        assert!(shelf.take(&mut incoming, b"four", 0).is_err(), "too long");
    }
}
