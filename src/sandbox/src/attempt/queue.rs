//! Attempts against the firewall, conntrack, the queues and the links, all through the one netlink descriptor that a
//! worker needs. With CAP_NET_ADMIN and no filter, every one of them works (tests/worker.rs, "a hole is seen from
//! outside").

use super::kind::{Attempt, Context, at, door};
use super::message::Message;
use crate::policy::Fd;

const NULL: u64 = 0;

fn queue(s: &Context) -> u64 {
    s.fd(Fd::Queue)
}

fn link(s: &Context) -> u64 {
    s.fd(Fd::Link)
}

fn membership(s: &Context) -> u64 {
    s.fd(Fd::Membership)
}

fn first(s: &Context) -> u64 {
    s.templates().start
}

fn sendto(s: &Context, message: &Message) -> i64 {
    let [address, length] = message.span();
    door(libc::SYS_sendto, &[queue(s), address, length, 0, NULL, 0])
}

fn write(s: &Context, message: &Message) -> i64 {
    let [address, length] = message.span();
    door(libc::SYS_write, &[queue(s), address, length])
}

fn sendmsg(s: &Context, message: &Message) -> i64 {
    let mut io = message.iovec();
    door(libc::SYS_sendmsg, &[queue(s), at(&AlignedHeader(header(&mut io))), 0])
}

