//! Uses each rule of the worker's policy once. A rule that kills here would kill a worker at work.

use std::sync::atomic::{AtomicBool, Ordering};

use super::kind::{Attempt, Context, Expect, at, door};
use crate::kernel;
use crate::policy::Fd;

const NULL: u64 = 0;
const WAIT_FOR_ONE: u64 = 0x1_0000;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::lives("sendmsg the first template", |s| {
        door(libc::SYS_sendmsg, &[s.fd(Fd::Queue), s.templates().start, 0])
    }),
    Attempt::lives("sendmsg the last template", |s| {
        door(libc::SYS_sendmsg, &[s.fd(Fd::Queue), s.templates().end - 64, 0])
    }),
    // Room for no message, so it makes no difference whether one is waiting.
    Attempt::lives("recvmmsg on the queue", |s| {
        door(libc::SYS_recvmmsg, &[s.fd(Fd::Queue), s.page, 0, WAIT_FOR_ONE, NULL])
    }),
    Attempt::lives("read on the link", |s| door(libc::SYS_read, &[s.fd(Fd::Link), s.page, 0])),
    Attempt::lives("read on the membership link", |s| door(libc::SYS_read, &[s.fd(Fd::Membership), s.page, 0])),
    Attempt::lives("set the link not to block", |s| {
        door(
            libc::SYS_fcntl,
            &[s.fd(Fd::Link), u64::from(libc::F_SETFL.cast_unsigned()), u64::from(libc::O_NONBLOCK.cast_unsigned())],
        )
    }),
    Attempt::lives("write on the link", |s| door(libc::SYS_write, &[s.fd(Fd::Link), s.page, 0])),
];

/// What every sealed process may call.
pub(super) const EVERYONE: &[Attempt] = &[
    Attempt::lives("clock_gettime", |s| door(libc::SYS_clock_gettime, &[1, s.page])),
    Attempt::lives("restart_syscall", |_| door(libc::SYS_restart_syscall, &[])),
    Attempt { name: "rt_sigreturn from a handler", expect: Expect::Survives, prepare: Some(set_alarm), run: be_woken },
    Attempt::lives("exit_group", |_| kernel::leave(super::kind::ALIVE)),
];

pub(super) const RECEIVE_INTO_TEMPLATES: Attempt = Attempt {
    name: "recvmmsg into the templates",
    expect: Expect::Errno(libc::EFAULT),
    prepare: None,
    run: receive_into_templates,
};

fn receive_into_templates(s: &Context) -> i64 {
    let mut io = libc::iovec { iov_base: s.templates().start as *mut _, iov_len: 64 };
    // SAFETY: all-zero is a valid mmsghdr.
    let mut one: libc::mmsghdr = unsafe { std::mem::zeroed() };
    one.msg_hdr.msg_iov = &raw mut io;
    one.msg_hdr.msg_iovlen = 1;
    door(libc::SYS_recvmmsg, &[s.fd(Fd::Queue), at(&one), 1, WAIT_FOR_ONE, NULL])
}

static WOKEN: AtomicBool = AtomicBool::new(false);

extern "C" fn wake(_: i32) {
    WOKEN.store(true, Ordering::Relaxed);
}

/// Sets an alarm every 20 ms before entering the sandbox, until one goes off inside it.
fn set_alarm() {
    let period = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the handler stores one atomic and nothing else; SA_RESTART, so nothing on the way into the sandbox sees
    // EINTR. All-zero is a valid sigaction and an empty mask. Pointers are good for the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = wake as extern "C" fn(i32) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
}

fn be_woken(_: &Context) -> i64 {
    WOKEN.store(false, Ordering::Relaxed);
    while !WOKEN.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
    0
}
