//! The queue against the real kernel: each test runs in its own network namespace (`unshare` is per thread), with real
//! iptables rules on its loopback.

use loaded_queue::{Faults, Orphans, Owner, OwnerError, QueueSocket, Release, Verdict};
use nix::sched::{CloneFlags, unshare};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

const QUEUE: u16 = 5;

/// Enters a fresh namespace; false if the test cannot run here.
fn namespace() -> bool {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "under CI these tests must run as root");
        eprintln!("skipped: needs root");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
    run("ip", "link set lo up");
    true
}

fn run(program: &str, arguments: &str) {
    let done = Command::new(program).args(arguments.split(' ')).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A queue with a rule that feeds it, a socket on it, a sender and a receiver.
fn lab() -> (Owner, QueueSocket, UdpSocket, UdpSocket) {
    let owner = Owner::open(QUEUE, 1000).expect("owner");
    run("iptables", "-t raw -A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 5");
    let socket = QueueSocket::open(owner.as_fd().try_clone_to_owned().expect("dup"), QUEUE).expect("socket");
    let receiver = UdpSocket::bind("0.0.0.0:9999").expect("bind");
    receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("bind");
    (owner, socket, sender, receiver)
}

fn drain(socket: &mut QueueSocket, wanted: usize, mut decide: impl FnMut(&mut [u8]) -> Verdict) -> usize {
    let mut seen = 0;
    for _ in 0..200 {
        socket.receive().expect("receive");
        while let Some(mut packet) = socket.next() {
            seen += 1;
            let verdict = decide(packet.bytes());
            packet.settle(verdict);
        }
        if seen >= wanted {
            break;
        }
    }
    socket.flush();
    seen
}

/// A column of the queue's line, counted from 0.
fn column(number: usize) -> String {
    let text = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").expect("proc");
    text.split_whitespace().nth(number).expect("a bound queue").to_owned()
}

fn waiting() -> String {
    column(2)
}

fn last_id() -> u32 {
    column(7).parse().expect("id sequence")
}

#[test]
fn packets_of_every_size_come_back_rewritten_and_in_order() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    let sizes: Vec<usize> =
        (0..100).map(|i| [1, 100, 210, 230, 1200, 1480, 1492, 1500, 9000, 40_000, 65_000][i * 7 % 11] + i).collect();
    let mut buffer = vec![0; 70_000];
    // Few at a time: the receiver's socket buffer holds no more of the large ones.
    for chunk in sizes.chunks(3) {
        for size in chunk {
            sender.send_to(&vec![b'x'; *size], "127.0.0.9:9999").expect("send");
        }
        // Changes the datagram's last byte; a UDP checksum of zero says "none" (RFC 768).
        let seen = drain(&mut socket, chunk.len(), |ip| {
            *ip.last_mut().expect("bytes") = b'!';
            ip[26..28].fill(0);
            Verdict::Rewrite
        });
        assert_eq!(seen, chunk.len());
        for size in chunk {
            let n = receiver.recv(&mut buffer).expect("delivered");
            assert_eq!((n, buffer[n - 1]), (*size, b'!'));
        }
    }
    assert_eq!(socket.faults(), Faults::default());
    assert_eq!(waiting(), "0");
}

/// Sets the IP and UDP lengths of an IPv4 packet and corrects the IP header's checksum.
fn resize(ip: &mut [u8], length: usize) {
    let total = u16::try_from(length).expect("fits");
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    ip[26..28].fill(0);
    ip[10..12].fill(0);
    let mut sum: u32 = ip[..20].chunks(2).map(|b| u32::from(b[0]) << 8 | u32::from(b[1])).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    ip[10..12].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
}

