//! Link layers: where in a frame the IP packet begins. Numbers are those of pcap-linktype(7).

use pcap_parser::Linktype;

/// IEEE 802 numbers of what is carried.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what was used for the outer tag before it.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
/// Tags that a frame may have; nobody has more than two.
const MAX_TAGS: usize = 4;
/// `AF_INET`, and `AF_INET6` of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

/// Whether frames of this kind can be read.
pub(super) fn is_known(link: Linktype) -> bool {
    [
        Linktype::NULL,
        Linktype::LOOP,
        Linktype::ETHERNET,
        Linktype::RAW,
        Linktype::IPV4,
        Linktype::IPV6,
        Linktype::LINUX_SLL,
        Linktype::LINUX_SLL2,
    ]
    .contains(&link)
}

/// The IP packet of a frame, with what the link has put behind it; `None` if it carries something else.
pub(super) fn packet(link: Linktype, frame: &[u8]) -> Option<&[u8]> {
    let inside = match link {
        Linktype::ETHERNET => tagged(frame, 12, 14)?,
        // Packet type, hardware type, address of 8 with its length: 14 bytes before the protocol.
        Linktype::LINUX_SLL => tagged(frame, 14, 16)?,
        Linktype::LINUX_SLL2 => tagged(frame, 0, 20)?,
        // The byte order is that of the machine that has captured, or the network's.
        Linktype::NULL | Linktype::LOOP => {
            let (family, inside) = frame.split_first_chunk::<4>()?;
            let known = [u32::from_be_bytes(*family), u32::from_le_bytes(*family)].iter().any(|f| FAMILIES.contains(f));
            known.then_some(inside)?
        }
        _ => frame,
    };
    matches!(inside.first()? >> 4, 4 | 6).then_some(inside)
}

/// Behind a header of `length` bytes that has the number of what it carries at `at`, and behind VLAN tags.
fn tagged(frame: &[u8], at: usize, length: usize) -> Option<&[u8]> {
    let word = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (mut kind, mut rest) = (word(frame, at)?, frame.get(length..)?);
    for _ in 0..MAX_TAGS {
        match kind {
            IPV4 | IPV6 => return Some(rest),
            tag if TAGS.contains(&tag) => (kind, rest) = (word(rest, 2)?, rest.get(4..)?),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    const IP: [u8; 3] = [0x45, 1, 2];

    fn frame(header: &[&[u8]]) -> Vec<u8> {
        [&header.concat(), &IP[..]].concat()
    }

    #[test]
    fn every_link_leads_to_the_packet() {
        let cases: [(i32, Vec<u8>); 11] = [
            (1, frame(&[&[0; 12], &[8, 0]])),
            (1, frame(&[&[0; 12], &[0x81, 0, 0, 7], &[8, 0]])),
            (1, frame(&[&[0; 12], &[0x88, 0xa8, 0, 7], &[0x81, 0, 0, 7], &[0x86, 0xdd]])),
            (101, frame(&[])),
            (228, frame(&[])),
            (229, frame(&[])),
            (113, frame(&[&[0; 14], &[8, 0]])),
            (276, frame(&[&[8, 0], &[0; 18]])),
            (0, frame(&[&[2, 0, 0, 0]])),
            (0, frame(&[&[0, 0, 0, 30]])),
            (108, frame(&[&[0, 0, 0, 24]])),
        ];
        for (link, frame) in cases {
            assert!(is_known(Linktype(link)));
            assert_eq!(packet(Linktype(link), &frame).unwrap(), IP, "{link} {frame:?}");
            for short in 0..frame.len() - 2 {
                assert_eq!(packet(Linktype(link), &frame[..short]), None, "{link} {short}");
            }
        }
        assert!(!is_known(Linktype(105)));
    }

    #[test]
    fn what_is_not_ip_is_none() {
        for (link, frame) in [
            (1, frame(&[&[0; 12], &[8, 6]])),
            (1, frame(&[&[0; 12], &[0x81, 0, 0, 7].repeat(5), &[8, 0]])),
            (0, frame(&[&[7, 0, 0, 0]])),
            (101, vec![0x55; 40]),
        ] {
            assert_eq!(packet(Linktype(link), &frame), None, "{link}");
        }
    }
}
