//! Lists that the kernel gives by rtnetlink(7). Reads whatever comes to its end.

use loaded_queue::SockProtocol;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::AsRawFd;

/// `struct nlmsghdr`, bytes.
pub(crate) const HEADER: usize = 16;
/// NLMSG_ERROR, NLMSG_DONE; NLM_F_REQUEST and NLM_F_DUMP (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x301;
/// NLA_TYPE_MASK: without the flags of an attribute's type.
const TYPE: u16 = 0x3fff;
/// Most datagrams of one list: the kernel fills 32 KiB each, some 400 entries.
const MOST: usize = 4096;
/// Longest wait for the next part of a list, milliseconds.
const WAIT: i64 = 1000;

/// Asks for a list; `fixed` follows the header of the request. `each` gets type and bytes of each message, header included.
///
/// # Errors
/// If the kernel does not give it, or not to its end.
pub(crate) fn list(kind: u16, fixed: &[u8], mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(WAIT))?;
    let mut request = vec![0; HEADER];
    request.extend(fixed);
    let length = u32::try_from(request.len()).unwrap_or(0);
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..MOST {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, message) in messages(&buffer[..length.min(buffer.len())]) {
            match kind {
                DONE => return Ok(()),
                ERROR => return Err(Errno::EPROTO),
                _ => each(kind, message),
            }
        }
    }
    Err(Errno::E2BIG)
}

/// The messages of a datagram, each with its type.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), message))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let &[a, b, c, d, ..] = rest else { return None };
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = rest.get(4..length)?;
        if kind & TYPE == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// A number of 32 bits in a message.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(crate) mod fixture {
    use super::HEADER;

    /// A message of this type, with its fixed part and attributes.
    pub(crate) fn message(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(fixed);
        for (kind, value) in attributes {
            bytes.extend(nested(*kind, value));
        }
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    /// An attribute.
    pub(crate) fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap_or(0);
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}