#[test]
fn packets_come_back_longer_and_shorter() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    // This rule counts the kernel's lengths. A receiver does not see them: it goes by the headers in the packet.
    run("iptables", "-t mangle -A PREROUTING -p udp -d 127.0.0.9");
    let mut sent = 0;
    let mut buffer = vec![0; 70_000];
    // 203 and 204 straddle the end of the smaller body, 1469 and 1470 that of the larger one. 65,503 is the largest
    // there is.
    for size in [1, 20, 175, 203, 204, 1400, 1469, 1470, 40_000, 65_000, 65_480, 65_503] {
        for change in [-20_000, -1000, -13, -1, 0, 1, 7, 28, 47, 48_i64] {
            let before = i64::from(size) + 28;
            let Some(length) = usize::try_from(before + change).ok().filter(|n| (28..=65_531).contains(n)) else {
                continue;
            };
            sender.send_to(&vec![b'x'; usize::try_from(size).expect("short")], "127.0.0.9:9999").expect("send");
            while socket.receive().expect("receive") == 0 {}
            let mut packet = socket.next().expect("a packet");
            let room = packet.room();
            assert_eq!(i64::try_from(room.len()).expect("short"), (before + 48).min(65_531));
            resize(room, length);
            room[28..length].fill(b'y');
            packet.settle_resized(Verdict::Rewrite, length);
            socket.flush();
            sent += length;
            let n = receiver.recv(&mut buffer).unwrap_or_else(|e| panic!("{size} {change}: {e}"));
            assert_eq!((n + 28, buffer[..n].iter().all(|b| *b == b'y')), (length, true), "{size} {change}");
        }
    }
    assert_eq!(socket.faults(), Faults::default());
    assert_eq!(waiting(), "0");
    let rules = Command::new("iptables").args(["-t", "mangle", "-nvxL", "PREROUTING"]).output().expect("iptables");
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let counted = rules.lines().find(|l| l.contains("127.0.0.9")).and_then(|l| l.split_whitespace().nth(1));
    assert_eq!(counted, Some(&*sent.to_string()), "{rules}");
}

#[test]
fn a_length_that_does_not_fit_drops_the_packet_and_is_counted() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    let unfit = [0, 19, 29 + 49, 65_532, usize::MAX];
    for length in unfit {
        sender.send_to(b"x", "127.0.0.9:9999").expect("send");
        while socket.receive().expect("receive") == 0 {}
        socket.next().expect("a packet").settle_resized(Verdict::Rewrite, length);
    }
    socket.flush();
    assert_eq!(socket.faults(), Faults { unfit: 5, ..Faults::default() });
    assert_eq!(waiting(), "0");
    assert!(receiver.recv(&mut [0; 8]).is_err(), "nothing was delivered");
    // Where no bytes are sent, the length is ignored.
    sender.send_to(b"x", "127.0.0.9:9999").expect("send");
    while socket.receive().expect("receive") == 0 {}
    socket.next().expect("a packet").settle_resized(Verdict::Accept, usize::MAX);
    socket.flush();
    assert_eq!(receiver.recv(&mut [0; 8]).ok(), Some(1));
    assert_eq!(socket.faults().unfit, 5);
}

#[test]
fn a_forgotten_packet_is_dropped_and_never_left_waiting() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    for _ in 0..40 {
        sender.send_to(b"x", "127.0.0.9:9999").expect("send");
    }
    let mut seen = 0;
    while seen < 40 {
        seen += socket.receive().expect("receive");
        drop(socket.next()); // The rest of the batch is not even looked at.
    }
    socket.receive().expect("receive");
    assert_eq!(socket.faults().defaulted, 40);
    assert_eq!(waiting(), "0");
    assert!(receiver.recv(&mut [0; 8]).is_err(), "nothing was delivered");
}

#[test]
fn accept_delivers_what_came_and_drop_nothing() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    for byte in *b"adbd" {
        sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
    }
    drain(&mut socket, 4, |ip| {
        let verdict = if ip[28] == b'd' { Verdict::Drop } else { Verdict::Accept };
        ip[28] = b'?';
        verdict
    });
    let mut byte = [0; 8];
    for want in *b"ab" {
        assert_eq!(receiver.recv(&mut byte).map(|n| (n, byte[0])).ok(), Some((1, want)));
    }
    assert!(receiver.recv(&mut byte).is_err());
    assert_eq!(waiting(), "0");
}

/// Packets that matched, by the counter of the first rule about them in the mangle table.
fn counted(what: &str) -> u32 {
    let rules = Command::new("iptables").args(["-t", "mangle", "-nvxL", "PREROUTING"]).output().expect("iptables");
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let line = rules.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}: {rules}"));
    line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a counter")
}

