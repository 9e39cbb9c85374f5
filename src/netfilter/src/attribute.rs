//! Attributes of netlink messages: each a length, its own four bytes included, a type, and a value (`struct nlattr`,
//! include/uapi/linux/netlink.h).

/// NLA_F_NESTED and NLA_F_NET_BYTEORDER lie beside an attribute's type.
const FLAGS: u16 = 0xc000;
const HEADER: usize = 4;

/// Attributes one after the other, up to the first that does not fit: type and value.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let &[l0, l1, t0, t1] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([t0, t1]) & !FLAGS, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Appends an attribute.
pub(crate) fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        append(&mut bytes, 1, b"raw\0");
        append(&mut bytes, 0x8004, b"abcde");
        append(&mut bytes, 4, b"");
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &b"raw\0"[..]), (4, b"abcde"), (4, b"")]);
        assert_eq!((attribute(&bytes, 4), attribute(&bytes, 7)), (Some(&b"abcde"[..]), None));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
