//! As much of rtnetlink as the kernel path needs: a request, and what answers it (include/uapi/linux/netlink.h).

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{bind, recv, send, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `struct nlmsghdr`, and a `struct nlattr` without its value, bytes.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Message types of answers.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER lie beside an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
/// Most bytes that the kernel puts into one answer (NLMSG_GOODSIZE is less).
const BUFFER: usize = 1 << 15;

/// A request under construction.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

/// Attributes under construction, to be nested.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

/// A socket that asks one thing at a time.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: OwnedFd,
    sequence: u32,
    /// For answers; kept, since there may be thousands of questions.
    buffer: Vec<u8>,
}

impl Request {
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const EXCLUSIVE: u16 = 0x200;
    pub(crate) const DUMP: u16 = 0x300;
    const REQUEST: u16 = 1;
    const ACK: u16 = 4;

    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut raw = vec![0; HEADER];
        let ack = if flags & Self::DUMP == Self::DUMP { 0 } else { Self::ACK };
        raw[4..6].copy_from_slice(&kind.to_ne_bytes());
        raw[6..8].copy_from_slice(&(flags | Self::REQUEST | ack).to_ne_bytes());
        Self(raw)
    }

    /// The family's own header, a multiple of four bytes.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.0.extend(body);
        self
    }

    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        self.bytes(kind, &[text.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        append(&mut self.0, kind, value);
        self
    }

    pub(crate) fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind, &inner.0)
    }
}

impl Attributes {
    pub(crate) fn number(&mut self, kind: u16, number: u32) -> &mut Self {
        append(&mut self.0, kind, &number.to_ne_bytes());
        self
    }

    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        append(&mut self.0, kind, &[text.as_bytes(), b"\0"].concat());
        self
    }

    /// Attributes one after the other, up to the first that does not fit: type and value.
    pub(crate) fn read(mut raw: &[u8]) -> Vec<(u16, &[u8])> {
        let mut all = Vec::new();
        while let Some(&[l0, l1, k0, k1]) = raw.first_chunk() {
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let Some(value) = raw.get(ATTRIBUTE..length) else { break };
            all.push((u16::from_ne_bytes([k0, k1]) & TYPE_MASK, value));
            raw = raw.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        all
    }
}

fn append(raw: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    raw.extend(length.to_ne_bytes());
    raw.extend(kind.to_ne_bytes());
    raw.extend(value);
    raw.resize(raw.len().next_multiple_of(4), 0);
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends a request and calls `each` for every message that answers it, with its type and what follows its header. The kernel
    /// answers within the call that sends (or, for a long list, that reads), so there is nothing to wait for.
    pub(crate) fn ask(&mut self, request: Request, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let Request(mut raw) = request;
        let length = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        raw[..4].copy_from_slice(&length.to_ne_bytes());
        raw[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(self.socket.as_raw_fd(), &raw, MsgFlags::empty())?;
        loop {
            let received = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let mut rest = self.buffer.get(..received).unwrap_or_default();
            while let Some((header, message, following)) = split(rest) {
                rest = following;
                if header.sequence != self.sequence {
                    continue;
                }
                match header.kind {
                    DONE => return Ok(()),
                    ERROR => return error_of(message),
                    kind => each(kind, message),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message, and what follows it.
fn split(raw: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let four = |at: usize| Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(four(0)?).ok()?;
    let kind = u16::from_ne_bytes(raw.get(4..6)?.try_into().ok()?);
    let message = raw.get(HEADER..length)?;
    Some((Header { kind, sequence: four(8)? }, message, raw.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// A negative errno, or 0 for an acknowledgement.
fn error_of(message: &[u8]) -> io::Result<()> {
    match message.first_chunk().map(|raw| i32::from_ne_bytes(*raw)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("the kernel's answer is cut off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut inner = Attributes::default();
        inner.number(6, 7).text(7, "loaded-0");
        let request = Request::new(44, Request::CREATE).text(1, "bpf").nested(2, &inner);
        let all = Attributes::read(&request.0[HEADER..]);
        assert_eq!(all[0], (1, &b"bpf\0"[..]));
        let inner = Attributes::read(all[1].1);
        assert_eq!(inner, [(6, &7_u32.to_ne_bytes()[..]), (7, b"loaded-0\0")]);
    }

    #[test]
    fn what_is_cut_off_or_endless_is_not_read() {
        for raw in [&[][..], &[0, 0, 1, 0], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[255, 255, 1]] {
            assert!(Attributes::read(raw).is_empty(), "{raw:?}");
        }
        assert!(split(&[16, 0, 0, 0]).is_none());
        assert!(split(&[8; 16]).is_none(), "longer than what there is");
        let short = [&3_u32.to_ne_bytes()[..], &[0; 12]].concat();
        assert!(split(&short).is_none(), "shorter than its header");
    }
}
