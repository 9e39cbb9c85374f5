//! The kernel's counters of the queues.

use super::lab::Lab;

/// What the kernel counts of its queues, over all of them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Kernel {
    pub(crate) waiting: u64,
    /// No room in the queue, or in the socket's buffer.
    pub(crate) dropped: u64,
    /// Number of the last packet that was queued.
    pub(crate) sequence: u64,
}

/// Columns of `nfqnl_seq_show`, net/netfilter/nfnetlink_queue.c: queue, port, waiting, copy mode, copy range, dropped by
/// the queue, dropped by the socket, last id, 1.
pub(crate) fn kernel(lab: &Lab) -> Kernel {
    lab.queues().lines().fold(Kernel::default(), |sum, line| {
        let column: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        Kernel {
            waiting: sum.waiting + column[2],
            dropped: sum.dropped + column[5] + column[6],
            sequence: sum.sequence + column[7],
        }
    })
}
