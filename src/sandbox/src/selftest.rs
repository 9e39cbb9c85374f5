//! Runs into the fence on purpose: each act in a child of its own, which enters the fence and tries it.
//!
//! The caller composes: it makes a room ([`private_room`]), puts a real queue and real templates there, and gives the
//! *release* way into the fence as `enter`. What changed outside is for the caller to look at. For a prober all of it is
//! here ([`examine_prober`]), because its room needs nothing that other crates have.

mod prober;

use std::fmt::{self, Write};
use std::net::UdpSocket;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::act::{Act, Expect, Scene, Target};
use crate::error::SandboxError;
use crate::identity::CHROOT;
use crate::kernel::{self, leave};
use crate::policy::Bindings;

pub use prober::{ProberRoom, examine_prober};

/// The exit code of a child that is alive after its act.
pub(crate) const ALIVE: i32 = 42;
/// The exit code of a child that could not enter the fence.
const NOT_ENTERED: i32 = 43;
/// An act is one system call; entering the fence is some 60 ms, most of it the network namespace. Beyond this it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Killed at the act by this signal.
    Killed(i32),
    /// Alive after it; the kernel's answer, -errno if it refused.
    Lives(i64),
    /// Never got as far as the act; why.
    NotEntered(String),
    /// Neither dead nor done after ten seconds.
    Hung,
}

impl Seen {
    /// Is it what was expected?
    pub fn is(&self, expect: Expect) -> bool {
        match (expect, self) {
            (Expect::Sigsys, Seen::Killed(signal)) => *signal == libc::SIGSYS,
            (Expect::Segv, Seen::Killed(signal)) => *signal == libc::SIGSEGV,
            (Expect::Death, Seen::Killed(signal)) => [libc::SIGSYS, libc::SIGSEGV].contains(signal),
            (Expect::Errno(number), Seen::Lives(answer)) => *answer == -i64::from(number),
            (Expect::Survives, Seen::Lives(_)) | (Expect::Succeeds, Seen::Lives(0..)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Killed(signal) => match Signal::try_from(*signal) {
                Ok(name) => f.pad(name.as_str()),
                Err(_) => f.pad(&format!("signal {signal}")),
            },
            Seen::Lives(answer @ ..0) => {
                let errno = Errno::from_raw(i32::try_from(-answer).unwrap_or(0));
                f.pad(&format!("lives ({errno:?})"))
            }
            Seen::Lives(_) => f.pad("lives"),
            Seen::NotEntered(why) => f.pad(&format!("fence not entered: {why}")),
            Seen::Hung => f.pad("hung"),
        }
    }
}

/// Forks a child, lets it `enter` the fence and perform `act`, and says what came of it.
///
/// `enter` runs in the child and answers the numbers that it bound; after it the child makes no call but the act's own
/// and exit_group. What the numbers name (templates, descriptors) must stay, so `enter` forgets its owners.
pub fn run_act<E: fmt::Display>(enter: &dyn Fn() -> Result<Bindings, E>, act: &Act) -> Result<Seen, SandboxError> {
    let target = Target::in_room(std::process::id());
    let enter = || {
        if let Some(prepare) = act.prepare {
            prepare();
        }
        let own = u64::from(std::process::id());
        let Some(page) = new_page(MapFlags::MAP_PRIVATE) else { leave(NOT_ENTERED) };
        enter().map(|bindings| Scene { bindings, target, own, page: page.as_ptr() as u64 })
    };
    run_inside(&enter, &|scene: &mut Scene| (act.run)(scene))
}

/// Forks a child, lets it `enter` the fence and do `work` there with what it entered with, and says what came of it;
/// if it lives, with the number that `work` answered. For work that the fence must not stop.
///
/// The calling process must have one thread: a child forked from a threaded one may find the allocator locked by a
/// thread that is not there.
pub fn run_inside<T, E: fmt::Display>(
    enter: &dyn Fn() -> Result<T, E>,
    work: &dyn Fn(&mut T) -> i64,
) -> Result<Seen, SandboxError> {
    if kernel::has_threads() {
        return Err(SandboxError::Threads { act: "run an act" });
    }
    let report = Report::new()?;
    // SAFETY: this process has one thread, so the child may allocate; it leaves by exit_group and so runs no handler.
    match unsafe { fork() }.map_err(refused("fork", "a sacrificed child"))? {
        ForkResult::Child => sacrifice(enter, work, &report),
        ForkResult::Parent { child } => Ok(report.read(watch(child)?)),
    }
}

/// Runs acts one after the other.
pub fn run_all<E: fmt::Display>(
    enter: &dyn Fn() -> Result<Bindings, E>,
    acts: &[Act],
) -> Result<Vec<(Act, Seen)>, SandboxError> {
    acts.iter().map(|act| Ok((*act, run_act(enter, act)?))).collect()
}

/// Those that did not come out as expected.
pub fn red(results: &[(Act, Seen)]) -> Vec<&(Act, Seen)> {
    results.iter().filter(|(act, seen)| !seen.is(act.expect)).collect()
}

/// Act, expected, seen; a line each and a sum at the end.
pub fn table(results: &[(Act, Seen)]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<52} {:<18} {:<18}", "act", "expected", "seen");
    for (act, seen) in results {
        let mark = if seen.is(act.expect) { "ok" } else { "RED" };
        let _ = writeln!(text, "{:<52} {:<18} {:<18} {mark}", act.name, act.expect, seen);
    }
    let red = red(results).len();
    let _ = writeln!(text, "{} acts, {red} red", results.len());
    text
}

