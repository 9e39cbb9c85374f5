//! Raw frames: to send what no protocol stack would, and to see what really passes an interface.

use super::lab::{Lab, eventually};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, recv, sendmmsg, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) const HEADER: usize = 14;
const INTERFACE: &str = "eth0";
/// How long there may be no room for a frame.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// A packet socket for frames to one neighbour.
pub(crate) struct Sender {
    socket: OwnedFd,
    interface: LinkAddr,
    addresses: [u8; 12],
}

impl Sender {
    /// From `who`'s eth0 to `interface` of the balancer.
    pub(crate) fn to_balancer(lab: &Lab, who: &str, interface: &str) -> Self {
        let to = lab.within("lb", || link(interface)).addr().unwrap();
        let (socket, interface) = lab.within(who, || (open(), link(INTERFACE)));
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&to);
        addresses[6..].copy_from_slice(&interface.addr().unwrap());
        Self { socket, interface, addresses }
    }

    /// Sends an IP packet as it is; the version in its first byte chooses the type of the frame.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.send_all(&[self.frame(packet)]);
    }

    /// A packet as it is sent.
    pub(crate) fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = if packet.first().is_some_and(|byte| byte >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        [&self.addresses, &kind[..], packet].concat()
    }

    /// Sends many at once.
    pub(crate) fn send_all(&self, frames: &[Vec<u8>]) {
        let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let to = vec![Some(self.interface); frames.len()];
        let (mut done, end) = (0, Instant::now() + ROOM_TIMEOUT);
        while done < frames.len() {
            let mut headers = MultiHeaders::preallocate(frames.len() - done, None);
            let rest = (&slices[done..], &to[done..]);
            let sent = sendmmsg(self.socket.as_raw_fd(), &mut headers, rest.0, rest.1, [], MsgFlags::empty());
            done += match sent {
                // The other end's backlog is full (net.core.netdev_max_backlog): it will have room.
                Err(Errno::ENOBUFS) if Instant::now() < end => 0,
                sent => sent.unwrap().count(),
            };
        }
    }
}

/// The IP packets that pass all interfaces of `who`, both ways, while `act` runs and a little longer.
#[track_caller]
pub(crate) fn capture<T>(lab: &Lab, who: &str, act: impl FnOnce() -> T) -> (T, Vec<Vec<u8>>) {
    let (done, packets) = capture_timed(lab, who, act);
    (done, packets.into_iter().map(|(_, packet)| packet).collect())
}

/// The same, each with the time it was seen.
#[track_caller]
pub(crate) fn capture_timed<T>(lab: &Lab, who: &str, act: impl FnOnce() -> T) -> (T, Vec<(Instant, Vec<u8>)>) {
    let socket = lab.within(who, open);
    let over = AtomicBool::new(false);
    let read = || {
        let mut packets = Vec::new();
        let mut frame = vec![0; 1 << 17];
        // A silent interface gives EAGAIN every 50 ms, and only then can all have been read.
        loop {
            match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) => packets.push((Instant::now(), frame[HEADER.min(length)..length].to_vec())),
                Err(_) if over.load(Ordering::Relaxed) => return packets,
                Err(_) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        std::thread::sleep(Duration::from_millis(100));
        over.store(true, Ordering::Relaxed);
        let packets = reader.join().unwrap();
        (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), packets)
    })
}

/// `tcpdump` beside a long test, for packets that should not be there.
pub(crate) struct Tcpdump {
    tcpdump: Child,
    seen: PathBuf,
}

impl Tcpdump {
    /// Packets at `who`'s eth0 that this filter of tcpdump's takes.
    #[track_caller]
    pub(crate) fn of(lab: &Lab, who: &str, filter: &str) -> Self {
        Self::at(lab, who, INTERFACE, filter)
    }

    /// The same at another interface, or at `any`.
    #[track_caller]
    pub(crate) fn at(lab: &Lab, who: &str, interface: &str, filter: &str) -> Self {
        let [seen, log] = ["seen", "log"].map(|name| lab.state().join(format!("{who}.tcpdump.{name}")));
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &lab.namespace(who), "tcpdump", "-nlti", interface, filter])
            .stdin(Stdio::null());
        command.stdout(File::create(&seen).unwrap()).stderr(File::create(&log).unwrap());
        let tcpdump = command.spawn().unwrap();
        let listens = || fs::read_to_string(&log).unwrap().contains("listening on");
        assert!(eventually(ROOM_TIMEOUT, listens), "{}", fs::read_to_string(&log).unwrap());
        Self { tcpdump, seen }
    }

    /// The packets, a line each.
    pub(crate) fn end(mut self) -> String {
        // What came last is on its way through tcpdump's buffer.
        std::thread::sleep(Duration::from_millis(1100));
        kill(Pid::from_raw(i32::try_from(self.tcpdump.id()).unwrap()), Signal::SIGINT).unwrap();
        self.tcpdump.wait().unwrap();
        fs::read_to_string(&self.seen).unwrap().trim().to_owned()
    }
}

/// A socket for all frames of the calling thread's namespace; it waits 50 ms for one.
pub(crate) fn open() -> OwnedFd {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50)).unwrap();
    socket
}

/// An interface of the calling thread's namespace.
fn link(name: &str) -> LinkAddr {
    let mut all = getifaddrs().unwrap().filter(|entry| entry.interface_name == name);
    *all.find_map(|entry| entry.address?.as_link_addr().copied().map(Box::new)).unwrap()
}
