//! Tables in a form that does not depend on their layout, to carry them from one binary to another with a different layout.
//!
//! ```text
//! 0   "loadedEX", version, flows, clients       8 + 4 + 4 + 4 bytes, integers little endian
//! 20  each flow    32 bytes: protocol, state, service, vip, backend, client, client port, service port, idle seconds
//!     each client  24 bytes: prefix, service, backend, idle seconds
//!     each flow     2 bytes: the port at the VIP. Older exports end before it: then it is the service port
//!     each flow     4 bytes: when it began, in seconds of the clock of both tables, so that no part of a second is lost however often it
//!                   is carried over. Older exports end before it: then the age is that of the last packet
//! ```
//! Neither this format nor the number of a [`FlowState`] ever changes its meaning; a reader skips what it does not know.

use crate::affinity::{AffinityKey, AffinityTable};
use crate::flow::{Flow, FlowKey, FlowTable};
use crate::state::FlowState;

const MAGIC: [u8; 8] = *b"loadedEX";
const VERSION: u32 = 1;
const HEADER: usize = 20;
const FLOW: usize = 32;
const CLIENT: usize = 24;
const PORT: usize = 2;
const BIRTH: usize = 4;

/// Longest export, in bytes, of tables of these capacities: each table has twice as many slots.
pub const fn bytes_for(flows: usize, clients: usize) -> usize {
    HEADER + 2 * (flows.saturating_add(8)) * (FLOW + PORT + BIRTH) + 2 * (clients.saturating_add(8)) * CLIENT
}

/// Everything in these tables at `now`, in seconds. `service_of`: the service of a backend, for readers that do not know it.
pub fn export(flows: &FlowTable, clients: &AffinityTable, service_of: impl Fn(u16) -> u16, now: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + flows.len() * (FLOW + PORT + BIRTH) + clients.len() * CLIENT);
    let (mut ports, mut births) = (Vec::with_capacity(flows.len() * PORT), Vec::with_capacity(flows.len() * BIRTH));
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 8]);
    let (mut count, mut clients_count) = (0_u32, 0_u32);
    flows.for_each(|slot, key, flow| {
        let FlowKey { protocol, client, client_port, service_port } = *key;
        bytes.extend([protocol, flow.state as u8]);
        for word in [service_of(flow.backend), flow.vip, flow.backend] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(client);
        bytes.extend(client_port.to_le_bytes());
        bytes.extend(service_port.to_le_bytes());
        bytes.extend(flows.idle(slot, now).unwrap_or(0).to_le_bytes());
        ports.extend(flow.vip_port.to_le_bytes());
        births.extend(now.wrapping_sub(flows.age(slot, now).unwrap_or(0)).to_le_bytes());
        count += 1;
    });
    clients.for_each(|slot, key, client| {
        bytes.extend(key.prefix);
        bytes.extend(key.service.to_le_bytes());
        bytes.extend(client.backend.to_le_bytes());
        bytes.extend(clients.idle(slot, now).unwrap_or(0).to_le_bytes());
        clients_count += 1;
    });
    bytes.append(&mut ports);
    bytes.append(&mut births);
    bytes[12..16].copy_from_slice(&count.to_le_bytes());
    bytes[16..20].copy_from_slice(&clients_count.to_le_bytes());
    bytes
}

/// Puts an export into empty tables. Returns how many flows and clients were put in; `None` if `bytes` are no export. Hostile
/// bytes lead to wrong entries at worst.
pub fn import(bytes: &[u8], flows: &mut FlowTable, clients: &mut AffinityTable, now: u32) -> Option<(usize, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let number = |at: usize| header.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().unwrap_or_default()));
    if !header.starts_with(&MAGIC) || number(8)? != VERSION {
        return None;
    }
    let (count, clients_count) = (number(12)? as usize, number(16)? as usize);
    let (records, rest) = rest.split_at_checked(count.checked_mul(FLOW)?)?;
    let (rest, ports) = rest.split_at_checked(clients_count.checked_mul(CLIENT)?)?;
    let (ports, births) = ports.split_at_checked(count * PORT).unwrap_or_default();
    let records = records.chunks_exact(FLOW).enumerate();
    let records =
        records.filter_map(|(n, record)| Some((flow(record, word(ports, n * PORT))?, long(births, n * BIRTH))));
    let taken = records.filter(|((key, flow, idle), birth)| {
        let hashed = flows.prepare(key);
        let Ok(placed) = flows.insert(&hashed, key, *flow, now.wrapping_sub(*idle)) else { return false };
        if let Some(birth) = birth {
            flows.set_birth(placed.slot, *birth);
        }
        // An export has no proof. Nobody can show one that nobody knows, until the backend's next segment brings another.
        flows.set_proof(placed.slot, hashed.unpredictable());
        true
    });
    let taken = taken.count();
    let kept = rest.chunks_exact(CLIENT).filter_map(client).filter(|(key, backend, idle)| {
        let hashed = clients.prepare(key);
        clients.assign(&hashed, key, *backend, now.wrapping_sub(*idle), |_| u32::MAX).is_some()
    });
    Some((taken, kept.count()))
}

fn flow(record: &[u8], vip_port: Option<u16>) -> Option<(FlowKey, Flow, u32)> {
    let key = FlowKey {
        protocol: *record.first()?,
        client: record.get(8..24)?.try_into().ok()?,
        client_port: word(record, 24)?,
        service_port: word(record, 26)?,
    };
    let state = FlowState::from_u8(*record.get(1)?)?;
    // The service at 2 is that of the backend.
    let (vip, vip_port) = (word(record, 4)?, vip_port.unwrap_or(key.service_port));
    let flow = Flow { vip, vip_port, backend: word(record, 6)?, state };
    Some((key, flow, long(record, 28)?))
}

