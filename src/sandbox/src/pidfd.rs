//! A process that is not our child, held by a pidfd: its number cannot pass to another process meanwhile.

use crate::error::SandboxError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A process (pidfd_open(2), Linux 5.3).
#[derive(Debug)]
pub struct PidFd {
    pidfd: OwnedFd,
    pid: u32,
}

impl PidFd {
    /// Opens the process that has this number now.
    ///
    /// # Errors
    /// If there is none, or the kernel lacks these calls.
    pub fn open(pid: u32) -> Result<Self, SandboxError> {
        // SAFETY: takes two numbers, no memory is passed; what it returns is a descriptor that nobody else knows of.
        let pidfd = unsafe { descriptor(libc::syscall(libc::SYS_pidfd_open, pid, 0)) };
        Ok(Self { pidfd: pidfd.map_err(refused("open", format!("process {pid}")))?, pid })
    }

    /// Its number, for the log.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Duplicates the process's descriptor `fd` into ours (pidfd_getfd(2), Linux 5.6). Needs the right to trace the
    /// process, which for one that is not dumpable is CAP_SYS_PTRACE (`__ptrace_may_access`, kernel/ptrace.c). So call
    /// it before [`crate::trim_supervisor`], which gives that up and makes this call deadly.
    ///
    /// # Errors
    /// If it has no such descriptor, has ended, or may not be traced.
    pub fn take(&self, fd: RawFd) -> Result<OwnedFd, SandboxError> {
        // SAFETY: takes three numbers, no memory is passed; what it returns is a descriptor that nobody else knows of.
        let taken = unsafe { descriptor(libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), fd, 0)) };
        taken.map_err(refused("take", format!("descriptor {fd} of process {}", self.pid)))
    }

    /// Kills it. A process that has already ended is no error.
    ///
    /// # Errors
    /// If we are not allowed to.
    pub fn kill(&self) -> Result<(), SandboxError> {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo is allowed (pidfd_send_signal(2)); the rest are numbers.
        let answer =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, none, 0) };
        match Errno::result(answer) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(refused("kill", format!("process {}", self.pid))(errno)),
        }
    }

    /// Whether it has ended: a pidfd is then readable. By then its descriptors are closed (do_exit in kernel/exit.c
    /// closes files before it notifies).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let mut wanted = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// # Safety
/// `answer` must come from a call that returns a new descriptor or fails.
unsafe fn descriptor(answer: libc::c_long) -> Result<OwnedFd, Errno> {
    let number = Errno::result(answer)?;
    let number = RawFd::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: new, by this function's contract, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn refused(act: &'static str, object: String) -> impl FnOnce(Errno) -> SandboxError {
    move |source| SandboxError::Refused { act, object, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_descriptor_is_taken_out_of_a_process_and_works() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::piped()).spawn().expect("spawn");
        let process = PidFd::open(child.id()).expect("open");
        let Ok(end) = process.take(1) else {
            assert!(!nix::unistd::geteuid().is_root(), "root may take what it wants");
            child.kill().and_then(|()| child.wait()).expect("kill");
            return;
        };
        assert!(process.take(77).is_err());
        assert!(!process.has_ended());
        process.kill().expect("kill");
        let until = Instant::now() + Duration::from_secs(5);
        while !process.has_ended() {
            assert!(Instant::now() < until, "lives on");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The pipe is still open: we hold its end.
        let mut pipe = child.stdout.take().expect("piped");
        nix::unistd::write(&end, b"here").expect("write");
        drop(end);
        let mut text = String::new();
        pipe.read_to_string(&mut text).expect("read");
        assert_eq!(text, "here");
        child.wait().expect("wait");
        assert!(PidFd::open(child.id()).is_err(), "it is gone");
    }
}
