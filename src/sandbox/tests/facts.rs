//! The kernel facts that the order of dropping rights rests on, each tested alone. Where one of them does not hold, the
//! sandbox does not hold.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::process::ExitCode;

use loaded_sandbox::selftest::enter_private_namespaces;
use loaded_sandbox::{Role, SandboxError, Survival, drop_rights, limit_resources, restrict_with_landlock};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rig::{child_passes, errno, in_child, nobody, raw};

fn main() -> ExitCode {
    rig::run(&[
        ("securebits are locked and keep capabilities apart from ids", securebits),
        ("the parent-death signal is cleared by setresuid", pdeathsig),
        ("a dead parent is noticed", orphan),
        ("setresuid clears dumpable", dumpable),
        ("NOFILE 1: no new descriptor, poll works; 0: poll does not", nofile),
        ("NPROC 0: fork is EAGAIN, but not for root", nproc),
        ("FSIZE 0: a file cannot grow", fsize),
        ("MDWE: no page becomes executable", mdwe),
        ("Landlock: no file, no TCP, no signal; UDP and netlink pass", landlock),
        ("the bounding set cannot be dropped without SETPCAP", bounding),
        ("after drop_rights nothing comes back", nothing_comes_back),
        ("the prober keeps nothing but its network", prober),
        ("a process with threads is refused", threads),
        ("the supervisor is refused", supervisor),
        ("without the chroot directory it is refused", no_chroot),
    ])
}

fn become_nobody() {
    let identity = nobody();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&[]).unwrap();
    setresgid(gid, gid, gid).unwrap();
    setresuid(uid, uid, uid).unwrap();
}

fn prctl(option: i32, a: u64, b: u64) -> i64 {
    raw(libc::SYS_prctl, [u64::from(option.unsigned_abs()), a, b, 0, 0, 0])
}

fn dropped(role: Role) {
    enter_private_namespaces().unwrap();
    drop_rights(role, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo).unwrap();
}

fn mask(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    u64::from_str_radix(value.trim_start_matches(':').trim(), 16).unwrap()
}

fn securebits() {
    child_passes(|| {
        // Without them, leaving root empties the sets; with NO_SETUID_FIXUP they stay, without KEEP_CAPS.
        let before = mask("CapPrm");
        become_nobody();
        assert_ne!(before, 0);
        assert_eq!(mask("CapPrm"), 0);
    });
    child_passes(|| {
        let bits = u64::from((libc::SECBIT_NO_SETUID_FIXUP | libc::SECBIT_NO_SETUID_FIXUP_LOCKED).unsigned_abs());
        let before = mask("CapPrm");
        assert_eq!(prctl(libc::PR_SET_SECUREBITS, bits, 0), 0);
        become_nobody();
        assert_eq!(mask("CapPrm"), before);
    });
    child_passes(|| {
        let bits = u64::from((libc::SECBIT_NOROOT | libc::SECBIT_NOROOT_LOCKED).unsigned_abs());
        assert_eq!(prctl(libc::PR_SET_SECUREBITS, bits, 0), 0);
        assert_eq!(prctl(libc::PR_SET_SECUREBITS, 0, 0), errno(libc::EPERM), "unlocking a lock, as root");
    });
    child_passes(|| {
        dropped(Role::Worker);
        assert_eq!(prctl(libc::PR_SET_SECUREBITS, 0, 0), errno(libc::EPERM));
        assert_eq!(prctl(libc::PR_SET_KEEPCAPS, 1, 0), errno(libc::EPERM));
        let raise = u64::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
        assert_eq!(prctl(libc::PR_CAP_AMBIENT, raise, 12), errno(libc::EPERM));
    });
}

fn pdeathsig() {
    child_passes(|| {
        let read = || {
            let mut signal = 0i32;
            prctl(libc::PR_GET_PDEATHSIG, (&raw mut signal) as u64, 0);
            signal
        };
        assert_eq!(prctl(libc::PR_SET_PDEATHSIG, 9, 0), 0);
        assert_eq!(read(), 9);
        become_nobody();
        assert_eq!(read(), 0, "cleared by the change of credentials");
    });
    child_passes(|| {
        dropped(Role::Worker);
        let mut signal = 0i32;
        prctl(libc::PR_GET_PDEATHSIG, (&raw mut signal) as u64, 0);
        assert_eq!(signal, 9, "drop_rights sets it after");
    });
}

fn orphan() {
    child_passes(|| {
        enter_private_namespaces().unwrap();
        let error = drop_rights(Role::Worker, &nobody(), 1, Survival::DiesToo).unwrap_err();
        assert!(matches!(error, SandboxError::Orphaned { expected: 1, .. }), "{error}");
    });
}

