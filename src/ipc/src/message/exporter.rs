//! Messages between supervisor and exporter.

use bincode::{Decode, Encode};

/// Largest frame of the link between supervisor and exporter, bytes.
pub const MAX_LARGE_FRAME: usize = 16 * 1024;

/// Most bytes of a document that one message carries: a frame less tag and length.
pub const MAX_PART: usize = MAX_LARGE_FRAME - 12;

/// Longest document, bytes. The metrics of 4096 backends take about 6 MB.
pub const MAX_DOCUMENT: usize = 12 << 20;

/// Supervisor to exporter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToExporter {
    /// First message. The exporter ends if it does not know `version`.
    Hello {
        /// [`crate::VERSION`] of the sender.
        version: u16,
    },
    /// Begin to accept connections. Sent once, after [`FromExporter::Prepared`].
    Go,
    /// A document that was asked for begins; its parts follow, and nothing else until it is whole.
    Document {
        /// Which one.
        document: Document,
        /// Its length, at most [`MAX_DOCUMENT`].
        bytes: u32,
        /// Whether the instance serves: the status of [`Document::Health`].
        serves: bool,
    },
    /// The next bytes of the document, 1 to [`MAX_PART`] of them.
    Part(Vec<u8>),
    /// Accept no more connections, and end once those there are have their answers.
    Stop,
}

/// Exporter to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromExporter {
    /// It is in its sandbox and waits for `Go`.
    Prepared,
    /// Somebody has asked for this document. The supervisor sends it when it likes.
    Wanted(Document),
    /// The sign of life, every five seconds.
    Alive,
    /// The exporter ends, and says why. At most [`crate::MAX_TEXT`] bytes.
    Failed(String),
}

/// What an exporter serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Document {
    /// `/metrics`
    Metrics,
    /// `/`
    Status,
    /// `/health`
    Health,
}

impl Document {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Status, Self::Health];
}
