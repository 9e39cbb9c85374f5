//! Messages and attributes, read as far as they are whole.

use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer, NlasIterator};

/// A message without its header (`struct nlmsghdr`, include/uapi/linux/netlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_seq`: the question's, or 0 in an announcement.
    pub sequence: u32,
    /// What follows the header: the family's own fixed part, then attributes.
    pub body: &'a [u8],
}

/// The messages of a datagram, up to the first that does not fit.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind: message.message_type(), sequence: message.sequence_number(), body: message.payload() })
    })
}

/// Attributes one after the other, up to the first that does not fit: type, without its flags, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|one| {
        let (kind, length) = (one.kind(), usize::from(one.length()));
        (kind, one.into_inner().get(NLA_HEADER_SIZE..length).unwrap_or_default())
    })
}

/// The value of the first attribute of this type.
#[must_use]
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The number of 32 bits, in this host's byte order, that begins there.
#[must_use]
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, Request};
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Attributes::default();
        inner.number(6, 7).text(7, "loaded-0").bytes(0x8009, b"abcde").bytes(4, b"");
        let request = Request::new(44, Request::CREATE).body(&[1, 2, 3, 4]).text(1, "bpf").nested(2, &inner);
        let two = [request.clone().finish(5), request.finish(6)].concat();
        let all: Vec<_> = messages(&two).collect();
        assert_eq!(all.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(), [(44, 5), (44, 6)]);
        let Some((fixed, rest)) = all[1].body.split_at_checked(4) else { panic!("{all:?}") };
        assert_eq!((fixed, attribute(rest, 1), attribute(rest, 3)), (&[1, 2, 3, 4][..], Some(&b"bpf\0"[..]), None));
        let inner: Vec<_> = attributes(attribute(rest, 2).unwrap_or_default()).collect();
        assert_eq!(inner, [(6, &7_u32.to_ne_bytes()[..]), (7, b"loaded-0\0"), (9, b"abcde"), (4, b"")]);
    }

    #[test]
    fn what_is_cut_off_or_endless_is_not_read() {
        for raw in [&[][..], &[0, 0, 1, 0], &[3, 0, 1, 0], &[9, 0, 1, 0, 1, 2, 3, 4], &[255, 255, 1]] {
            assert_eq!(attributes(raw).count(), 0, "{raw:?}");
        }
        assert_eq!(messages(&[16, 0, 0, 0]).count(), 0);
        assert_eq!(messages(&[8; 16]).count(), 0, "longer than what there is");
        let short = [&3_u32.to_ne_bytes()[..], &[0; 12]].concat();
        assert_eq!(messages(&short).count(), 0, "shorter than its header");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first: u8) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / NLA_HEADER_SIZE);
            if let Some(length) = bytes.first_chunk_mut() {
                *length = u32::from(first).to_ne_bytes();
            }
            let bodies: usize = messages(&bytes).map(|message| message.body.len() + 16).sum();
            prop_assert!(bodies <= bytes.len());
        }
    }
}