fn dumpable() {
    child_passes(|| {
        assert_eq!(prctl(libc::PR_GET_DUMPABLE, 0, 0), 1);
        let default: i64 = fs::read_to_string("/proc/sys/fs/suid_dumpable").unwrap().trim().parse().unwrap();
        become_nobody();
        assert_eq!(prctl(libc::PR_GET_DUMPABLE, 0, 0), default, "set to fs.suid_dumpable by setresuid");
    });
    child_passes(|| {
        dropped(Role::Worker);
        assert_eq!(prctl(libc::PR_GET_DUMPABLE, 0, 0), 0);
    });
}

fn nofile() {
    let poll = |n: u64| {
        let fds = [libc::pollfd { fd: 0, events: 0, revents: 0 }];
        let now = [0u64; 2];
        raw(libc::SYS_ppoll, [(&raw const fds) as u64, n, (&raw const now) as u64, 0, 8, 0])
    };
    let limit = |value| nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, value, value);
    child_passes(|| {
        limit(1).unwrap();
        assert!(poll(1) >= 0);
        assert_eq!(raw(libc::SYS_dup, [0; 6]), errno(libc::EMFILE));
        assert_eq!(raw(libc::SYS_socket, [1, 1, 0, 0, 0, 0]), errno(libc::EMFILE));
    });
    child_passes(|| {
        limit(0).unwrap();
        assert_eq!(poll(1), errno(libc::EINVAL));
    });
}

fn nproc() {
    child_passes(|| {
        become_nobody();
        limit_resources(Role::Worker, 0).unwrap();
        // SAFETY: one thread; the child, if there is one, leaves at once.
        let answer = unsafe { libc::fork() };
        if answer == 0 {
            loaded_sandbox::leave(0);
        }
        assert_eq!((answer, Errno::last()), (-1, Errno::EAGAIN));
    });
    child_passes(|| {
        limit_resources(Role::Worker, 0).unwrap();
        assert!(matches!(in_child(|| ()), nix::sys::wait::WaitStatus::Exited(_, 0)), "root forks all the same");
    });
}

fn fsize() {
    let status = in_child(|| {
        let file = raw(libc::SYS_memfd_create, [c"f".as_ptr() as u64, 0, 0, 0, 0, 0]);
        limit_resources(Role::Worker, 0).unwrap();
        let byte = 0u8;
        raw(libc::SYS_write, [file.unsigned_abs(), (&raw const byte) as u64, 1, 0, 0, 0]);
    });
    assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGXFSZ, _)));
}

fn mdwe() {
    child_passes(|| {
        dropped(Role::Worker);
        let map = |protection| raw(libc::SYS_mmap, [0, 4096, protection, 0x22, u64::MAX, 0]);
        assert_eq!(map(7), errno(libc::EACCES), "a page writable and executable");
        let data = map(3);
        assert!(data > 0);
        assert_eq!(raw(libc::SYS_mprotect, [data.unsigned_abs(), 4096, 5, 0, 0, 0]), errno(libc::EACCES));
        assert_eq!(prctl(libc::PR_SET_MDWE, 0, 0), errno(libc::EPERM), "taken back");
    });
}

fn landlock() {
    child_passes(|| {
        // A process that a worker could reach without Landlock: one with its own uid.
        // SAFETY: one thread; the child only waits to be killed.
        let sibling = unsafe { libc::fork() };
        if sibling == 0 {
            become_nobody();
            prctl(libc::PR_SET_PDEATHSIG, 9, 0);
            raw(libc::SYS_ppoll, [0; 6]);
            loaded_sandbox::leave(0);
        }
        let sibling = u64::from(sibling.unsigned_abs());
        std::thread::sleep(std::time::Duration::from_millis(50));
        // SAFETY: plain calls with live buffers.
        let abstract_socket = |connect: bool| unsafe {
            let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
            let mut name: libc::sockaddr_un = std::mem::zeroed();
            name.sun_family = 1;
            for (to, from) in name.sun_path.iter_mut().zip(b"\0loaded-facts") {
                *to = libc::c_char::from_ne_bytes([*from]);
            }
            let at = (&raw const name).cast();
            let answer = if connect {
                libc::connect(socket, at, 15)
            } else {
                libc::bind(socket, at, 15) | libc::listen(socket, 5)
            };
            if answer == 0 { Errno::from_raw(0) } else { Errno::last() }
        };
        assert_eq!(abstract_socket(false), Errno::from_raw(0));
        child_passes(|| {
            become_nobody();
            assert_eq!(raw(libc::SYS_kill, [sibling, 0, 0, 0, 0, 0]), 0, "without Landlock");
            assert_eq!(abstract_socket(true), Errno::from_raw(0), "without Landlock");
        });
        child_passes(|| {
            become_nobody();
            let abi = restrict_with_landlock(&[], &[]).unwrap();
            println!("Landlock ABI {abi}");
            assert!(fs::metadata("/").is_ok(), "stat is not a right of Landlock");
            assert_eq!(fs::File::open("/etc/hostname").unwrap_err().raw_os_error(), Some(libc::EACCES));
            assert_eq!(fs::read_dir("/").unwrap_err().raw_os_error(), Some(libc::EACCES));
            if abi >= 6 {
                assert_eq!(raw(libc::SYS_kill, [sibling, 0, 0, 0, 0, 0]), errno(libc::EPERM));
                assert_eq!(abstract_socket(true), Errno::EPERM);
            }
            if abi >= 4 {
                let tcp = std::net::TcpStream::connect("127.0.0.1:9").unwrap_err();
                assert_eq!(tcp.raw_os_error(), Some(libc::EACCES));
            }
            if abi < 10 {
                let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                assert!(udp.send_to(b"x", "127.0.0.1:9").is_ok(), "it does not see UDP; the namespace and seccomp do");
            }
            assert!(raw(libc::SYS_socket, [16, 3, 12, 0, 0, 0]) >= 0, "nor netlink");
        });
        raw(libc::SYS_kill, [sibling, 9, 0, 0, 0, 0]);
    });
}

