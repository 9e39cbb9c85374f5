//! Tries to break out on purpose: each attempt is made by a child of its own, inside the sandbox.
//!
//! The caller makes a testbed ([`enter_private_namespaces`]), puts a real queue and real templates there, and passes
//! the *release's* way into the sandbox as `enter`. It also checks what changed outside. For a prober everything is
//! here ([`examine_prober`]), because its testbed needs nothing from other crates.

mod exporter;
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

use crate::attempt::{ALIVE, Attempt, Context, Expect, Victims};
use crate::error::SandboxError;
use crate::identity::CHROOT;
use crate::kernel::{self, leave};
use crate::policy::Bindings;

pub use exporter::{ExporterTestbed, examine_exporter};
pub use prober::{ProberTestbed, examine_prober};

/// The exit code of a child that could not enter the sandbox.
const NOT_ENTERED: i32 = 43;
/// An attempt is one system call; entering the sandbox takes some 60 ms, most of it for the network namespace. Beyond
/// this limit it hangs.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE: usize = 4096;

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Killed by this signal at the attempt.
    Killed(i32),
    /// Alive after it; the kernel's answer, or -errno if it refused.
    Lives(i64),
    /// Did not get as far as the attempt; says why.
    NotEntered(String),
    /// Neither dead nor done after ten seconds.
    Hung,
}

impl Observed {
    /// Whether this is the expected outcome.
    pub fn is(&self, expect: Expect) -> bool {
        match (expect, self) {
            (Expect::Sigsys, Observed::Killed(signal)) => *signal == libc::SIGSYS,
            (Expect::Segv, Observed::Killed(signal)) => *signal == libc::SIGSEGV,
            (Expect::Death, Observed::Killed(signal)) => [libc::SIGSYS, libc::SIGSEGV].contains(signal),
            (Expect::Errno(number), Observed::Lives(answer)) => *answer == -i64::from(number),
            (Expect::Survives, Observed::Lives(_)) | (Expect::Succeeds, Observed::Lives(0..)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Observed::Killed(signal) => match Signal::try_from(*signal) {
                Ok(name) => f.pad(name.as_str()),
                Err(_) => f.pad(&format!("signal {signal}")),
            },
            Observed::Lives(answer @ ..0) => {
                let errno = Errno::from_raw(i32::try_from(-answer).unwrap_or(0));
                f.pad(&format!("lives ({errno:?})"))
            }
            Observed::Lives(_) => f.pad("lives"),
            Observed::NotEntered(why) => f.pad(&format!("sandbox not entered: {why}")),
            Observed::Hung => f.pad("hung"),
        }
    }
}

/// Forks a child that enters the sandbox by `enter` and makes the attempt; returns the outcome.
///
/// `enter` runs in the child and returns the numbers that it bound; after it the child makes only the attempt's own
/// calls and exit_group. What the numbers refer to (templates, descriptors) must stay, so `enter` forgets its owners.
pub fn run_attempt<E: fmt::Display>(
    enter: &dyn Fn() -> Result<Bindings, E>,
    attempt: &Attempt,
) -> Result<Observed, SandboxError> {
    let victims = Victims::on_testbed(std::process::id());
    let enter = || {
        if let Some(prepare) = attempt.prepare {
            prepare();
        }
        let own = u64::from(std::process::id());
        let Some(page) = new_page(MapFlags::MAP_PRIVATE) else { leave(NOT_ENTERED) };
        enter().map(|bindings| Context { bindings, victims, own, page: page.as_ptr() as u64 })
    };
    run_inside(&enter, &|scene: &mut Context| (attempt.run)(scene))
}

/// Forks a child that enters the sandbox by `enter` and does `work` there with what `enter` returned; returns the
/// outcome and, if the child survives, the number that `work` returned. For work that the sandbox must not stop.
///
/// The calling process must have one thread: a child forked from a threaded one may find the allocator locked by a
/// thread that does not exist there.
pub fn run_inside<T, E: fmt::Display>(
    enter: &dyn Fn() -> Result<T, E>,
    work: &dyn Fn(&mut T) -> i64,
) -> Result<Observed, SandboxError> {
    if kernel::has_threads() {
        return Err(SandboxError::Threads { act: "run an act" });
    }
    let report = Report::new()?;
    // SAFETY: this process has one thread, so the child may allocate; it leaves by exit_group and so runs no exit
    // handlers.
    match unsafe { fork() }.map_err(refused("fork", "a sacrificed child"))? {
        ForkResult::Child => sacrifice(enter, work, &report),
        ForkResult::Parent { child } => Ok(report.read(watch(child)?)),
    }
}

/// Runs attempts one after another.
pub fn run_all<E: fmt::Display>(
    enter: &dyn Fn() -> Result<Bindings, E>,
    attempts: &[Attempt],
) -> Result<Vec<(Attempt, Observed)>, SandboxError> {
    attempts.iter().map(|attempt| Ok((*attempt, run_attempt(enter, attempt)?))).collect()
}

/// The attempts whose outcome was not the expected one.
pub fn red(results: &[(Attempt, Observed)]) -> Vec<&(Attempt, Observed)> {
    results.iter().filter(|(attempt, seen)| !seen.is(attempt.expect)).collect()
}

/// A table of attempt, expected and seen outcome, with a total at the end.
pub fn table(results: &[(Attempt, Observed)]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<52} {:<18} {:<18}", "attempt", "expected", "seen");
    for (attempt, seen) in results {
        let mark = if seen.is(attempt.expect) { "ok" } else { "RED" };
        let _ = writeln!(text, "{:<52} {:<18} {:<18} {mark}", attempt.name, attempt.expect, seen);
    }
    let red = red(results).len();
    let _ = writeln!(text, "{} attempts, {red} red", results.len());
    text
}