#[test]
fn a_mark_replaces_its_own_bits_only_and_leaves_the_packet_alone() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    run("iptables", "-t mangle -A PREROUTING -d 127.0.0.9 -m mark --mark 0x00050000");
    run("iptables", "-t mangle -A PREROUTING -d 127.0.0.9 -m mark --mark 0x8005000b");
    let mut buffer = vec![0; 70_000];
    let mut send = |socket: &mut QueueSocket, size: usize| {
        sender.send_to(&vec![b'x'; size], "127.0.0.9:9999").expect("send");
        while socket.receive().expect("receive") == 0 {}
        let mut packet = socket.next().expect("a packet");
        // What is written into it here is not sent.
        packet.bytes()[28..].fill(b'?');
        packet.settle_marked(0xc005_ffff, 0x3fff_0000);
        socket.flush();
        assert_eq!(receiver.recv(&mut buffer).expect("delivered"), size);
        assert!(buffer[..size].iter().all(|byte| *byte == b'x'), "{size}");
    };
    for size in [1, 1400, 60_000] {
        send(&mut socket, size);
    }
    assert_eq!((counted("0x50000"), counted("0x8005000b")), (3, 0));
    // Bits of others stay, ours are replaced.
    run("iptables", "-t mangle -A OUTPUT -d 127.0.0.9 -j MARK --set-mark 0x8123000b");
    send(&mut socket, 100);
    assert_eq!((counted("0x50000"), counted("0x8005000b")), (3, 1));
    assert_eq!(socket.faults(), Faults::default());
    assert_eq!(waiting(), "0");
}

#[test]
fn a_repeated_packet_goes_through_the_hook_again() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    run("iptables", "-t raw -I PREROUTING 1 -p udp -d 127.0.0.8");
    sender.send_to(b"x", "127.0.0.9:9999").expect("send");
    // To another destination, or it would loop forever: 127.0.0.9 to 127.0.0.8, the header checksum up by one.
    let seen = drain(&mut socket, 1, |ip| {
        ip[19] = 8;
        ip[26..28].fill(0);
        let (sum, carry) = u16::from_be_bytes([ip[10], ip[11]]).overflowing_add(1);
        ip[10..12].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
        Verdict::Repeat
    });
    assert_eq!((seen, receiver.recv(&mut [0; 8]).ok()), (1, Some(1)));
    let rules = Command::new("iptables").args(["-t", "raw", "-nvxL", "PREROUTING"]).output().expect("iptables");
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    let counted = rules.lines().find(|l| l.contains("127.0.0.8")).and_then(|l| l.split_whitespace().next());
    assert_eq!(counted, Some("1"), "the first rule saw the packet's second round:\n{rules}");
    assert_eq!(waiting(), "0");
}

/// The others of its batch continue. Released in another order, one is dropped and the others pass the hook again.
#[test]
fn a_held_packet_waits_beyond_its_batch() {
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    for byte in 0..4 {
        sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
    }
    let mut held = Vec::new();
    while held.len() < 3 {
        socket.receive().expect("receive");
        while let Some(mut packet) = socket.next() {
            match packet.bytes().last() {
                Some(3) => packet.settle(Verdict::Accept),
                _ => held.push(packet.hold()),
            }
        }
        socket.flush();
    }
    let mut byte = [9];
    assert_eq!((receiver.recv(&mut byte).ok(), byte, waiting()), (Some(1), [3], "3".to_owned()));
    let [first, second, third] = <[_; 3]>::try_from(held).expect("three");
    for (held, how) in [(third, Release::Repeat), (first, Release::Drop), (second, Release::Repeat)] {
        socket.release(held, how);
    }
    assert_eq!(drain(&mut socket, 2, |_| Verdict::Accept), 2);
    for wanted in [2, 1] {
        assert_eq!((receiver.recv(&mut byte).ok(), byte), (Some(1), [wanted]));
    }
    assert!(receiver.recv(&mut byte).is_err());
    assert_eq!((waiting(), socket.faults()), ("0".to_owned(), Faults::default()));
}