/// Puts the calling process into a network and a mount namespace of its own, with an empty /var/run/empty, so that
/// nothing it does reaches the host. For self-tests: acts are aimed at the firewall and at `lo`.
///
/// `lo` is down in a new network. Children inherit the room; there is no way back for this process.
pub fn private_room() -> Result<(), SandboxError> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(refused("unshare", "net, mount"))?;
    // systemd makes / shared: without this the tmpfs would appear on the host too (mount_namespaces(7)).
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(refused("make private", "/"))?;
    // Mounting follows the symlink that /var/run is on most systems.
    mount(Some("room"), "/var/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .map_err(refused("mount a tmpfs on", "/var/run"))?;
    nix::unistd::mkdir(CHROOT, nix::sys::stat::Mode::from_bits_truncate(0o755))
        .map_err(refused("make directory", CHROOT))
}

/// Sets `lo` of the room up. Without a tool: the self-test must run where there is no `ip`.
pub fn raise_loopback() -> Result<(), SandboxError> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|e| {
        let source = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        SandboxError::Refused { act: "open", object: "a UDP socket".to_owned(), source }
    })?;
    // SAFETY: all-zero is a valid ifreq; the kernel reads the name and the flags (netdevice(7)) and keeps no pointer.
    let answer = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = UP;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    Errno::result(answer).map(drop).map_err(refused("set up", "lo"))
}

/// IFF_UP, in the width that struct ifreq has.
const UP: libc::c_short = 1;

fn refused(act: &'static str, object: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |source| SandboxError::Refused { act, object: object.to_owned(), source }
}

fn sacrifice<T, E: fmt::Display>(enter: &dyn Fn() -> Result<T, E>, work: &dyn Fn(&mut T) -> i64, report: &Report) -> ! {
    let mut inside = match enter() {
        Ok(inside) => inside,
        Err(e) => {
            report.explain(&e.to_string());
            leave(NOT_ENTERED);
        }
    };
    report.entered();
    let answer = work(&mut inside);
    report.answered(answer);
    leave(ALIVE);
}

fn watch(child: Pid) -> Result<WaitStatus, SandboxError> {
    let failed = refused("wait for", "a sacrificed child");
    let end = Instant::now() + PATIENCE;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(status) => return Ok(status),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
        if Instant::now() > end {
            kill(child, Signal::SIGKILL).map_err(refused("kill", "a sacrificed child that hangs"))?;
            waitpid(child, None).map_err(failed)?;
            return Ok(WaitStatus::StillAlive);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn new_page(sharing: MapFlags) -> Option<std::ptr::NonNull<std::ffi::c_void>> {
    let length = NonZeroUsize::new(PAGE)?;
    // SAFETY: a new anonymous mapping where the kernel likes it; nothing is replaced.
    unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, sharing) }.ok()
}

/// A page that the child writes and the parent reads: behind the fence there is no other way to tell. New pages are
/// zero, which is a valid state of all these.
#[repr(C)]
struct Page {
    /// 0: not in yet. 1: in, about to act. 2: acted.
    phase: AtomicU32,
    answer: AtomicI64,
    length: AtomicUsize,
    text: [AtomicU8; 400],
}

struct Report(std::ptr::NonNull<Page>);

impl Report {
    fn new() -> Result<Report, SandboxError> {
        let page = new_page(MapFlags::MAP_SHARED).ok_or(Errno::ENOMEM).map_err(refused("map", "a page"))?;
        Ok(Report(page.cast()))
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped in `new`, unmapped in `drop`, page-aligned, larger than Page, and all fields are atomics.
        unsafe { self.0.as_ref() }
    }

    fn entered(&self) {
        self.page().phase.store(1, Ordering::SeqCst);
    }

    fn answered(&self, answer: i64) {
        self.page().answer.store(answer, Ordering::SeqCst);
        self.page().phase.store(2, Ordering::SeqCst);
    }

    fn explain(&self, text: &str) {
        for (cell, byte) in self.page().text.iter().zip(text.bytes()) {
            cell.store(byte, Ordering::Relaxed);
        }
        self.page().length.store(text.len().min(self.page().text.len()), Ordering::SeqCst);
    }

    fn explanation(&self) -> String {
        let length = self.page().length.load(Ordering::SeqCst);
        let bytes: Vec<u8> = self.page().text.iter().take(length).map(|c| c.load(Ordering::Relaxed)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn read(&self, status: WaitStatus) -> Seen {
        let phase = self.page().phase.load(Ordering::SeqCst);
        match status {
            WaitStatus::StillAlive => Seen::Hung,
            WaitStatus::Signaled(_, signal, _) if phase == 1 => Seen::Killed(signal as i32),
            WaitStatus::Exited(_, ALIVE) if phase >= 1 => Seen::Lives(self.page().answer.load(Ordering::SeqCst)),
            other => Seen::NotEntered(format!("{} {other:?}", self.explanation())),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of this length; no reference outlives self. A failure leaks one page.
        let _ = unsafe { munmap(self.0.cast(), PAGE) };
    }
}
