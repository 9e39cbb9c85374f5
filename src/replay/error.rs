//! Why a capture cannot be replayed.

use std::io;
use std::path::PathBuf;

/// Why a capture cannot be replayed, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{act} {}: {source}", path.display())]
    File { act: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is not a capture: it begins neither as pcap nor as pcapng", path.display())]
    NoCapture { path: PathBuf },
    #[error("{}: packet {number}: the file ends in the middle of it, at byte {at}", path.display())]
    CutOff { path: PathBuf, number: u64, at: usize },
    #[error("{}: packet {number}: {what}", path.display())]
    Broken { path: PathBuf, number: u64, what: &'static str },
    #[error("{}: packet {number}: it cannot be read", path.display())]
    Read { path: PathBuf, number: u64 },
    #[error(
        "{}: packet {number}: link type {link} is not known; Ethernet, raw IP, Linux cooked, null and loop are",
        path.display()
    )]
    Link { path: PathBuf, number: u64, link: i32 },
    #[error("--write {} would overwrite the capture that is read", path.display())]
    Same { path: PathBuf },
    #[error("print: {0}")]
    Print(io::Error),
    #[error("{0} packets were decided, but the reasons add up to {1}: this is an error in loaded")]
    Sum(u64, u64),
}
