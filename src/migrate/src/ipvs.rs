//! The kernel's own balancer, IPVS, in the words of `loaded`: keepalived and ipvsadm both set it up.

use crate::model::number;
use loaded_config::MAGLEV_SEED;
use loaded_ipc::Strategy;
use std::net::Ipv4Addr;

/// Seconds that a persistent client stays if nothing else is said: IPVS_SVC_PERSISTENT_TIMEOUT, include/libipvs.h of
/// keepalived. ipvsadm prints the number it has set.
pub(crate) const PERSISTENCE: u32 = 360;

/// What comes nearest to an algorithm of IPVS: the strategy, whether weights count there, and what is lost.
pub(crate) fn algorithm(name: &str) -> (Strategy, bool, Option<&'static str>) {
    let maglev = Strategy::Maglev { seed: MAGLEV_SEED };
    match name {
        "rr" => (Strategy::RoundRobin, false, None),
        "wrr" => (Strategy::RoundRobin, true, None),
        "lc" => (Strategy::Weighted, false, None),
        "wlc" | "sed" | "nq" => (Strategy::Weighted, true, None),
        "sh" | "mh" => (maglev, true, None),
        "dh" | "lblc" | "lblcr" => {
            (maglev, true, Some("it chooses by destination, which here is the VIP; strategy maglev chooses by client"))
        }
        "fo" | "ovf" | "twos" => {
            (Strategy::Weighted, true, Some("loaded has no such strategy; weighted comes nearest"))
        }
        _ => (Strategy::Weighted, true, Some("this algorithm is not known; weighted is used")),
    }
}

/// A netmask or a length; and whether it is of IPv4. A length up to 32 is.
pub(crate) fn granularity(text: &str) -> Option<(u8, bool)> {
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let bits = mask.to_bits();
        let length = bits.leading_ones();
        return (bits.count_ones() == length && length > 0)
            .then(|| u8::try_from(length).ok().map(|length| (length, true)))?;
    }
    number(text, &(1..=128)).map(|length| (length, length <= 32))
}