/// A worker dies with packets in its hands and more waiting in the socket: the next one gets them all.
#[test]
fn nothing_a_dead_worker_held_is_lost() {
    for unread in [3, 0] {
        if !namespace() {
            return;
        }
        let (owner, mut socket, sender, receiver) = lab();
        for byte in 0..5 {
            sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
        }
        assert_eq!(socket.receive().expect("receive"), 5);
        for byte in 5..5 + unread {
            sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
        }
        // Killed: no destructor runs, no verdict is sent.
        std::mem::forget(socket);
        owner.release(Orphans::Repeat, last_id()).expect("release");
        let mut next = QueueSocket::open(owner.as_fd().try_clone_to_owned().expect("dup"), QUEUE).expect("socket");
        drain(&mut next, 5 + usize::from(unread), |_| Verdict::Accept);
        let mut got: Vec<u8> = (0..5 + unread)
            .map(|_| {
                let mut byte = [0];
                receiver.recv(&mut byte).expect("delivered");
                byte[0]
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, (0..5 + unread).collect::<Vec<_>>());
        assert_eq!(waiting(), "0");
    }
}

/// The packet that killed its worker twice is dropped, and no other; an id that matches none changes nothing.
#[test]
fn one_packet_that_a_dead_worker_held_is_dropped_alone() {
    for gone in [Some(2), None] {
        if !namespace() {
            return;
        }
        let (owner, mut socket, sender, receiver) = lab();
        for byte in 0..5 {
            sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
        }
        assert_eq!(socket.receive().expect("receive"), 5);
        let ids: Vec<u32> = socket.waiting().map(|(id, ..)| id).collect();
        std::mem::forget(socket);
        let suspect = gone.map_or(ids[4].wrapping_add(1), |at: usize| ids[at]);
        owner.release(Orphans::RepeatWithout(suspect), last_id()).expect("release");
        let mut next = QueueSocket::open(owner.as_fd().try_clone_to_owned().expect("dup"), QUEUE).expect("socket");
        let left: Vec<u8> = (0..5).filter(|byte| gone != Some(usize::from(*byte))).collect();
        assert_eq!(drain(&mut next, left.len(), |_| Verdict::Accept), left.len());
        let got = left.iter().map(|_| {
            let mut byte = [0];
            receiver.recv(&mut byte).expect("delivered");
            byte[0]
        });
        let mut got: Vec<u8> = got.collect();
        got.sort_unstable();
        assert_eq!((got, waiting()), (left, "0".to_owned()));
    }
}

/// A process other than the one that bound a queue can go on with it, but only with that very socket.
#[test]
fn a_queue_is_adopted_by_its_own_socket_alone() {
    if !namespace() {
        return;
    }
    let first = Owner::open(QUEUE, 10).expect("first");
    let text = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").expect("queues");
    let portid: u32 = text.split_whitespace().nth(1).expect("port").parse().expect("number");
    let socket = first.as_fd().try_clone_to_owned().expect("dup");
    drop(first);
    let adopted = Owner::adopt(socket, QUEUE, portid).expect("adopted");
    assert!(matches!(Owner::open(QUEUE, 10), Err(OwnerError::Refused(QUEUE))), "it lives on");
    let other = Owner::open(QUEUE + 1, 10).expect("another queue").as_fd().try_clone_to_owned().expect("dup");
    assert!(matches!(Owner::adopt(other, QUEUE, portid), Err(OwnerError::Os { .. })));
    drop(adopted);
}

/// The kernel's answers to the dead worker's verdicts lie ahead of everything else in the socket.
#[test]
fn unread_answers_do_not_hide_what_a_dead_worker_held() {
    if !namespace() {
        return;
    }
    let (owner, mut socket, sender, receiver) = lab();
    for byte in 0..3 {
        sender.send_to(&[byte], "127.0.0.9:9999").expect("send");
    }
    assert_eq!(socket.receive().expect("receive"), 3);
    // The kernel forgets the first two, so their verdicts are answered ENOENT.
    owner.release(Orphans::Drop, last_id() - 1).expect("release");
    for _ in 0..2 {
        socket.next().expect("a packet").settle(Verdict::Accept);
    }
    socket.flush();
    std::mem::forget(socket);
    assert_eq!(waiting(), "1");
    owner.release(Orphans::Repeat, last_id()).expect("release");
    let mut next = QueueSocket::open(owner.as_fd().try_clone_to_owned().expect("dup"), QUEUE).expect("socket");
    assert_eq!(drain(&mut next, 1, |_| Verdict::Accept), 1);
    let mut byte = [0];
    assert_eq!((receiver.recv(&mut byte).ok(), byte), (Some(1), [2]));
    assert_eq!(waiting(), "0");
}

#[test]
fn a_queue_has_one_owner() {
    if !namespace() {
        return;
    }
    let first = Owner::open(QUEUE, 10).expect("first");
    assert!(matches!(Owner::open(QUEUE, 10), Err(OwnerError::Refused(QUEUE))));
    drop(first);
    Owner::open(QUEUE, 10).expect("free again");
}

/// The `nfq` crate, which shares no code with ours, reads a queue behind the socket's: each packet passes both.
#[test]
fn port_and_nfq_see_the_same_packets() {
    const NEXT: u16 = QUEUE + 1;
    if !namespace() {
        return;
    }
    let (_owner, mut socket, sender, receiver) = lab();
    let mut nfq = nfq::Queue::open().expect("nfq opens");
    nfq.bind(NEXT).expect("nfq binds");
    // As our own bind does. Without it the kernel completes checksums before it shows a packet
    // (nfqnl_build_packet_message).
    nfq.set_recv_gso(NEXT, true).expect("nfq takes GSO");
    nfq.set_nonblocking(true);
    run("iptables", &format!("-t mangle -A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num {NEXT}"));
    for (round, size) in [1, 100, 203, 204, 1400, 1469, 1470, 9000, 40_000, 65_503].into_iter().enumerate() {
        for (at, what) in ["accepted", "rewritten", "marked"].into_iter().enumerate() {
            sender.send_to(&vec![b'x'; size], "127.0.0.9:9999").expect("send");
            while socket.receive().expect("receive") == 0 {}
            let mut packet = socket.next().expect("a packet");
            if what == "rewritten" {
                // A UDP checksum of zero says "none" (RFC 768).
                packet.bytes()[26..28].fill(0);
                *packet.bytes().last_mut().expect("bytes") = b'!';
            }
            let (id, meta, bytes) = (packet.id(), packet.meta(), packet.bytes().to_vec());
            match what {
                "accepted" => packet.settle(Verdict::Accept),
                "rewritten" => packet.settle(Verdict::Rewrite),
                _ => packet.settle_marked(0x0005_0000, 0x00ff_0000),
            }
            socket.flush();
            // A verdict is carried out inside sendmsg, so the packet is in the next queue by now.
            let mut seen = nfq.recv().unwrap_or_else(|e| panic!("{size} {what}: {e}"));
            assert_eq!(seen.get_queue_num(), NEXT);
            assert_eq!(u32::try_from(3 * round + at + 1), Ok(id), "{size} {what}: ids rise by one");
            assert_eq!(seen.get_packet_id(), id, "{size} {what}");
            assert!(seen.get_payload() == bytes, "{size} {what}: other bytes");
            assert_eq!(seen.get_original_len(), bytes.len(), "{size} {what}");
            assert_eq!(seen.get_nfmark(), if what == "marked" { 0x0005_0000 } else { 0 }, "{size} {what}");
            // The kernel takes the checksum of rewritten content as complete (nfqnl_mangle).
            assert_eq!(seen.is_checksum_ready(), what == "rewritten" || !meta.partial, "{size} {what}");
            assert_eq!(seen.is_seg_offloaded(), meta.gso, "{size} {what}");
            seen.set_verdict(nfq::Verdict::Accept);
            nfq.verdict(seen).expect("nfq's verdict");
            let mut buffer = vec![0; size + 1];
            assert_eq!(receiver.recv(&mut buffer).expect("delivered"), size, "{what}");
            assert!(buffer[..size] == bytes[28..], "{size} {what}: delivered other bytes");
        }
    }
    assert_eq!((socket.faults(), waiting()), (Faults::default(), "0".to_owned()));
}
