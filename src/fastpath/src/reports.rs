//! Reports of packets that the program has sent on and that may move a flow's state: a BPF ring buffer, read by its mapping
//! (Documentation/bpf/ringbuf.rst in the kernel). Reading takes no system call, so a worker can do it in its sandbox.
//!
//! A record is a word, length and two bits, and then the report. The kernel writes the position behind the last record that is
//! reserved, and we the one behind the last that was read.

use crate::error::Error;
use crate::mapping::{Access, Mapping, PAGE};
use crate::shared::{
    HEARD, REPORT_ACKNOWLEDGED, REPORT_BACKEND, REPORT_BYTES, REPORT_CLIENT, REPORT_CLIENT_PORT, REPORT_END,
    REPORT_FLAGS, REPORT_HEARD, REPORT_PACKET_BYTES, REPORT_PROTOCOL, REPORT_REPLY, REPORT_SERVICE_PORT, REPORT_VIP,
    REPORT_VIP_PORT,
};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT, BPF_RINGBUF_HDR_SZ.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;

/// After so many milliseconds a record that is still being written is none: the kernel writes one in microseconds.
const STUCK_MS: u64 = 1000;

/// Bytes of a worker's ring: 4681 reports. A worker that has nothing to do looks every 50 ms, which is enough for 20,000 short
/// connections a second; when the ring is full packets go by the queue and wake it.
pub const REPORTS_BYTES: usize = 1 << 18;

/// A packet that the program has sent on. Numbers are in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// TCP or UDP.
    pub protocol: u8,
    /// The client's address; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The client's port.
    pub client_port: u16,
    /// The port in the flow's key: that of the service, or 0 if the backend has another one.
    pub service_port: u16,
    /// The virtual IP of its flow.
    pub vip: u16,
    /// The port there.
    pub vip_port: u16,
    /// The backend of its flow.
    pub backend: u16,
    /// From the backend.
    pub reply: bool,
    /// TCP flags, the low byte.
    pub flags: u8,
    /// TCP: the number behind its last byte, SYN and FIN counted.
    pub end: u32,
    /// TCP: the number it acknowledges, if it has the flag.
    pub acknowledged: u32,
    /// Its bytes, with the IP header.
    pub bytes: u32,
    /// TCP: the lower 16 bits of the number that the backend has acknowledged last in a packet that the program has sent on.
    pub heard: Option<u16>,
}

/// The ring of one worker, for reading.
#[derive(Debug)]
pub struct Reports {
    /// The page with our position.
    read: Mapping,
    /// The page with the kernel's position, and the data twice in a row, so that no record is cut.
    written: Mapping,
    mask: u64,
    /// The time, as [`Reports::at`] was told it last, milliseconds.
    now: u64,
    /// The position of a record that was seen being written, and when it was so first.
    busy: Option<(u64, u64)>,
}

impl Reports {
    /// Maps a ring of `bytes` bytes of data, a power of two and a multiple of the page size.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn map(fd: impl AsFd, bytes: usize) -> Result<Self, Error> {
        let what = "the ring of reports";
        let read = Mapping::new(&fd, what, (0, PAGE), Access::Write)?;
        let written = Mapping::new(&fd, what, (PAGE, PAGE + 2 * bytes), Access::Read)?;
        Ok(Self { read, written, mask: bytes as u64 - 1, now: 0, busy: None })
    }

    /// The same, never unmapped.
    #[must_use]
    pub fn for_good(self) -> Self {
        Self { read: self.read.for_good(), written: self.written.for_good(), ..self }
    }

    /// The same, at this time in milliseconds of a clock that never goes back.
    #[inline]
    pub fn at(&mut self, now: u64) -> &mut Self {
        self.now = now;
        self
    }

    /// Whether the record at this position, which is being written, has been so for too long to be one.
    #[cold]
    fn is_stuck(&mut self, position: u64) -> bool {
        match self.busy {
            Some((known, since)) if known == position => self.now.saturating_sub(since) >= STUCK_MS,
            _ => {
                self.busy = Some((position, self.now));
                false
            }
        }
    }

    /// The word at this position of the ring.
    fn word(&self, position: u64) -> Option<&AtomicU64> {
        let at = usize::try_from(position & self.mask).ok()?;
        self.written.words().get((PAGE + at) / size_of::<u64>())
    }

    fn report(&self, position: u64) -> Option<Report> {
        let mut raw = [0; REPORT_BYTES];
        for (n, bytes) in (0..).zip(raw.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&self.word(position + n * 8)?.load(Relaxed).to_le_bytes());
        }
        Some(Report::read(&raw))
    }
}

/// The reports that are complete. A hostile worker before us may have left any position. One where no record can begin is taken for
/// the end, so looking ends after as many steps as the ring has words; and so is one whose record seems to be written for a second,
/// for it may lie within a record, where a packet's bytes are no length.
impl Iterator for Reports {
    type Item = Report;

