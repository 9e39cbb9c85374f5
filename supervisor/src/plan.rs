//! The plan: what the configuration asks for, checked and complete. Both formats give one; nothing below
//! this type knows which format it came from.

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Most packets that may wait in one kernel queue: the original's default, 10 Mi. The kernel allocates nothing
/// in advance.
pub const MAX_QUEUE_LEN: u32 = 10 * 1024 * 1024;
/// Entries in one worker's flow or client table, each way. 64 Mi entries of 128 bytes are 8 GiB a worker.
pub const TABLE_ENTRIES: RangeInclusive<u32> = 1024..=64 * 1024 * 1024;
/// Longest affinity timeout in seconds: one year.
pub const MAX_TIMEOUT: u32 = 365 * 24 * 3600;
/// Largest share of one backend; 1:256 is already finer than hashing distributes.
pub const MAX_WEIGHT: u16 = 256;
/// Most services in a plan.
pub const MAX_SERVICES: usize = 256;
/// Most distinct backends in a plan.
pub const MAX_BACKENDS: usize = 4096;
/// Most VIPs of one service.
pub const MAX_VIPS: usize = 256;
/// Most port ranges of one service.
pub const MAX_PORT_RANGES: usize = 256;
/// Most name servers; each costs rules that every packet passes.
pub const MAX_NAMESERVERS: usize = 64;

/// Desired state. Every invariant named on a field holds: the parsers refuse what would break it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The account workers run as. Never root. Resolved when the supervisor starts.
    pub user: String,
    /// First and last core for workers, inclusive; `None` is every core this process may use.
    pub cores: Option<(u16, u16)>,
    /// Worker on core `n` answers queue `queue_base + n`.
    pub queue_base: u16,
    /// Packets that may wait in one kernel queue (`NFQA_CFG_QUEUE_MAXLEN`), 1..=10_485_760.
    pub queue_len: u32,
    /// Flows one worker can hold, 1024..=67_108_864.
    pub flows: u32,
    /// Clients (affinity entries) one worker can hold, 1024..=67_108_864.
    pub clients: u32,
    /// Name servers: port 53 from and to them is never balanced (key NS of the classic format). At most 64,
    /// none twice, none a VIP.
    pub nameservers: Vec<IpAddr>,
    /// At least one, at most 256.
    pub services: Vec<Service>,
    /// Distinct addresses; the position is the [`BackendIndex`]. At least one, at most 4096. None is a VIP.
    pub backends: Vec<IpAddr>,
}

/// One balanced service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique; shown in logs and status.
    pub name: String,
    /// At least one, at most 256, none twice. No other service has the same VIP, protocol and port;
    /// [`Protocol::Any`] has all of its VIPs. For each family present here there is at least one member of that family, and none
    /// of a family that is absent.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Sorted, not overlapping, at most 256. Empty means every port; always empty for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// How a new client gets its backend.
    pub strategy: Strategy,
    /// `None`: each flow is balanced by itself.
    pub affinity: Option<Affinity>,
    /// In the order of the configuration, no backend twice.
    pub members: Vec<Member>,
}

/// A backend's part in a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which backend.
    pub backend: BackendIndex,
    /// Share relative to the other members, 1..=256.
    pub weight: u16,
}

/// The cores named in the configuration and the ones this process may use do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// Some of the cores do not exist or are not for this process.
    #[error(
        "workers are to run on cores {low}-{high}, but there is no core {} for them; available: {}",
        numbers(missing),
        numbers(available)
    )]
    Missing {
        /// First core of the plan.
        low: u16,
        /// Last core of the plan.
        high: u16,
        /// Which of them are not available.
        missing: Vec<u16>,
        /// What is available.
        available: Vec<u16>,
    },
    /// There is no core at all.
    #[error("no core is available for workers")]
    NoneAvailable,
    /// The queue number of a core would not fit in 16 bits.
    #[error("core {core} would answer queue {queue_base} + {core}, but queue numbers end at 65535; lower --queue-base")]
    NoQueue {
        /// The core.
        core: u16,
        /// The plan's base.
        queue_base: u16,
    },
}

