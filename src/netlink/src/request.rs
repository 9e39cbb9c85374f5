//! Questions under construction.

use netlink_packet_core::{DefaultNla, Emitable, NetlinkHeader};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};

/// Room for the header, filled in when the request is sent.
const HEADER: usize = 16;

/// A request: the header, the family's fixed part, attributes.
#[derive(Debug, Clone)]
pub struct Request {
    kind: u16,
    flags: u16,
    raw: Vec<u8>,
}

/// Attributes, to be nested into one.
#[derive(Debug, Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Request {
    /// NLM_F_CREATE: makes what is not there.
    pub const CREATE: u16 = NLM_F_CREATE;
    /// NLM_F_EXCL: refuses where it is there.
    pub const EXCLUSIVE: u16 = NLM_F_EXCL;
    /// NLM_F_DUMP: asks for a list.
    pub const DUMP: u16 = NLM_F_DUMP;

    /// A request of this type. The kernel acknowledges it, or ends its list.
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let end = if flags & Self::DUMP == Self::DUMP { 0 } else { NLM_F_ACK };
        Self { kind, flags: flags | NLM_F_REQUEST | end, raw: vec![0; HEADER] }
    }

    /// Appends the family's fixed part, a multiple of four bytes.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.raw.extend(body);
        self
    }

    /// Appends an attribute with these bytes.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.raw, kind, value);
        self
    }

    /// Appends an attribute with a text, which ends with a zero byte.
    #[must_use]
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// Appends an attribute of attributes.
    #[must_use]
    pub fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind, &inner.0)
    }

    /// The bytes to send.
    #[must_use]
    pub fn finish(self, sequence: u32) -> Vec<u8> {
        let Self { kind, flags, mut raw } = self;
        let mut header = NetlinkHeader::default();
        header.length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        (header.message_type, header.flags, header.sequence_number) = (kind, flags, sequence);
        header.emit(&mut raw);
        raw
    }
}

impl Attributes {
    /// Appends a number of 32 bits, in this host's byte order.
    pub fn number(&mut self, kind: u16, number: u32) -> &mut Self {
        self.bytes(kind, &number.to_ne_bytes())
    }

    /// Appends a text, which ends with a zero byte.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        self.bytes(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// Appends an attribute with these bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        append(&mut self.0, kind, value);
        self
    }

    /// An attribute of attributes.
    pub fn nested(&mut self, kind: u16, inner: &Self) -> &mut Self {
        self.bytes(kind, &inner.0)
    }

    /// Their bytes.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.0
    }
}

fn append(raw: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let begin = raw.len();
    raw.resize(begin + attribute.buffer_len(), 0);
    attribute.emit(&mut raw[begin..]);
}
