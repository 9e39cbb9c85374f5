//! Which worker gets which packet: one keyed hash of the client's address, once as a function and once as the BPF
//! programs that make netfilter compute the same. All packets of one client (both directions, and ICMP errors about
//! them) meet one worker, so its tables need no locks.
//!
//! `h = (Σ word_i · K_i) + C; h ^= h >> 16; h *= M; h ^= h >> 15; worker = h mod workers`, over the words of the
//! address masked to the affinity prefix. The odd `K_i`, `M` and `C` are secret and drawn at start: somebody who
//! may choose his address (an IPv6 /48, a botnet) cannot aim at one worker.

mod programs;

pub(super) use programs::{errors_about, fragment, quotes_source_port, sent_by};

use crate::Family;
use loaded_config::plan::{Plan, Service};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

/// The secret of the hash. Whoever takes over running workers (a new binary, an adoption) must go on with the same
/// numbers, or clients change their worker and their flows are not found.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKeys([u32; 6]);

impl HashKeys {
    /// From six random numbers. Multipliers become odd, so that no bit of the address is lost.
    #[must_use]
    pub fn new(random: [u32; 6]) -> Self {
        let [a, b, c, d, sum, mix] = random;
        Self([a | 1, b | 1, c | 1, d | 1, sum, mix | 1])
    }
}

/// Shows nothing: it is a secret, and logs travel.
impl std::fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKeys(..)")
    }
}

/// How addresses become workers. Fixed for the life of an instance: whatever changes it sends clients to workers that do
/// not know their flows.
///
/// Clients that share an affinity entry must share a worker, so no service may have a shorter affinity prefix than the
/// one that is steered by; a longer one is no harm. A reload may therefore add, remove and change services as it likes but
/// for a shorter prefix ([`Steering::covers`]), which needs a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// Leading bits of an IPv4 address that count, at most 32.
    prefix4: u8,
    /// Leading bits of an IPv6 address that count, at most 128.
    prefix6: u8,
    keys: HashKeys,
}

/// Steered by in IPv6 when an instance starts without a service of that family: what TOML files give their services.
/// A reload can then bring the first.
const PREFIX6_OF_LATER_SERVICES: u8 = 64;

impl Steering {
    /// For the plan an instance starts with. The shortest affinity prefix of all services of a family counts, for the
    /// rules do not know services.
    #[must_use]
    pub fn new(plan: &Plan, keys: HashKeys) -> Self {
        let is_used = plan.services.iter().any(|service| has(service, Family::V6));
        let otherwise = if is_used { 128 } else { PREFIX6_OF_LATER_SERVICES };
        let prefix4 = shortest(plan, Family::V4).map_or(32, |(_, prefix)| prefix);
        Self::with_prefixes(prefix4, shortest(plan, Family::V6).map_or(otherwise, |(_, prefix)| prefix), keys)
    }

    /// Whether a running instance may change to this plan and keep its steering.
    #[must_use]
    pub fn covers(&self, plan: &Plan) -> bool {
        self.uncovered(plan).is_none()
    }

    /// Why it does not cover the plan: names the service with the shortest prefix, and what to do.
    #[must_use]
    pub fn uncovered(&self, plan: &Plan) -> Option<String> {
        let steered = [(Family::V4, self.prefix4), (Family::V6, self.prefix6)].into_iter();
        let mut refused = steered.filter_map(|(family, steered)| {
            let (service, prefix) = shortest(plan, family)?;
            (prefix < steered).then(|| {
                format!(
                    "service {service:?}: affinity by {family} /{prefix} needs other steering than the /{steered} this instance \
                     was started with, which would move flows to workers that do not know them; restart to change it"
                )
            })
        });
        refused.next()
    }

    /// With the prefixes given, cut to 32 and 128.
    #[must_use]
    pub fn with_prefixes(prefix4: u8, prefix6: u8, keys: HashKeys) -> Self {
        Self { prefix4: prefix4.min(32), prefix6: prefix6.min(128), keys }
    }

    /// The worker, from 0, that gets the packets of this client when there are `workers` of them.
    #[must_use]
    pub fn worker_of(&self, client: IpAddr, workers: u16) -> u16 {
        let words = match client {
            IpAddr::V4(v4) => vec![v4.to_bits()],
            IpAddr::V6(v6) => words(v6).to_vec(),
        };
        let [keys @ .., sum, mix] = self.keys.0;
        let masks = self.masks(if client.is_ipv4() { Family::V4 } else { Family::V6 });
        let mut h = words
            .iter()
            .zip(masks)
            .zip(keys)
            .fold(sum, |h, ((word, mask), key)| h.wrapping_add((word & mask).wrapping_mul(key)));
        h ^= h >> 16;
        h = h.wrapping_mul(mix);
        h ^= h >> 15;
        u16::try_from(h % u32::from(workers.max(1))).unwrap_or(0)
    }

    /// The parts of an IPv4 and an IPv6 address that count, and the keys, for a program that computes the same.
    #[must_use]
    pub fn numbers(&self) -> (u32, [u32; 4], [u32; 6]) {
        (mask(self.prefix4, 0), [0, 1, 2, 3].map(|word| mask(self.prefix6, word)), self.keys.0)
    }

    /// One mask for each word of an address. The first is never empty: prefixes are at least 1.
    fn masks(&self, family: Family) -> Vec<u32> {
        match family {
            Family::V4 => vec![mask(self.prefix4, 0)],
            Family::V6 => (0..4).map(|word| mask(self.prefix6, word)).collect(),
        }
    }
}

fn has(service: &Service, family: Family) -> bool {
    service.vips.iter().any(|vip| family.has(*vip))
}

/// The service of this family with the shortest affinity prefix.
fn shortest(plan: &Plan, family: Family) -> Option<(&str, u8)> {
    let prefixes = plan.services.iter().filter(|service| has(service, family)).filter_map(|service| {
        let affinity = service.affinity?;
        Some((service.name.as_str(), if family == Family::V4 { affinity.prefix4 } else { affinity.prefix6 }))
    });
    prefixes.min_by_key(|(_, prefix)| *prefix)
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
    [a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h]
}

/// The part of the prefix that falls into this word; the first keeps at least one bit.
fn mask(prefix: u8, word: u8) -> u32 {
    let bits = prefix.max(1).saturating_sub(32 * word).min(32);
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
