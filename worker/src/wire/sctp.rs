//! SCTP's checksum: a CRC32c over the whole packet, its own field taken as 0, in the byte order of a reflected CRC (RFC 9260
//! §6.8 and Appendix A). It covers ports but no addresses.

use super::checksum::swap;
use super::facts::ChecksumState;
use crc::{CRC_32_ISCSI, Crc, Table};

/// Offset of the checksum in the header (RFC 9260 §3.1).
const CHECKSUM: usize = 8;

/// Takes 16 bytes a step, with 16 KiB of tables.
static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Writes a new port, if there is one, and keeps a right checksum right. `transport`: where the SCTP header begins.
///
/// A wrong checksum stays wrong: what was damaged on its way here must not look sound. If the field is 0 and that
/// cannot be the checksum, both ends do without one (RFC 9653), and it stays 0. With `CHECKSUM_PARTIAL` the field is
/// not filled in yet: the sender left the whole CRC to the network card (`sctp_packet_pack`, net/sctp/output.c). No
/// such packet is GSO: the kernel cuts those up before it queues them (`nfqnl_enqueue_packet`,
/// net/netfilter/nfnetlink_queue.c, since Linux 6.11).
#[cold]
pub(super) fn replace(bytes: &mut [u8], transport: usize, port: Option<(usize, u16)>, field: ChecksumState) {
    let place = transport + CHECKSUM;
    if field != ChecksumState::Complete {
        write(bytes, port);
        swap(bytes, place, &[0; 4]);
        let made = crc(bytes, transport);
        swap(bytes, place, &made.to_le_bytes());
        return;
    }
    let Some(stated) = bytes.get(place..).and_then(<[u8]>::first_chunk::<4>).copied().map(u32::from_le_bytes) else {
        return;
    };
    if port.is_none() {
        return;
    }
    let before = crc(bytes, transport);
    write(bytes, port);
    if stated == 0 && before != 0 {
        return;
    }
    // A CRC is linear: whatever both packets have in common, the field itself included, cancels out of the difference.
    let updated = stated ^ before ^ crc(bytes, transport);
    swap(bytes, place, &updated.to_le_bytes());
}

fn write(bytes: &mut [u8], port: Option<(usize, u16)>) {
    if let Some((at, port)) = port {
        swap(bytes, at, &port.to_be_bytes());
    }
}

fn crc(bytes: &[u8], transport: usize) -> u32 {
    CRC32C.checksum(bytes.get(transport..).unwrap_or(&[]))
}
