//! Capture files, classic pcap and pcapng, one packet after the other in bounded memory.

use super::error::Error;
use super::link;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The largest block that can be read: four times the longest packet that tcpdump records (262,144 bytes).
const BUFFER: usize = 1 << 20;
/// Interfaces of one section of a file. A hostile file must not buy memory with them.
const MAX_INTERFACES: usize = 65_536;
/// Ticks of a classic file's clock.
const MICROSECONDS: u64 = 1_000_000;

/// A capture that is being read.
pub(super) struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// A classic file has one, a pcapng file as many as it says.
    interfaces: Vec<Interface>,
    nanoseconds: bool,
    /// Packets read, so the number of the last one, from 1.
    count: u64,
    /// Bytes of the block that is being looked at.
    used: usize,
    latest: Duration,
}

/// Where packets were recorded.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link: Linktype,
    /// Ticks of its clock in a second; 0 for a clock nobody can read.
    ticks: u64,
    /// Seconds to be added.
    offset: i64,
    /// Longest record; 0 is no limit.
    longest: u32,
}

/// One recorded packet.
#[derive(Debug)]
pub(super) struct Record<'c> {
    /// From 1.
    pub(super) number: u64,
    /// Since 1970.
    pub(super) time: Duration,
    /// The IP packet, and what the link has put behind it; `None`: the frame carries something else.
    pub(super) packet: Option<&'c [u8]>,
    /// Bytes that the frame had and the record has not.
    pub(super) missing: usize,
}

/// A block, as far as it matters.
enum CaptureItem {
    Frame { interface: usize, time: Option<Duration>, start: usize, length: usize, original: usize },
    Interface(Interface),
    Section,
    Other,
}

impl Capture {
    /// Opens a file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let fail = |source| Error::File { act: "open", path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let reader = create_reader(BUFFER, file).map_err(|error| match error {
            PcapError::ReadError => Error::Read { path: path.to_owned(), number: 0 },
            _ => Error::NoCapture { path: path.to_owned() },
        })?;
        let (interfaces, latest) = (Vec::new(), Duration::ZERO);
        Ok(Self { path: path.to_owned(), reader, interfaces, nanoseconds: false, count: 0, used: 0, latest })
    }

    /// The next packet; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, Error> {
        loop {
            self.reader.consume(std::mem::take(&mut self.used));
            let Some(item) = self.block()? else { return Ok(None) };
            match item {
                CaptureItem::Frame { interface, time, start, length, original } => {
                    self.count += 1;
                    let number = self.count;
                    let Some(interface) = self.interfaces.get(interface) else {
                        return Err(self.broken("it names an interface that the file does not describe"));
                    };
                    if !link::is_known(interface.link) {
                        let path = self.path.clone();
                        return Err(Error::Link { path, number, link: interface.link.0 });
                    }
                    // A record without a time (pcapng's simple packet) is of that of the last one.
                    let time = time.unwrap_or(self.latest);
                    self.latest = time;
                    let frame = self.reader.data().get(start..start + length).unwrap_or_default();
                    let packet = link::packet(interface.link, frame);
                    return Ok(Some(Record { number, time, packet, missing: original.saturating_sub(length) }));
                }
                CaptureItem::Interface(_) if self.interfaces.len() == MAX_INTERFACES => {
                    return Err(self.next_is_broken("there are too many interfaces before it"));
                }
                CaptureItem::Interface(interface) => self.interfaces.push(interface),
                CaptureItem::Section => self.interfaces.clear(),
                CaptureItem::Other => {}
            }
        }
    }

    /// The next block, which is then `used` bytes long.
    fn block(&mut self) -> Result<Option<CaptureItem>, Error> {
        loop {
            let had = self.reader.data().len();
            let (interfaces, nanoseconds) = (&self.interfaces, self.nanoseconds);
            let start_of = self.reader.data().as_ptr().addr();
            match self.reader.next() {
                Ok((used, block)) => {
                    self.used = used;
                    if let PcapBlockOwned::LegacyHeader(header) = &block {
                        self.nanoseconds = header.is_nanosecond_precision();
                    }
                    return Ok(Some(item(&block, interfaces, nanoseconds, start_of)));
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {}
                Err(PcapError::UnexpectedEof) => {
                    let (path, number, at) = (self.path.clone(), self.count + 1, self.reader.consumed() + had);
                    return Err(Error::CutOff { path, number, at });
                }
                Err(PcapError::BufferTooSmall) => return Err(self.next_is_broken("it says it is longer than 1 MiB")),
                Err(_) => return Err(self.next_is_broken("this is not a capture record")),
            }
            if self.reader.refill().is_err() {
                return Err(Error::Read { path: self.path.clone(), number: self.count + 1 });
            }
            if self.reader.data().len() == had && !self.reader.reader_exhausted() {
                return Err(self.next_is_broken("it says it is longer than 1 MiB"));
            }
        }
    }

    fn broken(&self, what: &'static str) -> Error {
        Error::Broken { path: self.path.clone(), number: self.count, what }
    }

    fn next_is_broken(&self, what: &'static str) -> Error {
        Error::Broken { path: self.path.clone(), number: self.count + 1, what }
    }
}

