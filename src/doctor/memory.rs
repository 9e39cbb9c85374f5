//! What waiting packets and tables take, and whether there is room for it.

use super::finding::{Finding, sound, unseen, warning};
use loaded_config::plan::Plan;
use loaded_queue::receive_buffer as buffer;
use loaded_table::{AffinityTable, FlowTable};

/// Bytes that a waiting packet of Ethernet size costs: 2 KiB of data and the sk_buff (SKB_TRUESIZE).
const WAITING_PACKET: usize = 2304;

/// A packet that no worker has read yet occupies the socket's receive buffer. The supervisor sets its size with
/// SO_RCVBUFFORCE, so net.core.rmem_max does not limit it; our own limit does.
pub(super) fn receive_buffer(plan: &Plan) -> Finding {
    let bytes = buffer(plan.queue_len);
    // The kernel doubles the requested size (sock_setsockopt, net/core/sock.c).
    let fits = u32::try_from(bytes * 2 / WAITING_PACKET).unwrap_or(u32::MAX);
    match plan.queue_len > fits {
        true => warning(
            "receive",
            format!(
                "{} packets may wait, but the socket's buffer of {} MiB holds {fits} ordinary ones and the rest is dropped (socket \
                 full): set queue_len = {fits}",
                plan.queue_len,
                bytes >> 20
            ),
        ),
        false => sound("receive", format!("a buffer of {} MiB holds a full queue of ordinary packets", bytes >> 20)),
    }
}

/// Whether memory suffices for the tables, which are allocated at start, and for full queues in the kernel.
pub(super) fn memory(plan: &Plan, workers: usize, meminfo: &str) -> Finding {
    let kib = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let Some(available) = kib("MemAvailable") else { return unseen("memory", "/proc/meminfo says nothing") };
    let tables = FlowTable::bytes_for(plan.flows as usize) + AffinityTable::bytes_for(plan.clients as usize);
    let tables = (tables as u64 * workers as u64).div_ceil(1 << 20);
    let waiting = (u64::from(plan.queue_len) * workers as u64 * WAITING_PACKET as u64).div_ceil(1 << 20);
    let text = format!(
        "{tables} MiB for tables; full queues would hold {waiting} MiB of ordinary packets; {} MiB are available",
        available / 1024
    );
    match (tables + waiting) * 1024 > available {
        true => warning("memory", format!("{text}: lower queue_len, flows or clients")),
        false => sound("memory", text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::super::Grade;
    use super::*;
    use loaded_config as config;

    fn plan() -> Plan {
        let text = "flows = 1024\nclients = 1024\n[[service]]\nname = \"web\"\nvip = [\"192.0.2.1\"]\nprotocol = \"any\"\n\
                    [[service.backend]]\naddress = \"198.51.100.1\"\n";
        config::parse(&[config::Source::new("a.toml", text)], &config::Overrides::default()).unwrap().plan
    }

    #[test]
    fn a_queue_that_the_socket_cannot_hold_is_named() {
        let mut plan = plan();
        plan.queue_len = 16_384;
        assert_eq!(receive_buffer(&plan).grade, Grade::Sound);
        plan.queue_len = 10 << 20;
        let found = receive_buffer(&plan);
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.text.ends_with("set queue_len = 233016"), "{}", found.text);
        plan.queue_len = 233_016;
        assert_eq!(receive_buffer(&plan).grade, Grade::Sound, "{}", receive_buffer(&plan).text);
    }

    #[test]
    fn what_does_not_fit_into_memory_is_named() {
        let mut plan = plan();
        plan.queue_len = 16384;
        assert_eq!(memory(&plan, 2, "MemAvailable:  1048576 kB\n").grade, Grade::Sound);
        let found = memory(&plan, 2, "MemTotal: 1 kB\nMemAvailable:    65536 kB\n");
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.text.contains("72 MiB of ordinary packets; 64 MiB are available"), "{}", found.text);
        assert_eq!(memory(&plan, 2, "").grade, Grade::Unseen);
    }
}
