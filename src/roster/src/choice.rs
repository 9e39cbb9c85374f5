//! A number that stands for all that a service chooses by. Balancers at which it is the same give a client the same backend, as long as
//! they agree on which backends are up. People and alerts compare it; nothing decides by it.

use super::{BackendEntry, Roster};
use loaded_config::plan::Service;
use loaded_ipc::{AllDown, ServiceIndex, Strategy};
use siphasher::sip::SipHasher13;
use std::net::IpAddr;

/// The hash is no secret and keeps none: its key says what it is a hash of, and changes with what goes into it.
const KEY: (u64, u64) = (u64::from_le_bytes(*b"choice.."), 1);

impl Roster {
    /// The number of this service: 32 bits, a metric's value holds them exactly. `None`: there is no such service, or its strategy does
    /// not choose by the client alone.
    #[must_use]
    pub fn choice(&self, index: ServiceIndex) -> Option<u32> {
        let service = &self.service(index)?.service;
        let Strategy::Maglev { seed } = service.strategy else { return None };
        let mut bytes = seed.to_le_bytes().to_vec();
        bytes.extend(of_service(service));
        // Their order and their numbers do not matter to the strategy. One of weight 0 does: it counts for the size of its table.
        let mut members: Vec<_> =
            self.backends().filter(|(_, one)| one.service == index).map(|(_, one)| member(one)).collect();
        members.sort_unstable();
        bytes.extend(members.concat());
        let [a, b, c, d, ..] = SipHasher13::new_with_keys(KEY.0, KEY.1).hash(&bytes).to_le_bytes();
        Some(u32::from_le_bytes([a, b, c, d]))
    }
}

/// What a client is, and who may be chosen when backends are down or have just come up.
fn of_service(service: &Service) -> Vec<u8> {
    let (prefix4, prefix6) = service.affinity.map_or((0, 0), |affinity| (affinity.prefix4, affinity.prefix6));
    let all_down = match service.policy.all_down {
        AllDown::Reject => 0,
        AllDown::Drop => 1,
        AllDown::Last => 2,
    };
    let mut bytes = vec![prefix4, prefix6, all_down, service.policy.panic_threshold];
    bytes.extend(service.policy.slow_start.to_le_bytes());
    bytes
}

/// Where it is, and its part.
fn member(backend: &BackendEntry) -> [u8; 21] {
    let address = match backend.address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut bytes = [0; 21];
    bytes[..16].copy_from_slice(&address.octets());
    // No port is not port 0: nobody can write that.
    bytes[16..18].copy_from_slice(&backend.port.unwrap_or(0).to_be_bytes());
    bytes[18..20].copy_from_slice(&backend.weight.to_be_bytes());
    bytes[20] = u8::from(backend.backup);
    bytes
}
