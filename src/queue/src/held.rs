//! Who holds which NFQUEUE: the kernel's list of queues, and the process behind a netlink port.

use std::path::Path;
use std::{fs, io};

/// Readable by root only (mode 0440); missing until some program has used nfnetlink_queue.
const QUEUES: &str = "/proc/net/netfilter/nfnetlink_queue";
const NETLINK: &str = "/proc/net/netlink";
/// include/uapi/linux/netlink.h
const NETLINK_NETFILTER: u32 = 12;

/// One of the kernel's lists could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot read: {source}")]
pub struct ListError {
    /// The file.
    pub path: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// One line of `/proc/net/netfilter/nfnetlink_queue` (seq_show in net/netfilter/nfnetlink_queue.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueState {
    /// The queue number.
    pub queue: u16,
    /// The netlink port of the socket that bound it.
    pub portid: u32,
    /// Packets waiting for a verdict.
    pub waiting: u32,
    /// Packets dropped because the queue was full.
    pub dropped_full: u32,
    /// Packets dropped because the socket's receive buffer was full.
    pub dropped_socket: u32,
    /// Id of the last packet queued; ids count up by one, modulo 2^32.
    pub last_id: u32,
}

/// Every bound queue of this network namespace.
///
/// # Errors
/// If the kernel's list exists but cannot be read.
pub fn queue_owners() -> Result<Vec<QueueState>, ListError> {
    match fs::read_to_string(QUEUES) {
        Ok(text) => Ok(parse_queues(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(ListError { path: QUEUES, source }),
    }
}

/// Parses the kernel's list; lines that do not parse are skipped.
#[must_use]
pub fn parse_queues(text: &str) -> Vec<QueueState> {
    text.lines()
        .filter_map(|line| {
            // queue, portid, waiting, copy mode, copy range, dropped, user dropped, last id, 1
            let fields = line.split_whitespace().map(|field| field.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
            let &[queue, portid, waiting, _, _, dropped_full, dropped_socket, last_id, ..] = fields.as_slice() else {
                return None;
            };
            let queue = u16::try_from(queue).ok()?;
            Some(QueueState { queue, portid, waiting, dropped_full, dropped_socket, last_id })
        })
        .collect()
}

/// Describes who has bound this queue: "pid 123 (comm)", or the netlink port if no process is found.
/// `None` if nobody has.
///
/// # Errors
/// If the kernel's lists cannot be read.
pub fn queue_owner(queue: u16) -> Result<Option<String>, ListError> {
    let Some(state) = queue_owners()?.into_iter().find(|state| state.queue == queue) else { return Ok(None) };
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let holders = queue_holders(&state)?.into_iter().map(|pid| format!("pid {pid} ({})", name(pid).trim_end()));
    match holders.collect::<Vec<_>>().as_slice() {
        [] => Ok(Some(format!("a process that /proc does not show, netlink port {}", state.portid))),
        holders => Ok(Some(holders.join(", "))),
    }
}

/// The pids that hold this queue's socket, ascending: a supervisor and its worker hold the same one. Seeing other users'
/// processes needs CAP_SYS_PTRACE.
///
/// # Errors
/// If the kernel's lists cannot be read.
pub fn queue_holders(state: &QueueState) -> Result<Vec<u32>, ListError> {
    let sockets = fs::read_to_string(NETLINK).map_err(|source| ListError { path: NETLINK, source })?;
    let inode = inode_of_port(&sockets, state.portid);
    Ok(inode.map(|inode| processes_with_socket(Path::new("/proc"), inode)).unwrap_or_default())
}

/// Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode; Eth is the netlink protocol, Pid the port.
fn inode_of_port(sockets: &str, portid: u32) -> Option<u64> {
    sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[_, protocol, port, .., inode] = fields.as_slice() else { return None };
        let found = protocol.parse() == Ok(NETLINK_NETFILTER) && port.parse() == Ok(portid);
        found.then(|| inode.parse().ok()).flatten()
    })
}

/// Processes may come and go meanwhile: what cannot be read is skipped.
fn processes_with_socket(proc: &Path, inode: u64) -> Vec<u32> {
    let wanted = format!("socket:[{inode}]");
    let mut pids: Vec<u32> = fs::read_dir(proc)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let descriptors = fs::read_dir(proc.join(format!("{pid}/fd"))).into_iter().flatten().flatten();
            descriptors.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()))
        })
        .collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_of_queues() {
        let text = "    0  12345     7 2 65531     3     4      812  1\n65535 4294967295 0 2 0 0 0 0 1\nnonsense\n";
        let first =
            QueueState { queue: 0, portid: 12345, waiting: 7, dropped_full: 3, dropped_socket: 4, last_id: 812 };
        let last =
            QueueState { queue: 65535, portid: u32::MAX, waiting: 0, dropped_full: 0, dropped_socket: 0, last_id: 0 };
        assert_eq!(parse_queues(text), [first, last]);
    }

    #[test]
    fn a_port_is_looked_up_among_the_netfilter_sockets() {
        let text = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
            00000000f0b8b0e8 0   77         00000000 0        0        0     2        0        1001\n\
            00000000f0b8b0e9 12  77         00000000 0        0        0     2        0        1002\n";
        assert_eq!(inode_of_port(text, 77), Some(1002));
        assert_eq!(inode_of_port(text, 78), None);
    }
}
