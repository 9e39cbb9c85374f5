//! `loaded replay`: what a worker would do with the packets of a capture. Files and text are handled here; the
//! decisions are the worker's own. Nothing is sent, and no right is needed.

mod capture;
mod error;
mod link;
mod text;

use crate::cli::ReplayLine;
use capture::{Capture, Record};
use error::Error;
use loaded_config::{self as config, Overrides};
use loaded_control::text::plain;
use loaded_supervisor::{Briefing, briefing};
use loaded_worker::replay::{Outcome, Replay, Replayed, Verdict};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use text::Headers;

/// One packet, as a program reads it.
#[derive(Serialize)]
struct PacketRecord<'l> {
    packet: u64,
    /// Seconds since the first packet.
    time: f64,
    headers: Option<String>,
    service: Option<&'l str>,
    flow: Option<FlowRecord>,
    reason: &'static str,
    verdict: Option<String>,
    rewritten: Option<String>,
}

/// The flow of a packet.
#[derive(Serialize)]
struct FlowRecord {
    known: bool,
    protocol: u8,
    client: String,
    client_port: u16,
    vip: String,
    vip_port: u16,
    backend: String,
    /// The port that its packets get; none: they keep the one they came to.
    backend_port: Option<u16>,
}

/// What came of all.
#[derive(Serialize)]
struct Summary {
    packets: u64,
    not_ip: u64,
    reasons: BTreeMap<&'static str, u64>,
}

