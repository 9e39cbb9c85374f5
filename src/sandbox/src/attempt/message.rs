//! Netlink messages that a worker must not be able to send, built on the stack.

use super::kind::at;

const REQUEST: u16 = 1; // NLM_F_REQUEST
const ACK: u16 = 4; // NLM_F_ACK
const CREATE: u16 = 0x400; // NLM_F_CREATE
const SUBSYS_CTNETLINK: u16 = 1;
const SUBSYS_QUEUE: u16 = 3;
const SUBSYS_NFTABLES: u16 = 10;

/// A message to the kernel.
pub(super) struct Message {
    bytes: [u8; 128],
    length: usize,
}

impl Message {
    fn new() -> Message {
        Message { bytes: [0; 128], length: 0 }
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// Appends one nlmsghdr with its nfgenmsg and at most one attribute, whose value is already padded to a multiple of
    /// 4.
    fn netlink(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attribute: Option<(u16, &[u8; 8], u16)>) {
        let extra: u32 = if attribute.is_some() { 12 } else { 0 };
        self.put(&(20 + extra).to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(&(REQUEST | flags).to_ne_bytes());
        self.put(&1u32.to_ne_bytes()); // sequence
        self.put(&0u32.to_ne_bytes()); // port: the kernel
        self.put(&[family, 0]);
        self.put(&resource.to_be_bytes());
        if let Some((number, value, length)) = attribute {
            self.put(&(4 + length).to_ne_bytes());
            self.put(&number.to_ne_bytes());
            self.put(value);
        }
    }

    /// `nft add table ip pwned`, as the batch that nf_tables demands.
    pub(super) fn new_table() -> Message {
        const NFTA_TABLE_NAME: u16 = 1;
        let mut message = Message::new();
        message.netlink(0x10, 0, 0, SUBSYS_NFTABLES, None); // NFNL_MSG_BATCH_BEGIN
        message.netlink(SUBSYS_NFTABLES << 8, CREATE | ACK, 2, 0, Some((NFTA_TABLE_NAME, b"pwned\0\0\0", 6)));
        message.netlink(0x11, 0, 0, SUBSYS_NFTABLES, None); // NFNL_MSG_BATCH_END
        message
    }

    /// `nft flush ruleset`: deleting a table without naming one deletes them all (nf_tables_deltable).
    pub(super) fn no_tables() -> Message {
        const NFT_MSG_DELTABLE: u16 = 2;
        let mut message = Message::new();
        message.netlink(0x10, 0, 0, SUBSYS_NFTABLES, None);
        message.netlink(SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, ACK, 0, 0, None);
        message.netlink(0x11, 0, 0, SUBSYS_NFTABLES, None);
        message
    }

    /// `conntrack -F`.
    pub(super) fn flush_conntrack() -> Message {
        const IPCTNL_MSG_CT_DELETE: u16 = 2;
        let mut message = Message::new();
        message.netlink(SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, ACK, 2, 0, None);
        message
    }

    /// Unbinds a queue, which would drop its packets.
    pub(super) fn unbind_queue(queue: u16) -> Message {
        Message::queue_command(2, queue)
    }

    /// Binds a queue.
    pub(super) fn bind_queue(queue: u16) -> Message {
        Message::queue_command(1, queue)
    }

    fn queue_command(command: u8, queue: u16) -> Message {
        const NFQNL_MSG_CONFIG: u16 = 2;
        const NFQA_CFG_CMD: u16 = 1;
        let mut message = Message::new();
        let value = [command, 0, 0, 0, 0, 0, 0, 0];
        message.netlink(SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, ACK, 0, queue, Some((NFQA_CFG_CMD, &value, 4)));
        // The value is 4 bytes, not 8.
        message.length -= 4;
        message.bytes[0] -= 4;
        message
    }

    /// Address and length, for registers.
    pub(super) fn span(&self) -> [u64; 2] {
        [at(&self.bytes), self.length as u64]
    }

    pub(super) fn iovec(&self) -> libc::iovec {
        // The kernel only reads through it.
        libc::iovec { iov_base: self.bytes.as_ptr().cast_mut().cast(), iov_len: self.length }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_in_headers_add_up() {
        for (message, parts) in [
            (Message::new_table(), vec![20, 32, 20]),
            (Message::flush_conntrack(), vec![20]),
            (Message::no_tables(), vec![20, 20, 20]),
            (Message::unbind_queue(5), vec![28]),
            (Message::bind_queue(77), vec![28]),
        ] {
            let mut at = 0;
            for part in parts {
                assert_eq!(usize::from(message.bytes[at]), part);
                at += part;
            }
            assert_eq!(at, message.length);
        }
    }
}