/// What a block says. Its frame is named by its place behind `start_of`, so that the reader can be used meanwhile.
fn item(block: &PcapBlockOwned<'_>, interfaces: &[Interface], nanoseconds: bool, start_of: usize) -> CaptureItem {
    let frame = |interface: usize, time, data: &[u8], captured: usize, original: u32| CaptureItem::Frame {
        interface,
        time,
        start: data.as_ptr().addr().saturating_sub(start_of),
        length: captured.min(data.len()),
        original: original as usize,
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            // The upper bits of the field tell of a checksum behind each frame, as if it were payload.
            let link = Linktype(header.network.0 & 0xffff);
            CaptureItem::Interface(Interface { link, ticks: MICROSECONDS, offset: 0, longest: 0 })
        }
        PcapBlockOwned::Legacy(b) => {
            let fraction = if nanoseconds { b.ts_usec } else { b.ts_usec.saturating_mul(1000) };
            let time = Duration::new(b.ts_sec.into(), fraction.min(999_999_999));
            frame(0, Some(time), b.data, b.caplen as usize, b.origlen)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
            let stamp = u64::from(b.ts_high) << 32 | u64::from(b.ts_low);
            let time = interfaces.get(b.if_id as usize).and_then(|interface| interface.time(stamp));
            frame(b.if_id as usize, time, b.data, b.caplen as usize, b.origlen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(b)) => {
            let longest = interfaces.first().map(|interface| interface.longest).filter(|longest| *longest > 0);
            frame(0, None, b.data, b.origlen.min(longest.unwrap_or(u32::MAX)) as usize, b.origlen)
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(b)) => CaptureItem::Interface(Interface {
            link: b.linktype,
            ticks: ticks(b.if_tsresol),
            offset: b.if_tsoffset,
            longest: b.snaplen,
        }),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => CaptureItem::Section,
        PcapBlockOwned::NG(_) => CaptureItem::Other,
    }
}

impl Interface {
    fn time(&self, stamp: u64) -> Option<Duration> {
        let seconds = (stamp / self.ticks.max(1)).saturating_add_signed(self.offset);
        let nanos = u128::from(stamp.checked_rem(self.ticks)?) * 1_000_000_000 / u128::from(self.ticks);
        Some(Duration::new(seconds, u32::try_from(nanos).ok()?))
    }
}

/// `if_tsresol`: a power of 10, or with the highest bit one of 2 (draft-ietf-opsawg-pcapng, 4.2).
fn ticks(resolution: u8) -> u64 {
    let (base, power): (u64, _) = if resolution & 0x80 == 0 { (10, resolution) } else { (2, resolution & 0x7f) };
    base.checked_pow(power.into()).unwrap_or(0)
}
