//! Which system call a child was killed for, from the kernel's own audit record.
//!
//! A seccomp kill makes an audit record (audit_seccomp, kernel/auditsc.c). An audit daemon takes it; where none runs, kauditd
//! prints it to the kernel's log (kauditd_printk_skb, kernel/audit.c), some time after the process was killed and under
//! printk's rate limit. So there may be no record; the log then says where else to look.
//!
//! The log is opened before the supervisor gives up its rights: /dev/kmsg asks for CAP_SYSLOG when it is opened and not when it is
//! read (devkmsg_open, kernel/printk/printk.c). Records count processes as the first pid namespace does: in a container
//! with a namespace of its own none is found.

mod record;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use record::{Call, SeccompRecord, parse};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

/// Lines read at a time: some 100 µs of work, however much the kernel has to say.
const READ_AT_ONCE: u32 = 256;
/// No record of the log is longer (CONSOLE_EXT_LOG_MAX, kernel/printk/internal.h).
const LONGEST: usize = 8192;
/// Maximum number of records that are kept. Each is the death of a process somewhere on this machine.
const KEPT: usize = 64;
/// How long they are kept: after that a pid may belong to another process.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// How long the loop waits for a record. Mostly it is there before the death is noticed.
const RECORD_WAIT: Duration = Duration::from_millis(3);
/// How long until a record is given up.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// /dev/kmsg, character device 1:11 (Documentation/admin-guide/devices.txt).
const KMSG: u64 = nix::libc::makedev(1, 11);

/// The kernel's log, from where it stood when it was opened.
#[derive(Debug)]
pub struct AuditLog {
    kmsg: Option<File>,
    kept: VecDeque<(Instant, SeccompRecord)>,
    awaited: Vec<Awaited>,
}

/// A death whose record has not come yet.
#[derive(Debug)]
struct Awaited {
    name: String,
    pid: u32,
    since: Instant,
}

impl AuditLog {
    /// Takes the kernel's log at its end: standard input, if a service manager has opened it there, so that we need neither
    /// CAP_SYSLOG nor the device; else /dev/kmsg.
    ///
    /// # Errors
    /// Without CAP_SYSLOG, or without /dev/kmsg; use [`AuditLog::of`] then.
    pub fn open() -> io::Result<Self> {
        let open = || File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg");
        let mut kmsg = given(io::stdin().as_fd()).map_or_else(open, Ok)?;
        kmsg.seek(SeekFrom::End(0))?;
        Ok(Self::of(Some(kmsg)))
    }

    /// Reads a log that was opened before: the kernel's, or /dev/null, which never has a record. `None`: there is none, and no
    /// system call has a name.
    #[must_use]
    pub fn of(kmsg: Option<File>) -> Self {
        Self { kmsg, kept: VecDeque::new(), awaited: Vec::new() }
    }