    fn next(&mut self) -> Option<Report> {
        loop {
            let position = self.read.words()[0].load(Relaxed);
            let end = self.written.words()[0].load(Acquire);
            let waiting = end.wrapping_sub(position);
            if waiting == 0 {
                return None;
            }
            if waiting > self.mask + 1 || !position.is_multiple_of(8) {
                self.read.words()[0].store(end, Release);
                return None;
            }
            let header = self.word(position)?.load(Acquire);
            let length = u32::try_from(header & u64::from(u32::MAX)).unwrap_or(0);
            if length & BUSY != 0 {
                if self.is_stuck(position) {
                    self.read.words()[0].store(end, Release);
                }
                return None;
            }
            let bytes = u64::from(length & !DISCARDED);
            let report =
                (length & DISCARDED == 0 && bytes == REPORT_BYTES as u64).then(|| self.report(position + HEADER));
            self.read.words()[0].store(position + (bytes + HEADER).next_multiple_of(8), Release);
            if let Some(report) = report.flatten() {
                return Some(report);
            }
        }
    }
}

impl Report {
    fn read(raw: &[u8; REPORT_BYTES]) -> Self {
        let two = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let four = |at: usize| u32::from(two(at)) | u32::from(two(at + 2)) << 16;
        let mut client = [0; 16];
        client.copy_from_slice(&raw[REPORT_CLIENT..REPORT_CLIENT + 16]);
        Self {
            protocol: raw[REPORT_PROTOCOL],
            client,
            client_port: two(REPORT_CLIENT_PORT),
            service_port: two(REPORT_SERVICE_PORT),
            vip: two(REPORT_VIP),
            backend: two(REPORT_BACKEND),
            reply: raw[REPORT_REPLY] != 0,
            flags: raw[REPORT_FLAGS],
            end: four(REPORT_END),
            acknowledged: four(REPORT_ACKNOWLEDGED),
            bytes: four(REPORT_PACKET_BYTES),
            heard: (four(REPORT_HEARD) as usize & HEARD != 0).then(|| two(REPORT_HEARD)),
            vip_port: two(REPORT_VIP_PORT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::ftruncate;

    const BYTES: usize = 2 * PAGE;

    /// A ring whose `written` page is ours to write too.
    fn ring() -> (Reports, Mapping) {
        let memory = memfd_create(c"ring", MFdFlags::MFD_CLOEXEC).expect("memory");
        ftruncate(&memory, i64::try_from(2 * PAGE + 2 * BYTES).expect("small")).expect("memory");
        let kernel = Mapping::new(&memory, "test", (PAGE, PAGE + 2 * BYTES), Access::Write).expect("map");
        (Reports::map(&memory, BYTES).expect("map"), kernel)
    }

    #[test]
    fn records_are_read_in_turn_and_discarded_ones_left_out() {
        let (mut reports, kernel) = ring();
        let step = (REPORT_BYTES as u64 + HEADER).next_multiple_of(8);
        let word = |position: u64| &kernel.words()[(PAGE + usize::try_from(position).expect("small")) / 8];
        for (n, bits) in [(0, 0), (1, DISCARDED), (2, 0), (3, BUSY)] {
            word(n * step).store(REPORT_BYTES as u64 | u64::from(bits), Relaxed);
        }
        kernel.words()[0].store(4 * step, Release);
        assert_eq!(reports.by_ref().count(), 2);
        assert_eq!(reports.read.words()[0].load(Relaxed), 3 * step, "one is being written");
        assert_eq!(reports.at(999).count(), 0);
        word(3 * step).store(REPORT_BYTES as u64, Release);
        assert_eq!(reports.at(5000).count(), 1, "and then is there");
    }

    #[test]
    fn whatever_position_was_left_the_ring_goes_on_from_its_end() {
        let (mut reports, kernel) = ring();
        kernel.words()[0].store(0x1000_0000, Release);
        for position in [0, 1, 0x1000_0004, 0x1000_0008, 0x0fff_e000 - 8, u64::MAX, 1 << 63] {
            reports.read.words()[0].store(position, Relaxed);
            assert!(reports.by_ref().count() <= BYTES / 8, "{position:#x}");
            assert_eq!(reports.read.words()[0].load(Relaxed), 0x1000_0000, "{position:#x}");
        }
        // Inside a record, whose bytes were a packet's: what looks like a length leads anywhere.
        for word in &kernel.words()[PAGE / 8..] {
            word.store(0x3fff_fff1, Relaxed);
        }
        reports.read.words()[0].store(0x1000_0000 - 800, Relaxed);
        assert_eq!(reports.by_ref().count(), 0);
        assert_eq!(reports.next(), None);
        assert_eq!(reports.read.words()[0].load(Relaxed), 0x1000_0000);
        // Or looks for ever like a record that is being written.
        for word in &kernel.words()[PAGE / 8..] {
            word.store(0xbfff_fff1, Relaxed);
        }
        let left = 0x1000_0000 - 800;
        reports.read.words()[0].store(left, Relaxed);
        for (now, position) in [(7000, left), (7999, left), (8000, 0x1000_0000)] {
            assert_eq!(reports.at(now).count(), 0);
            assert_eq!(reports.read.words()[0].load(Relaxed), position, "{now}");
        }
    }
}