impl Plan {
    /// The cores that get a worker, ascending: those of the plan, or all of `available` (any order).
    ///
    /// # Errors
    /// A core of the plan is not in `available`; nothing is available; a core has no queue number.
    pub fn check_cores(&self, available: &[u16]) -> Result<Vec<u16>, CoresError> {
        let mut available = available.to_vec();
        available.sort_unstable();
        available.dedup();
        let chosen = match self.cores {
            None => available,
            Some((low, high)) => {
                let missing: Vec<u16> = (low..=high).filter(|core| available.binary_search(core).is_err()).collect();
                if !missing.is_empty() {
                    return Err(CoresError::Missing { low, high, missing, available });
                }
                (low..=high).collect()
            }
        };
        let &last = chosen.last().ok_or(CoresError::NoneAvailable)?;
        match self.queue_base.checked_add(last) {
            Some(_) => Ok(chosen),
            None => Err(CoresError::NoQueue { core: last, queue_base: self.queue_base }),
        }
    }

    /// The address of a backend; `None` for an index that is not in this plan.
    pub fn address(&self, backend: BackendIndex) -> Option<IpAddr> {
        self.backends.get(usize::from(backend.0)).copied()
    }
}

/// What will be served, for `--check`: one fact a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.queue_base;
        match self.cores {
            Some((low, high)) if low == high => writeln!(f, "workers      as {}, on core {low}", self.user)?,
            Some((low, high)) => writeln!(f, "workers      as {}, on cores {low}-{high}", self.user)?,
            None => writeln!(f, "workers      as {}, on every core", self.user)?,
        }
        writeln!(f, "queues       core n answers queue {base} + n; {} packets may wait in each", self.queue_len)?;
        writeln!(f, "tables       {} flows and {} clients a worker", self.flows, self.clients)?;
        for server in &self.nameservers {
            writeln!(f, "name server  {server}, port 53 is not balanced")?;
        }
        self.services.iter().try_for_each(|service| self.write_service(f, service))
    }
}

impl Plan {
    fn write_service(&self, f: &mut fmt::Formatter<'_>, service: &Service) -> fmt::Result {
        writeln!(f, "service {}", service.name)?;
        for vip in &service.vips {
            writeln!(f, "  vip        {vip}")?;
        }
        let ports = service.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().join(", ");
        match service.protocol {
            Protocol::Any => writeln!(f, "  balances   TCP and UDP on every port, ICMP echo")?,
            protocol if ports.is_empty() => writeln!(f, "  balances   {protocol} on every port")?,
            protocol => writeln!(f, "  balances   {protocol} on port {ports}")?,
        }
        writeln!(f, "  strategy   {}", service.strategy)?;
        match service.affinity {
            Some(Affinity { prefix4, prefix6, timeout }) => writeln!(
                f,
                "  affinity   a client (IPv4 /{prefix4}, IPv6 /{prefix6}) keeps its backend until {timeout} s after its last packet"
            )?,
            None => writeln!(f, "  affinity   none: each flow is balanced by itself")?,
        }
        for member in &service.members {
            match self.address(member.backend) {
                Some(address) => writeln!(f, "  backend    {address}, weight {}", member.weight)?,
                None => writeln!(f, "  {} is not in the plan", member.backend)?,
            }
        }
        Ok(())
    }
}

/// "0-3, 7": what follows on is one range.
fn numbers(list: &[u16]) -> String {
    let runs = list.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs = runs.filter_map(|run| Some(PortRange { low: *run.first()?, high: *run.last()? }.to_string()));
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            user: "nobody".to_owned(),
            cores: None,
            queue_base: 0,
            queue_len: 1,
            flows: 1024,
            clients: 1024,
            nameservers: vec![],
            services: vec![],
            backends: vec![],
        }
    }

    #[test]
    fn cores_default_to_all_available() {
        assert_eq!(plan().check_cores(&[3, 0, 1]), Ok(vec![0, 1, 3]));
        assert_eq!(plan().check_cores(&[]), Err(CoresError::NoneAvailable));
    }

    #[test]
    fn cores_that_do_not_exist_are_named() {
        let plan = Plan { cores: Some((1, 3)), ..plan() };
        assert_eq!(plan.check_cores(&[0, 1, 2, 3]), Ok(vec![1, 2, 3]));
        let error = plan.check_cores(&[0, 1]).unwrap_err().to_string();
        assert_eq!(error, "workers are to run on cores 1-3, but there is no core 2-3 for them; available: 0-1");
    }

    #[test]
    fn a_core_without_a_queue_number_is_refused() {
        let plan = Plan { queue_base: 65535, ..plan() };
        assert_eq!(plan.check_cores(&[0]), Ok(vec![0]));
        assert_eq!(plan.check_cores(&[0, 1]), Err(CoresError::NoQueue { core: 1, queue_base: 65535 }));
    }
}
