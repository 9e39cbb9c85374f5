//! What becomes of the packets that a killed worker held, in a network namespace of the test's own.

use super::{Worker, WorkerParts};
use crate::fixture::plan;
use loaded_netfilter::{Family, Tools};
use loaded_queue::{Orphans, Owner, QueueState};
use loaded_sandbox::selftest::raise_loopback;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv};
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};

const QUEUE: u16 = 0;
const QUEUE_LEN: u32 = 8;
const RULES: &str = "*raw\n-A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 0\nCOMMIT\n";

/// What a killed worker has read goes to the next one; on a kernel that would let it pass, to nobody.
#[test]
fn what_cannot_be_repeated_is_dropped() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "under CI these tests must run as root");
        println!("skipped: needs root");
        return;
    }
    // Of this thread alone.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    raise_loopback().unwrap();
    let owner = Owner::open(QUEUE, QUEUE_LEN).unwrap();
    Tools::find().unwrap().restore(Family::V4, RULES).unwrap();
    let (sender, listener) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.9:0").unwrap());
    let worker_fd = owner.as_fd().try_clone_to_owned().unwrap();
    let read = || recv(worker_fd.as_raw_fd(), &mut [0; 512], MsgFlags::empty());
    let parts = WorkerParts::fresh(owner, &plan(), File::open("/dev/null").unwrap().as_fd(), false).unwrap();
    let mut worker = Worker::new(0, 0, parts, QUEUE_LEN).unwrap();
    for (last_id, repeats) in [(1, true), (3, false)] {
        worker.repeats = repeats;
        sender.send_to(b"held", listener.local_addr().unwrap()).unwrap();
        read().unwrap();
        let (queue, portid, dropped_full, dropped_socket) = (QUEUE, 0, 0, 0);
        let state = QueueState { queue, portid, waiting: 1, dropped_full, dropped_socket, last_id };
        worker.release(Orphans::Repeat, &state);
        // Sending the verdict does it all, so there is nothing to wait for.
        assert_eq!(read().is_ok(), repeats, "comes again");
        if repeats {
            worker.release(Orphans::Drop, &QueueState { last_id: last_id + 1, ..state });
        }
        listener.set_nonblocking(true).unwrap();
        assert!(listener.recv(&mut [0; 8]).is_err(), "arrives as it is");
    }
}
