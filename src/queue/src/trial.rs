//! Tries whether this kernel does what NF_REPEAT promises: to send a packet through its hook again.
//!
//! The packets of a dead worker depend on it. Some kernels turned NF_REPEAT into NF_ACCEPT (netfilter-devel,
//! "netfilter: nfnetlink_queue: un-break NF_REPEAT", which fixes commit 6291b3a67ad5): such a packet would continue as
//! it came, to the host's own stack. So we try it with a packet of our own before we rely on it. Both address families
//! take the same path (nf_reinject), so one of them is enough. Who runs it, and where: src/netfilter/src/trial.rs.

use crate::Owner;
use crate::netlink::{self, NF_ACCEPT, NF_REPEAT};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::fmt;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// How long to wait for each step. Each happens within the system call before it; the rest is for a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_millis(300);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// What a kernel does with NF_REPEAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepeatSupport {
    /// It brings the packet to the queue again.
    Repeats,
    /// It lets the packet continue as if it were accepted.
    Accepts,
    /// Unknown: the trial failed, or neither happened; says why.
    Unknown(String),
}

/// Sends a datagram from `sender` to `listener` and answers it with NF_REPEAT, by the message of [`Owner::release`]. A
/// rule of the raw table must bring datagrams for `listener`'s address to this queue, which must be empty and have no
/// other reader.
#[must_use]
pub fn try_repeat(owner: &Owner, sender: &UdpSocket, listener: &UdpSocket) -> RepeatSupport {
    attempt(owner, sender, listener, NF_REPEAT).unwrap_or_else(RepeatSupport::Unknown)
}

fn attempt(owner: &Owner, sender: &UdpSocket, listener: &UdpSocket, verdict: u32) -> Result<RepeatSupport, String> {
    let fail = |act: &'static str| move |error: &dyn fmt::Display| format!("{act}: {error}");
    listener.set_nonblocking(true).map_err(|e| fail("make a socket non-blocking")(&e))?;
    let sent = listener.local_addr().and_then(|address| sender.send_to(b"repeat", address));
    sent.map_err(|e| fail("send a datagram on lo")(&e))?;
    let first = soon(|| next_id(owner))?.ok_or("a datagram on lo does not reach its queue")?;
    owner.release_by(verdict, None, first).map_err(|e| e.to_string())?;
    let again = soon(|| match (has_arrived(listener), next_id(owner)?) {
        (true, _) => Ok(Some(None)),
        (false, id) => Ok(id.map(Some)),
    })?;
    let Some(second) = again.ok_or("a datagram that was to be repeated is gone")? else {
        return Ok(RepeatSupport::Accepts);
    };
    if second == first {
        return Err("a repeated datagram came back with its old id".to_owned());
    }
    let accept = netlink::batch_message(owner.queue(), NF_ACCEPT, second);
    send(owner.as_fd().as_raw_fd(), &accept, MsgFlags::empty()).map_err(|e| fail("accept a datagram")(&e))?;
    let arrived = soon(|| Ok(has_arrived(listener).then_some(())))?;
    arrived
        .map(|()| RepeatSupport::Repeats)
        .ok_or_else(|| "a repeated datagram was accepted but did not arrive".to_owned())
}

/// Looks until something is found, for at most [`STEP_TIMEOUT`].
fn soon<T>(look: impl Fn() -> Result<Option<T>, String>) -> Result<Option<T>, String> {
    let end = Instant::now() + STEP_TIMEOUT;
    loop {
        match look()? {
            None if Instant::now() < end => std::thread::sleep(PAUSE),
            found => return Ok(found),
        }
    }
}

/// The id of the next packet in the queue.
fn next_id(owner: &Owner) -> Result<Option<u32>, String> {
    let mut message = [0; 512];
    match recv(owner.as_fd().as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => message.get(..length).and_then(netlink::first_id).map(Some).ok_or_else(|| {
            "the kernel sent something other than a packet; perhaps it does not know the verdict".to_owned()
        }),
        Err(Errno::EAGAIN) => Ok(None),
        Err(error) => Err(format!("receive from the queue: {error}")),
    }
}

fn has_arrived(listener: &UdpSocket) -> bool {
    listener.recv(&mut [0; 16]).is_ok()
}

impl fmt::Display for RepeatSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeats => f.write_str("repeats"),
            Self::Accepts => f.write_str("accepts"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::netlink::NF_DROP;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    /// Puts other verdicts in the place of NF_REPEAT, as other kernels do: each outcome is told from the others.
    #[test]
    fn what_a_kernel_makes_of_it_is_seen() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("LOADED_CI").is_none(), "under CI these tests must run as root");
            eprintln!("skipped: needs root");
            return;
        }
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let rule = "ip link set lo up && iptables -t raw -A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 5";
        assert!(Command::new("sh").args(["-c", rule]).status().unwrap().success());
        let owner = Owner::open(5, 8).unwrap();
        let (sender, listener) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.9:0").unwrap());
        let tried = |verdict| attempt(&owner, &sender, &listener, verdict);
        assert_eq!(tried(NF_ACCEPT), Ok(RepeatSupport::Accepts));
        assert!(tried(NF_DROP).unwrap_err().ends_with("is gone"));
        assert_eq!(tried(NF_REPEAT), Ok(RepeatSupport::Repeats));
        assert_eq!(try_repeat(&owner, &sender, &listener), RepeatSupport::Repeats);
    }
}
