//! A flow and its key, and how they are packed into an entry of the table.

use crate::map::{KeyValue, Stored};
use crate::state::FlowState;

/// Third key word: client port, service port, protocol and a zero byte are key; the top 16 bits are the port at the VIP,
/// which is value.
pub(crate) const KEY_MASK: u64 = 0x0000_ffff_ffff_ffff;
/// A bit beside a flow's state: it is not protected, because its client's prefix, or its key, already had its share.
pub(crate) const OVER_QUOTA: u8 = 0x80;

/// Both ends of a flow as the client sees them, without the address of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// IP protocol number.
    pub protocol: u8,
    /// The client's address; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The client's port, or the ICMP echo id. Host byte order.
    pub client_port: u16,
    /// The port that both the client and the backend use for the service; 0 if they use different ones, and for protocols
    /// without ports. Host byte order.
    pub service_port: u16,
}

/// What a flow is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Number of the virtual IP.
    pub vip: u16,
    /// The port there; 0 for protocols without ports. Host byte order.
    pub vip_port: u16,
    /// Stable number of the backend.
    pub backend: u16,
    /// Decides how long the flow may be idle.
    pub state: FlowState,
}

/// The state in a table's byte.
#[inline]
pub(super) fn state_of(byte: u8) -> Option<FlowState> {
    FlowState::from_u8(byte & !OVER_QUOTA)
}

#[inline]
pub(super) fn backend_of(record: &KeyValue) -> u16 {
    (record.value >> 16) as u16
}

/// Whether a flow is never evicted for another.
#[inline]
pub(super) fn is_protected(stored: &Stored) -> bool {
    is_protected_state(stored.state)
}

/// The same, by its byte in the table.
#[inline]
pub(super) fn is_protected_state(byte: u8) -> bool {
    byte & OVER_QUOTA == 0 && state_of(byte).is_some_and(FlowState::is_kept)
}

#[inline]
pub(super) fn is_over_quota(stored: &Stored) -> bool {
    stored.state & OVER_QUOTA != 0
}

pub(super) fn client_of(record: &KeyValue) -> [u8; 16] {
    let [a, b, _] = record.key;
    (u128::from(b) << 64 | u128::from(a)).to_le_bytes()
}

pub(crate) fn unpack(stored: &Stored) -> Option<(FlowKey, Flow)> {
    let state = state_of(stored.state)?;
    Some((FlowKey::from_key_value(&stored.record), Flow::from_key_value(&stored.record, state)))
}

impl FlowKey {
    #[inline]
    pub(super) fn words(&self) -> [u64; 3] {
        let [a, b] = crate::map::split_key(self.client);
        let [p0, p1] = self.client_port.to_le_bytes();
        let [s0, s1] = self.service_port.to_le_bytes();
        [a, b, u64::from_le_bytes([p0, p1, s0, s1, self.protocol, 0, 0, 0])]
    }

    fn from_key_value(record: &KeyValue) -> Self {
        let [.., c] = record.key;
        let [p0, p1, s0, s1, protocol, ..] = c.to_le_bytes();
        Self {
            protocol,
            client: client_of(record),
            client_port: u16::from_le_bytes([p0, p1]),
            service_port: u16::from_le_bytes([s0, s1]),
        }
    }
}

impl Flow {
    #[inline]
    pub(super) fn to_key_value(self, key: &FlowKey) -> KeyValue {
        let [a, b, c] = key.words();
        let [v0, v1] = self.vip.to_le_bytes();
        let [b0, b1] = self.backend.to_le_bytes();
        KeyValue { key: [a, b, c | u64::from(self.vip_port) << 48], value: u32::from_le_bytes([v0, v1, b0, b1]) }
    }

    #[inline]
    pub(super) fn from_key_value(record: &KeyValue, state: FlowState) -> Self {
        let [v0, v1, b0, b1] = record.value.to_le_bytes();
        let [.., p0, p1] = record.key[2].to_le_bytes();
        Self {
            vip: u16::from_le_bytes([v0, v1]),
            vip_port: u16::from_le_bytes([p0, p1]),
            backend: u16::from_le_bytes([b0, b1]),
            state,
        }
    }

    /// Its VIP and the port there.
    pub(super) fn place_of(record: &KeyValue) -> (u16, u16) {
        ((record.value & 0xffff) as u16, (record.key[2] >> 48) as u16)
    }
}