    /// The log as a descriptor for another process; /dev/null where there is none.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        match &self.kmsg {
            Some(kmsg) => Ok(kmsg.try_clone()?.into()),
            None => Ok(File::open("/dev/null")?.into()),
        }
    }

    /// The system call that the process `name` with this pid was killed for by its sandbox, in words for the log. If it is not known
    /// yet, [`AuditLog::late`] says it later.
    pub fn cause(&mut self, name: &str, pid: u32) -> String {
        match (self.find(pid, RECORD_WAIT), &self.kmsg) {
            (Some(call), _) => format!("it called {call}"),
            (None, Some(_)) => {
                self.awaited.push(Awaited { name: name.to_owned(), pid, since: Instant::now() });
                "waiting for the kernel's record of the system call".to_owned()
            }
            (None, None) => elsewhere(pid),
        }
    }

    /// Causes of earlier deaths that have become known. Call it regularly: it keeps up with the kernel's log.
    pub fn late(&mut self) -> Vec<String> {
        self.keep_up();
        let mut news = Vec::new();
        for death in std::mem::take(&mut self.awaited) {
            let Awaited { name, pid, since } = &death;
            match self.find(*pid, Duration::ZERO) {
                Some(call) => {
                    news.push(format!("{name}, pid {pid}, was killed by its sandbox because it called {call}"));
                }
                None if since.elapsed() >= GIVEN_UP => news.push(format!("{name}, pid {pid}: {}", elsewhere(*pid))),
                None => self.awaited.push(death),
            }
        }
        news
    }

    fn find(&mut self, pid: u32, wait: Duration) -> Option<Call> {
        let deadline = Instant::now() + wait;
        loop {
            self.keep_up();
            if let Some(at) = self.kept.iter().position(|(_, record)| record.pid == pid) {
                return self.kept.remove(at).map(|(_, record)| record.call);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let kmsg = self.kmsg.as_ref().filter(|_| !left.is_zero())?;
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            // A poll in whole milliseconds may end early with a remainder of less; the loop is bounded by the clock.
            let _ = poll(&mut [PollFd::new(kmsg.as_fd(), PollFlags::POLLIN)], wait);
        }
    }

    /// Reads new records, a bounded number at a time.
    fn keep_up(&mut self) {
        self.kept.retain(|(since, _)| since.elapsed() < KEPT_FOR);
        let Some(kmsg) = &mut self.kmsg else { return };
        let mut line = [0; LONGEST];
        for _ in 0..READ_AT_ONCE {
            match kmsg.read(&mut line) {
                Ok(length) => {
                    if let Some(record) = line.get(..length).and_then(parse) {
                        self.kept.truncate(KEPT - 1);
                        self.kept.push_front((Instant::now(), record));
                    }
                }
                // Unread records were overwritten; the next read goes on with the oldest that is left.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// This descriptor, if it is the kernel's log: never another file that happens to be standard input.
fn given(input: BorrowedFd<'_>) -> Option<File> {
    let file = File::from(input.try_clone_to_owned().ok()?);
    let meta = file.metadata().ok()?;
    if !meta.file_type().is_char_device() || meta.rdev() != KMSG {
        return None;
    }
    // Whoever opened it did not know that our loop must not wait for it.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    Some(file)
}

/// Where to look when the kernel's log has no record.
fn elsewhere(pid: u32) -> String {
    format!(
        "the kernel's log has no record of the system call; see: ausearch -m SECCOMP -p {pid}, or: dmesg | grep type=1326"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
    use std::process::{Command, Stdio};

    /// Of this kernel. The process that dies is this test once more.
    #[test]
    fn a_real_death_is_found() {
        const SANDBOXED: &str = "LOADED_TEST_DIES_BY_ITS_SANDBOX";
        if std::env::var_os(SANDBOXED).is_some() {
            return die_by_a_sandbox();
        }
        let Ok(mut log) = AuditLog::open() else {
            assert!(std::env::var_os("LOADED_CI").is_none(), "/dev/kmsg cannot be read");
            println!("skipped: /dev/kmsg cannot be read");
            return;
        };
        // The kernel prints ten records in five seconds, and others may run tests that die.
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "audit::tests::a_real_death_is_found"]).env(SANDBOXED, "1");
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let status = child.wait().unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(nix::libc::SIGSYS), "{status}");
            let said = log.cause("worker[0]", child.id());
            let said = if said.starts_with("it called") {
                said
            } else {
                std::thread::sleep(GIVEN_UP);
                log.late().concat()
            };
            if said.contains("getsid (system call ") {
                assert!(log.awaited.is_empty() && log.late().is_empty(), "it is said once");
                return;
            }
            assert!(said.contains(&format!("ausearch -m SECCOMP -p {}", child.id())), "{said}");
            assert!(Instant::now() < end, "no record of any death within 30 s");
        }
    }

    #[test]
    fn only_the_kernels_log_is_taken_from_standard_input() {
        assert!(given(File::open("/dev/null").unwrap().as_fd()).is_none());
        assert!(given(File::open("/proc/self/status").unwrap().as_fd()).is_none());
        let Ok(blocking) = File::open("/dev/kmsg") else {
            assert!(std::env::var_os("LOADED_CI").is_none(), "/dev/kmsg cannot be read");
            println!("skipped: /dev/kmsg cannot be read");
            return;
        };
        let mut log = given(blocking.as_fd()).unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        // At its end it says so instead of waiting; meanwhile the kernel may have had something to say.
        let end = (0..READ_AT_ONCE).find_map(|_| log.read(&mut [0; LONGEST]).err()).unwrap();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
    }

    fn die_by_a_sandbox() {
        let rules = [(nix::libc::SYS_getsid, vec![])].into();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        apply_filter(&program).unwrap();
        let _ = nix::unistd::getsid(None);
    }

    #[test]
    fn without_a_log_it_is_said_where_to_look() {
        let mut log = AuditLog::of(None);
        assert!(log.cause("worker[0]", 7).contains("ausearch -m SECCOMP -p 7"));
        assert!(log.late().is_empty());
    }
}