/// A msghdr that meets the alignment demand, as an attacker's would: only the range may stop it.
#[repr(align(64))]
struct AlignedHeader(#[expect(dead_code, reason = "the kernel reads it")] libc::msghdr);

fn header(io: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no control data, no iovec.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = io;
    header.msg_iovlen = 1;
    header
}

/// sockaddr_nl of the kernel; 16 is AF_NETLINK.
const KERNEL: [u16; 6] = [16, 0, 0, 0, 0, 0];

pub(super) const NFT_BY_SENDTO: Attempt =
    Attempt::deadly("nft add table by sendto on the queue", |s| sendto(s, &Message::new_table()));
pub(super) const OWN_MSGHDR: Attempt =
    Attempt::deadly("nft add table by sendmsg with a msghdr of our own", |s| sendmsg(s, &Message::new_table()));

pub(super) const ATTEMPTS: &[Attempt] = &[
    // First, so that what the others add is still there when somebody looks.
    Attempt::deadly("nft flush ruleset by sendto", |s| sendto(s, &Message::no_tables())),
    Attempt::deadly("nft flush ruleset by sendmsg", |s| sendmsg(s, &Message::no_tables())),
    NFT_BY_SENDTO,
    OWN_MSGHDR,
    Attempt::deadly("nft add table by write on the queue", |s| write(s, &Message::new_table())),
    Attempt::deadly("nft add table by writev on the queue", |s| {
        let io = Message::new_table();
        door(libc::SYS_writev, &[queue(s), at(&io.iovec()), 1])
    }),
    Attempt::deadly("nft add table by pwritev2 on the queue", |s| {
        let io = Message::new_table();
        door(libc::SYS_pwritev2, &[queue(s), at(&io.iovec()), 1, !0, !0, 0])
    }),
    Attempt::deadly("nft add table by sendmmsg on the queue", |s| {
        let message = Message::new_table();
        let mut io = message.iovec();
        let many = libc::mmsghdr { msg_hdr: header(&mut io), msg_len: 0 };
        door(libc::SYS_sendmmsg, &[queue(s), at(&many), 1, 0])
    }),
    Attempt::deadly("conntrack flush by sendto", |s| sendto(s, &Message::flush_conntrack())),
    Attempt::deadly("conntrack flush by sendmsg", |s| sendmsg(s, &Message::flush_conntrack())),
    Attempt::deadly("conntrack flush by write", |s| write(s, &Message::flush_conntrack())),
    Attempt::deadly("unbind the own queue by sendto", |s| sendto(s, &Message::unbind_queue(s.victims.queue))),
    Attempt::deadly("unbind the own queue by sendmsg", |s| sendmsg(s, &Message::unbind_queue(s.victims.queue))),
    Attempt::deadly("unbind the own queue by write", |s| write(s, &Message::unbind_queue(s.victims.queue))),
    Attempt::deadly("unbind a foreign queue by sendto", |s| sendto(s, &Message::unbind_queue(s.victims.foreign))),
    Attempt::deadly("unbind a foreign queue by sendmsg", |s| sendmsg(s, &Message::unbind_queue(s.victims.foreign))),
    Attempt::deadly("bind a foreign queue by sendto", |s| sendto(s, &Message::bind_queue(s.victims.foreign))),
    Attempt::deadly("bind a foreign queue by sendmsg", |s| sendmsg(s, &Message::bind_queue(s.victims.foreign))),
    Attempt::deadly("sendfile to the queue", |s| door(libc::SYS_sendfile, &[queue(s), link(s), NULL, 0])),
    Attempt::deadly("splice to the queue", |s| door(libc::SYS_splice, &[link(s), NULL, queue(s), NULL, 0, 0])),
    Attempt::deadly("vmsplice", |s| door(libc::SYS_vmsplice, &[queue(s), NULL, 0, 0])),
    // Violates each demand of the sendmsg rule, one at a time.
    Attempt::deadly("sendmsg 8 bytes into a template", |s| door(libc::SYS_sendmsg, &[queue(s), first(s) + 8, 0])),
    Attempt::deadly("sendmsg below the templates", |s| door(libc::SYS_sendmsg, &[queue(s), first(s) - 64, 0])),
    Attempt::deadly("sendmsg past the templates", |s| door(libc::SYS_sendmsg, &[queue(s), s.templates().end, 0])),
    Attempt::deadly("sendmsg 4 GiB above a template", |s| {
        door(libc::SYS_sendmsg, &[queue(s), first(s) + (1 << 32), 0])
    }),
    Attempt::deadly("sendmsg 4 GiB below a template", |s| {
        door(libc::SYS_sendmsg, &[queue(s), first(s).wrapping_sub(1 << 32), 0])
    }),
    Attempt::deadly("sendmsg a null pointer", |s| door(libc::SYS_sendmsg, &[queue(s), NULL, 0])),
    Attempt::deadly("sendmsg a template on the link", |s| door(libc::SYS_sendmsg, &[link(s), first(s), 0])),
    Attempt::deadly("sendmsg a template on descriptor 0", |s| door(libc::SYS_sendmsg, &[0, first(s), 0])),
    Attempt::deadly("sendmsg a template with MSG_OOB", |s| door(libc::SYS_sendmsg, &[queue(s), first(s), 1])),
    Attempt::deadly("sendmsg a template with MSG_DONTWAIT", |s| door(libc::SYS_sendmsg, &[queue(s), first(s), 0x40])),
    // And those of the other rules.
    Attempt::deadly("recvmmsg on the link", |s| door(libc::SYS_recvmmsg, &[link(s), s.page, 0, WAIT_FOR_ONE, NULL])),
    Attempt::deadly("recvmmsg without MSG_WAITFORONE", |s| door(libc::SYS_recvmmsg, &[queue(s), s.page, 0, 0, NULL])),
    Attempt::deadly("recvmmsg with MSG_PEEK", |s| {
        door(libc::SYS_recvmmsg, &[queue(s), s.page, 0, WAIT_FOR_ONE | 2, NULL])
    }),
    Attempt::deadly("recvmmsg with a timeout", |s| {
        door(libc::SYS_recvmmsg, &[queue(s), s.page, 0, WAIT_FOR_ONE, s.page])
    }),
    Attempt::deadly("recvmsg on the queue", |s| door(libc::SYS_recvmsg, &[queue(s), NULL, DONT_WAIT])),
    Attempt::deadly("recvmsg on the link, for descriptors", |s| door(libc::SYS_recvmsg, &[link(s), NULL, DONT_WAIT])),
    Attempt::deadly("recvfrom on the queue", |s| {
        door(libc::SYS_recvfrom, &[queue(s), s.page, 0, DONT_WAIT, NULL, NULL])
    }),
    Attempt::deadly("read on the queue", |s| door(libc::SYS_read, &[queue(s), s.page, 0])),
    Attempt::deadly("read on descriptor 0", |s| door(libc::SYS_read, &[0, s.page, 0])),
    Attempt::deadly("write on descriptor 2", |s| door(libc::SYS_write, &[2, s.page, 0])),
    Attempt::deadly("sendmsg on the link, with descriptors", |s| door(libc::SYS_sendmsg, &[link(s), NULL, 0])),
    Attempt::deadly("writev on the link", |s| door(libc::SYS_writev, &[link(s), NULL, 0])),
    // The prober may only be heard.
    Attempt::deadly("write on the membership link", |s| door(libc::SYS_write, &[membership(s), s.page, 0])),
    Attempt::deadly("sendto on the membership link", |s| {
        door(libc::SYS_sendto, &[membership(s), s.page, 0, DONT_WAIT, NULL, 0])
    }),
    Attempt::deadly("sendmsg a template on the membership link", |s| {
        door(libc::SYS_sendmsg, &[membership(s), first(s), 0])
    }),
    Attempt::deadly("recvmsg on the membership link, for descriptors", |s| {
        door(libc::SYS_recvmsg, &[membership(s), NULL, DONT_WAIT])
    }),
    Attempt::deadly("shutdown the membership link", |s| door(libc::SYS_shutdown, &[membership(s), 2])),
    Attempt::deadly("close the membership link", |s| door(libc::SYS_close, &[membership(s)])),
    Attempt::deadly("poll", |_| door(libc::SYS_ppoll, &[NULL, 0, at(&[0u64; 2]), NULL, 8])),
    // The descriptors must keep their meaning, because the policy refers to them by number.
    Attempt::deadly("dup the queue", |s| door(libc::SYS_dup, &[queue(s)])),
    #[cfg(target_arch = "x86_64")]
    Attempt::deadly("dup2 the link over the queue", |s| door(libc::SYS_dup2, &[link(s), queue(s)])),
    Attempt::deadly("dup3 the queue over the link", |s| door(libc::SYS_dup3, &[queue(s), link(s), 0])),
    Attempt::deadly("fcntl F_DUPFD the queue", |s| door(libc::SYS_fcntl, &[queue(s), 0, 0])),
    Attempt::deadly("fcntl F_SETFL the queue", |s| door(libc::SYS_fcntl, &[queue(s), 4, 0])),
    Attempt::deadly("close the queue", |s| door(libc::SYS_close, &[queue(s)])),
    Attempt::deadly("close_range", |s| door(libc::SYS_close_range, &[queue(s), queue(s), 0])),
    Attempt::deadly("shutdown the link", |s| door(libc::SYS_shutdown, &[link(s), 2])),
    Attempt::deadly("connect the queue", |s| door(libc::SYS_connect, &[queue(s), at(&KERNEL), 12])),
    Attempt::deadly("bind the queue socket", |s| door(libc::SYS_bind, &[queue(s), at(&KERNEL), 12])),
    Attempt::deadly("getsockopt on the queue", |s| {
        door(libc::SYS_getsockopt, &[queue(s), SOL_SOCKET, 7, s.page, s.page + 8])
    }),
    Attempt::deadly("setsockopt SO_RCVBUFFORCE on the queue", |s| {
        door(libc::SYS_setsockopt, &[queue(s), SOL_SOCKET, 33, at(&(1u32 << 20)), 4])
    }),
    Attempt::deadly("setsockopt SO_ATTACH_FILTER on the queue", |s| {
        door(libc::SYS_setsockopt, &[queue(s), SOL_SOCKET, 26, s.page, 16])
    }),
    Attempt::deadly("ioctl SIOCSIFFLAGS on the queue: a link down", |s| {
        // struct ifreq: 16 bytes of name, then flags; 0 is "not IFF_UP".
        let mut request = [0u8; 40];
        request[..16].copy_from_slice(&s.victims.link);
        door(libc::SYS_ioctl, &[queue(s), libc::SIOCSIFFLAGS, at(&request)])
    }),
    Attempt::deadly("ioctl FIONREAD on the queue", |s| door(libc::SYS_ioctl, &[queue(s), libc::FIONREAD, s.page])),
];

const WAIT_FOR_ONE: u64 = 0x1_0000;
const DONT_WAIT: u64 = 0x40;
const SOL_SOCKET: u64 = libc::SOL_SOCKET.unsigned_abs() as u64;