fn client(record: &[u8]) -> Option<(AffinityKey, u16, u32)> {
    let key = AffinityKey { prefix: record.get(..16)?.try_into().ok()?, service: word(record, 16)? };
    Some((key, word(record, 18)?, long(record, 20)?))
}

fn word(record: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(record.get(at..at + 2)?.try_into().ok()?))
}

fn long(record: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeouts::Timeouts;
    use crate::{Region, TableSpec, shm};

    fn tables(capacity: usize, key: [u8; 16]) -> (FlowTable, AffinityTable) {
        let region = |bytes| Region::map(shm::create("table", bytes).expect("create")).expect("map");
        let (flows, clients) = (region(FlowTable::bytes_for(capacity)), region(AffinityTable::bytes_for(capacity)));
        let spec = TableSpec::new(capacity, key);
        FlowTable::format(&flows, spec).expect("format");
        AffinityTable::format(&clients, spec).expect("format");
        let open = FlowTable::open(flows, spec, Timeouts::EXAMPLE).expect("open");
        (open, AffinityTable::open(clients, spec, |_| {}).expect("open"))
    }

    fn key(n: u16) -> FlowKey {
        let mut client = [0; 16];
        client[14..].copy_from_slice(&n.to_be_bytes());
        FlowKey { protocol: 6, client, client_port: n, service_port: 80 }
    }

    #[test]
    fn everything_is_imported_into_tables_of_another_size_and_key() {
        let (mut flows, mut clients) = tables(1024, [1; 16]);
        for n in 0..1000 {
            let flow = Flow { vip: n % 3, vip_port: 80 + n % 2, backend: n % 7, state: FlowState::Established };
            let hashed = flows.prepare(&key(n));
            let slot = flows.insert(&hashed, &key(n), flow, 200 - u32::from(n % 100)).expect("room").slot;
            flows.refresh(slot, 500 - u32::from(n % 100));
            let of = AffinityKey { prefix: key(n).client, service: n % 5 };
            let hashed = clients.prepare(&of);
            clients.assign(&hashed, &of, n % 7, 500, |_| 3600).expect("room");
        }
        let bytes = export(&flows, &clients, |backend| backend + 100, 500);
        assert!(bytes.len() <= bytes_for(1024, 1024));
        let (mut other, mut others) = tables(2048, [9; 16]);
        assert_eq!(import(&bytes, &mut other, &mut others, 600), Some((1000, 1000)));
        let of_backend = |record: &[u8]| word(record, 2) == word(record, 6).map(|backend| backend + 100);
        assert!(bytes[HEADER..HEADER + 1000 * FLOW].chunks(FLOW).all(of_backend), "an older reader knows the service");
        let mut proofs = std::collections::HashSet::new();
        for n in 0..1000 {
            let slot = other.find(&other.prepare(&key(n)), &key(n), 600, |_| true).expect("there");
            let flow = other.get(slot).expect("whole");
            assert_eq!(
                (flow.vip, flow.vip_port, flow.backend, flow.state),
                (n % 3, 80 + n % 2, n % 7, FlowState::Established)
            );
            assert_eq!(other.idle(slot, 600), Some(u32::from(n % 100)), "its idle time is kept");
            assert_eq!(other.age(slot, 600), Some(400 + u32::from(n % 100)), "and it began when it did");
            proofs.insert(other.proof(slot));
            let of = AffinityKey { prefix: key(n).client, service: n % 5 };
            assert_eq!(others.find(&others.prepare(&of), &of, 600, 3600).map(|found| found.1), Some(n % 7));
        }
        assert!(proofs.len() > 900, "a thousand proofs that nobody can tell: {} different ones", proofs.len());
    }

    #[test]
    fn an_older_export_has_no_age_or_ends_before_the_port_at_the_vip() {
        let (mut flows, clients) = tables(64, [1; 16]);
        let flow = Flow { vip: 1, vip_port: 8080, backend: 2, state: FlowState::Established };
        let slot = flows.insert(&flows.prepare(&key(1)), &key(1), flow, 50).expect("room").slot;
        flows.refresh(slot, 100);
        let bytes = export(&flows, &clients, |_| 0, 120);
        for (less, vip_port, age) in [(0, 8080, 157), (BIRTH, 8080, 27), (BIRTH + PORT, 80, 27)] {
            let (mut other, mut others) = tables(64, [2; 16]);
            assert_eq!(import(&bytes[..bytes.len() - less], &mut other, &mut others, 200), Some((1, 0)));
            let slot = other.find(&other.prepare(&key(1)), &key(1), 200, |_| true).expect("there");
            assert_eq!(other.get(slot), Some(Flow { vip_port, ..flow }));
            other.refresh(slot, 207);
            assert_eq!(other.age(slot, 207), Some(age), "{less} bytes less: at least since its last packet");
        }
    }

    #[test]
    fn bytes_that_are_no_export_change_nothing() {
        let (mut flows, mut clients) = tables(64, [1; 16]);
        let whole = export(&flows, &clients, |_| 0, 0);
        assert_eq!(import(&whole, &mut flows, &mut clients, 0), Some((0, 0)));
        let mut lying = whole.clone();
        lying[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        for bytes in [&[][..], &whole[..19], &lying, &[0; 64]] {
            assert_eq!(import(bytes, &mut flows, &mut clients, 0), None);
        }
        // A state that this binary does not know is left out.
        let mut strange = [whole.as_slice(), &[6, 99], &[0; 30]].concat();
        strange[12..16].copy_from_slice(&1_u32.to_le_bytes());
        assert_eq!(import(&strange, &mut flows, &mut clients, 0), Some((0, 0)));
    }
}