/// Moves the calling process into its own network and mount namespaces, with an empty /var/run/empty, so that nothing
/// it does reaches the host. For self-tests: attempts target the firewall and `lo`.
///
/// `lo` is down in a new network. Children inherit the testbed; this process cannot leave it.
pub fn enter_private_namespaces() -> Result<(), SandboxError> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(refused("unshare", "net, mount"))?;
    // systemd makes / shared: without this the tmpfs would appear on the host too (mount_namespaces(7)).
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(refused("make private", "/"))?;
    // Mounting follows the symlink that /var/run is on most systems.
    mount(Some("testbed"), "/var/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .map_err(refused("mount a tmpfs on", "/var/run"))?;
    nix::unistd::mkdir(CHROOT, nix::sys::stat::Mode::from_bits_truncate(0o755))
        .map_err(refused("make directory", CHROOT))
}

/// Brings up `lo` in the testbed, without a tool: the self-test must run where there is no `ip`.
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

/// IFF_UP, in the width of the field in struct ifreq.
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
    let end = Instant::now() + ATTEMPT_TIMEOUT;
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

/// A page that the child writes and the parent reads: the only way to report from inside the sandbox. New pages are
/// zero, which is a valid state of all fields.
#[repr(C)]
struct ReportPage {
    /// 0: not in the sandbox yet. 1: about to make the attempt. 2: done.
    phase: AtomicU32,
    answer: AtomicI64,
    length: AtomicUsize,
    text: [AtomicU8; 400],
}

struct Report(std::ptr::NonNull<ReportPage>);

impl Report {
    fn new() -> Result<Report, SandboxError> {
        let page = new_page(MapFlags::MAP_SHARED).ok_or(Errno::ENOMEM).map_err(refused("map", "a page"))?;
        Ok(Report(page.cast()))
    }

    fn page(&self) -> &ReportPage {
        // SAFETY: mapped in `new`, unmapped in `drop`, page-aligned, larger than ReportPage, and all fields are
        // atomics.
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

    fn read(&self, status: WaitStatus) -> Observed {
        let phase = self.page().phase.load(Ordering::SeqCst);
        match status {
            WaitStatus::StillAlive => Observed::Hung,
            WaitStatus::Signaled(_, signal, _) if phase == 1 => Observed::Killed(signal as i32),
            WaitStatus::Exited(_, ALIVE) if phase >= 1 => Observed::Lives(self.page().answer.load(Ordering::SeqCst)),
            other => Observed::NotEntered(format!("{} {other:?}", self.explanation())),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, of this length; no reference outlives self. A failure leaks one page.
        let _ = unsafe { munmap(self.0.cast(), PAGE) };
    }
}