/// Replays a capture. Returns the exit code.
pub(crate) fn run(line: &ReplayLine) -> Result<i32, Box<dyn std::error::Error>> {
    let paths = if line.config.is_empty() { vec![config::find()?] } else { line.config.clone() };
    let plan = config::load(&paths, &Overrides::default())?.plan;
    let Briefing { messages, services } = briefing(&plan)?;
    let mut replay = Replay::new(messages, plan.flows as usize, plan.clients as usize)?;
    let capture = Capture::open(&line.file)?;
    let written = line.write.as_deref().map(|path| CaptureFile::create(path, &line.file)).transpose()?;
    let mut session = Session { out: BufWriter::new(io::stdout().lock()), json: line.json, services, written };
    match session.play(capture, &mut replay) {
        Ok(()) => Ok(0),
        // The reader has seen enough.
        Err(Error::Print(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(error.into()),
    }
}

struct Session {
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    services: BTreeMap<u16, String>,
    written: Option<CaptureFile>,
}

impl Session {
    /// All packets, then the summary, also of a capture that breaks off.
    fn play(&mut self, mut capture: Capture, replay: &mut Replay) -> Result<(), Error> {
        let (mut packets, mut not_ip) = (0, 0);
        let mut first = None;
        let end = loop {
            let record = match capture.next() {
                Ok(Some(record)) => record,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            packets += 1;
            let at = record.time.saturating_sub(*first.get_or_insert(record.time));
            match record.packet {
                Some(bytes) => {
                    let replayed = replay.decide(bytes, record.missing, at);
                    self.tell(&record, at, &replayed).map_err(Error::Print)?;
                    if let Some(written) = &mut self.written {
                        written.packet(&record, &replayed)?;
                    }
                }
                None => {
                    not_ip += 1;
                    self.tell_other(&record, at).map_err(Error::Print)?;
                }
            }
        };
        self.sum_up(packets, not_ip, replay)?;
        self.written.take().map_or(Ok(()), CaptureFile::finish)?;
        end
    }

    fn tell(&mut self, record: &Record<'_>, at: Duration, replayed: &Replayed<'_>) -> io::Result<()> {
        let headers = Headers { bytes: replayed.before, cut: replayed.cut };
        let rewritten = replayed.after.map(|bytes| Headers { bytes, cut: false });
        let service = replayed.service.and_then(|index| self.services.get(&index));
        if self.json {
            let flow = replayed.flow.map(|flow| FlowRecord {
                known: replayed.known,
                protocol: flow.protocol,
                client: flow.client.0.to_string(),
                client_port: flow.client.1,
                vip: flow.vip.0.to_string(),
                vip_port: flow.vip.1,
                backend: flow.backend.address.to_string(),
                backend_port: flow.backend.port,
            });
            let line = PacketRecord {
                packet: record.number,
                time: at.as_secs_f64(),
                headers: Some(headers.to_string()),
                service: service.map(String::as_str),
                flow,
                reason: replayed.outcome.label(),
                verdict: Some(word(replayed)),
                rewritten: rewritten.map(|headers| headers.to_string()),
            };
            return json_line(&mut self.out, &line);
        }
        write!(self.out, "{} +{}.{:06} {headers}", record.number, at.as_secs(), at.subsec_micros())?;
        if let Some(name) = service {
            write!(self.out, " service={}", plain(name).replace('\n', "?"))?;
        }
        if let Some(flow) = &replayed.flow {
            let age = if replayed.known { "known" } else { "new" };
            write!(self.out, " flow={age} backend={}", flow.backend)?;
        }
        write!(self.out, " {} {}", replayed.outcome.label(), word(replayed))?;
        match rewritten {
            Some(headers) => writeln!(self.out, " -> {headers}"),
            None => writeln!(self.out),
        }
    }

    fn tell_other(&mut self, record: &Record<'_>, at: Duration) -> io::Result<()> {
        if self.json {
            let (headers, service, flow, verdict, rewritten) = (None, None, None, None, None);
            let (packet, time) = (record.number, at.as_secs_f64());
            return json_line(
                &mut self.out,
                &PacketRecord { packet, time, headers, service, flow, reason: "not_ip", verdict, rewritten },
            );
        }
        writeln!(self.out, "{} +{}.{:06} not IP", record.number, at.as_secs(), at.subsec_micros())
    }

    fn sum_up(&mut self, packets: u64, not_ip: u64, replay: &Replay) -> Result<(), Error> {
        let met = replay.counts().filter(|(_, count)| *count > 0);
        let reasons: Vec<(Outcome, u64)> = met.collect();
        let sum: u64 = reasons.iter().map(|(_, count)| count).sum();
        self.print_summary(packets, not_ip, &reasons).map_err(Error::Print)?;
        if sum + not_ip == packets { Ok(()) } else { Err(Error::Sum(packets - not_ip, sum)) }
    }

    fn print_summary(&mut self, packets: u64, not_ip: u64, reasons: &[(Outcome, u64)]) -> io::Result<()> {
        if self.json {
            let reasons = reasons.iter().map(|(outcome, count)| (outcome.label(), *count)).collect();
            json_line(&mut self.out, &Summary { packets, not_ip, reasons })?;
        } else {
            writeln!(self.out, "\n{packets} packets")?;
            for (outcome, count) in reasons {
                writeln!(self.out, "{count:>10} {}", outcome.label())?;
            }
            if not_ip > 0 {
                writeln!(self.out, "{not_ip:>10} not IP")?;
            }
        }
        self.out.flush()
    }
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", plain(&serde_json::to_string(value)?))
}

fn word(replayed: &Replayed<'_>) -> String {
    match (replayed.mark, replayed.verdict) {
        (Some(mark), _) => format!("mark {mark:#x}"),
        (None, Verdict::Rewrite) => "rewrite".to_owned(),
        (None, Verdict::Repeat) => "repeat".to_owned(),
        (None, Verdict::Accept) => "accept".to_owned(),
        (None, Verdict::Drop) => "drop".to_owned(),
    }
}

/// The capture of `--write`: what would go out, without a link layer.
struct CaptureFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl CaptureFile {
    fn create(path: &Path, read: &Path) -> Result<Self, Error> {
        let fail = |source| Error::File { act: "write", path: path.to_owned(), source };
        if let (Ok(new), Ok(old)) = (fs::metadata(path), fs::metadata(read))
            && (new.dev(), new.ino()) == (old.dev(), old.ino())
        {
            return Err(Error::Same { path: path.to_owned() });
        }
        let mut this = Self { path: path.to_owned(), file: BufWriter::new(File::create(path).map_err(fail)?) };
        // Magic of nanoseconds, version 2.4, zone and accuracy 0, longest record, LINKTYPE_RAW: pcap-savefile(5).
        let header = [0xa1b2_3c4d_u32, 4 << 16 | 2, 0, 0, 262_144, 101];
        header.iter().try_for_each(|word| this.file.write_all(&word.to_le_bytes())).map_err(fail)?;
        Ok(this)
    }

    /// Adds what goes on of a packet; of one that is dropped that is nothing.
    fn packet(&mut self, record: &Record<'_>, replayed: &Replayed<'_>) -> Result<(), Error> {
        // What passes as it is may have been recorded without its end.
        let missing = if replayed.cut { record.missing } else { 0 };
        let (bytes, missing) = match (replayed.verdict, replayed.after) {
            (Verdict::Drop, _) => return Ok(()),
            (Verdict::Rewrite | Verdict::Repeat, Some(after)) => (after, 0),
            _ => (replayed.before, missing),
        };
        // No packet is longer than 65,535 bytes, and times behind 2106 are not for this format.
        let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let length = word(bytes.len() as u64);
        let original = word(bytes.len() as u64 + missing as u64);
        let header = [word(record.time.as_secs()), record.time.subsec_nanos(), length, original];
        let words = header.iter().try_for_each(|word| self.file.write_all(&word.to_le_bytes()));
        words.and_then(|()| self.file.write_all(bytes)).map_err(|source| self.fail(source))
    }

    fn finish(mut self) -> Result<(), Error> {
        self.file.flush().map_err(|source| self.fail(source))
    }

    fn fail(&self, source: io::Error) -> Error {
        Error::File { act: "write", path: self.path.clone(), source }
    }
}