fn bounding() {
    let last: u64 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    assert_eq!(prctl(libc::PR_CAPBSET_READ, last + 1, 0), errno(libc::EINVAL), "the end that drop_rights counts to");
    child_passes(|| {
        become_nobody();
        assert_eq!(prctl(libc::PR_CAPBSET_DROP, 21, 0), errno(libc::EPERM), "hence before the ids");
    });
    child_passes(move || {
        dropped(Role::Worker);
        let held: Vec<u64> = (0..=last).filter(|cap| prctl(libc::PR_CAPBSET_READ, *cap, 0) == 1).collect();
        assert_eq!(held, [12], "CAP_NET_ADMIN is 12");
    });
}

fn nothing_comes_back() {
    child_passes(|| {
        dropped(Role::Worker);
        let eperm = errno(libc::EPERM);
        assert_eq!(raw(libc::SYS_setuid, [0; 6]), eperm);
        assert_eq!(raw(libc::SYS_setresuid, [u64::MAX, 0, u64::MAX, 0, 0, 0]), eperm);
        assert_eq!(raw(libc::SYS_setgid, [0; 6]), eperm);
        assert_eq!(raw(libc::SYS_setgroups, [0; 6]), eperm);
        assert_eq!(raw(libc::SYS_chroot, [c"/".as_ptr() as u64, 0, 0, 0, 0, 0]), eperm);
        assert_eq!(unshare(CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
        assert_eq!(fs::read_dir("/").unwrap().count(), 0, "the world is empty");
        assert!(fs::metadata("/..").unwrap().is_dir(), "and .. is itself");
        assert_eq!(fs::read_dir("/..").unwrap().count(), 0);
    });
}

fn prober() {
    child_passes(|| {
        enter_private_namespaces().unwrap();
        lo_up();
        // Opened now, because there is no /proc inside the chroot.
        let status = fs::File::open("/proc/self/status").unwrap();
        drop_rights(Role::Prober, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo).unwrap();
        let text = std::io::read_to_string(status).unwrap();
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
        }
        assert_eq!(send_over_lo(), Ok(1), "its network is the one it came from");
    });
    child_passes(|| {
        enter_private_namespaces().unwrap();
        lo_up();
        drop_rights(Role::Worker, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo).unwrap();
        assert_eq!(send_over_lo(), Err(Some(libc::ENETUNREACH)), "a worker's is empty");
    });
}

fn lo_up() {
    let done = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(done.success());
}

fn send_over_lo() -> Result<usize, Option<i32>> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").map_err(|e| e.raw_os_error())?;
    socket.send_to(b"x", "127.0.0.1:9").map_err(|e| e.raw_os_error())
}

fn threads() {
    child_passes(|| {
        enter_private_namespaces().unwrap();
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let error =
            drop_rights(Role::Worker, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo).unwrap_err();
        assert!(matches!(error, SandboxError::Threads { .. }), "{error}");
        let error = loaded_sandbox::trim_supervisor(false).unwrap_err();
        assert!(matches!(error, SandboxError::Threads { .. }), "{error}");
        drop(stop);
        let _ = other.join();
    });
}

fn supervisor() {
    child_passes(|| {
        let error = drop_rights(Role::Supervisor, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo)
            .unwrap_err();
        assert!(matches!(error, SandboxError::WrongRole { .. }), "{error}");
    });
}

fn no_chroot() {
    child_passes(|| {
        enter_private_namespaces().unwrap();
        fs::remove_dir("/var/run/empty").unwrap();
        let error =
            drop_rights(Role::Worker, &nobody(), std::os::unix::process::parent_id(), Survival::DiesToo).unwrap_err();
        assert!(error.to_string().contains("install -d -m 0755 -o root -g root /var/run/empty"), "{error}");
    });
}
