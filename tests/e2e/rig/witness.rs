//! Clients of every kind that must not notice what happens to `loaded`: requests on 64 keep-alive connections, twenty downloads
//! at a time, new connections one after the other, and numbered datagrams. Both families.

use super::lab::Lab;
use super::machine::without_room;
use super::net::{Family, get};
use super::requests::{download, sum_of, url};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Numbered datagrams a second: the queues (16384 packets each) hold those of many seconds.
pub(crate) const RATE: u64 = 1000;
/// Pause between two troubles: a client gives up after three seconds, and a request that meets both would be late.
pub(crate) const REST: Duration = Duration::from_secs(1);
/// Milliseconds between an answer and the next request of its connection: 1600 requests a second. Without a pause `wrk` has half of
/// the machine, and most of a test's time what is tried waits for a core.
const PAUSE: u32 = 40;
/// Bytes of a download, which takes some three seconds at the rate below.
const BYTES: u64 = 6 << 20;
const DOWNLOAD_RATE: &str = "2M";
/// Downloads of each family at a time.
const DOWNLOADS: u16 = 10;
/// Where the echo of numbered datagrams listens.
pub(crate) const ECHO: u16 = 7008;
/// Sockets of each family that send numbered datagrams: enough clients for every worker.
const SENDERS: u16 = 8;
/// How often datagrams are sent.
const TICK: Duration = Duration::from_millis(1);
/// Datagrams of each sender in flight while capacity is measured: enough for full batches, far fewer than a queue holds.
const WINDOW: u64 = 32;
/// How long capacity is measured, and from when on.
const MEASURED: Duration = Duration::from_secs(3);
const WARM: Duration = Duration::from_secs(1);
/// Receive buffer, bytes: more than can ever wait.
const BUFFER: usize = 64 << 20;

/// What clients have seen.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Lines of `wrk`, one a family.
    pub(crate) wrk: Vec<String>,
    pub(crate) fetches: u64,
    pub(crate) downloads: u64,
    /// Everything that went wrong.
    pub(crate) errors: Vec<String>,
}

impl Witness {
    /// Runs the clients from half a second before `trouble` to half a second after it.
    pub(crate) fn of(lab: &Lab, trouble: impl FnOnce()) -> Self {
        let want = sum_of(lab, BYTES);
        let over = AtomicBool::new(false);
        let mut this = Self::default();
        let wrks = Family::BOTH.map(|family| wrk(lab, family));
        std::thread::scope(|scope| {
            let (over, want) = (&over, &want);
            let fetches = Family::BOTH.map(|family| scope.spawn(move || fetch(lab, family, over)));
            let downloads = Family::BOTH.map(|family| {
                (0..DOWNLOADS).map(|n| scope.spawn(move || downloads(lab, family, n, want, over))).collect::<Vec<_>>()
            });
            let stop = Stop(over);
            std::thread::sleep(Duration::from_millis(500));
            trouble();
            std::thread::sleep(Duration::from_millis(500));
            drop(stop);
            for fetches in fetches {
                let (done, errors) = fetches.join().unwrap();
                this.fetches += done;
                this.errors.extend(errors);
            }
            for download in downloads.into_iter().flatten() {
                let (done, errors) = download.join().unwrap();
                this.downloads += done;
                this.errors.extend(errors);
            }
        });
        for wrk in wrks {
            let said = end_of(wrk);
            if !said.contains(" requests in ") || said.contains("Socket errors") || said.contains("Non-2xx") {
                this.errors.push(format!("wrk: {said}"));
            }
            this.wrk
                .push(said.lines().find(|line| line.contains(" requests in ")).unwrap_or_default().trim().to_owned());
        }
        println!("{:?}; {} new connections, {} downloads", this.wrk, this.fetches, this.downloads);
        this
    }

    /// Asserts that no client saw an error, and that there was enough traffic to see one.
    #[track_caller]
    pub(crate) fn has_seen_nothing(&self) {
        let errors = &self.errors[..self.errors.len().min(10)];
        assert!(self.errors.is_empty(), "{} errors: {errors:#?}", self.errors.len());
        assert!(self.fetches > 50 && self.downloads >= 20, "too little traffic to tell: {self:?}");
    }
}

/// Ends the clients, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Longer than anything may take here: an answer that is late is no error, one that never comes is.
fn wrk(lab: &Lab, family: Family) -> Child {
    let (namespace, url) = (lab.namespace("client"), url(family.vip(), 80, "small"));
    let script = lab.file("pause.lua", &format!("function delay() return {PAUSE} end\n"));
    let mut command = Command::new("ip");
    command.args([
        "netns",
        "exec",
        &namespace,
        "wrk",
        "-t1",
        "-c64",
        "-d600s",
        "--timeout",
        "15s",
        "-s",
        &script,
        &url,
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn end_of(mut wrk: Child) -> String {
    kill(Pid::from_raw(i32::try_from(wrk.id()).unwrap()), Signal::SIGINT).unwrap();
    let mut said = String::new();
    wrk.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    wrk.wait().unwrap();
    said
}

fn fetch(lab: &Lab, family: Family, over: &AtomicBool) -> (u64, Vec<String>) {
    lab.within("client", || {
        let (mut done, mut errors) = (0, Vec::new());
        while !over.load(Relaxed) {
            let client = family.client(10 + u16::try_from(done % 40).unwrap());
            errors.extend(get(client, family.vip(), 80).err().map(|error| format!("{client}: {error}")));
            done += 1;
        }
        (done, errors)
    })
}

fn downloads(lab: &Lab, family: Family, n: u16, want: &str, over: &AtomicBool) -> (u64, Vec<String>) {
    let (mut done, mut errors) = (0, Vec::new());
    while !over.load(Relaxed) {
        let client = family.client(10 + n * 4);
        let said = download(lab, client, SocketAddr::new(family.vip(), 80), BYTES, DOWNLOAD_RATE);
        if said.code != Some(0) || said.out != want {
            errors.push(format!("{client}: download: {said:?}"));
        }
        done += 1;
    }
    (done, errors)
}

/// Numbered datagrams sent, and those answered.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Packets of any lab that the machine itself has dropped meanwhile: see [`without_room`].
    without_room: u64,
}

impl Datagrams {
    #[track_caller]
    pub(crate) fn none_is_lost(&self, lab: &Lab) {
        let Self { sent, answered, without_room } = self;
        let lost = sent - answered;
        assert_eq!(
            lost,
            0,
            "{lost} of {sent} lost; backlogs had no room for {without_room} of all labs\n{}",
            lab.queues()
        );
    }
}

/// Runs `act` while every backend echoes datagrams.
pub(crate) fn with_echo<T>(lab: &Lab, act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = &over;
        for (who, n) in [("b1", 1), ("b2", 2), ("b3", 3)] {
            for family in Family::BOTH {
                let socket = lab.within(who, || buffered(SocketAddr::new(family.backend(n), ECHO)));
                scope.spawn(move || {
                    let mut text = [0; 64];
                    while !over.load(Relaxed) {
                        if let Ok((length, from)) = socket.recv_from(&mut text) {
                            let _ = socket.send_to(&text[..length], from);
                        }
                    }
                });
            }
        }
        let _stop = Stop(over);
        act()
    })
}

/// Datagrams a second that the machine can sustain: clients send another datagram for each answer. A client that sends
/// without waiting only measures what the queues absorb.
pub(crate) fn capacity(lab: &Lab) -> u64 {
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for family in Family::BOTH {
            for n in 0..SENDERS {
                let answered = &answered;
                scope.spawn(move || {
                    let socket = lab.within("client", || sender(family, n));
                    answered.fetch_add(closed_loop(&socket), Relaxed);
                });
            }
        }
    });
    answered.into_inner() / MEASURED.as_secs()
}

/// One of these clients; returns its answers within the time that is measured.
fn closed_loop(socket: &UdpSocket) -> u64 {
    let (began, mut count, mut text) = (Instant::now(), 0, [0; 64]);
    let send = |number: u64| (0..number).for_each(|n| drop(socket.send(&n.to_be_bytes())));
    send(WINDOW);
    while began.elapsed() < WARM + MEASURED {
        match socket.recv(&mut text) {
            Ok(_) => {
                count += u64::from(began.elapsed() >= WARM);
                send(1);
            }
            Err(_) => send(WINDOW),
        }
    }
    // What is on its way still finds somebody.
    (1..WINDOW).for_each(|_| drop(socket.recv(&mut text)));
    count
}

/// Sends `rate` datagrams a second in all to the echo until `trouble` is over. Each has a number, and each number that
/// comes back counts once.
pub(crate) fn datagrams(lab: &Lab, rate: u64, trouble: impl FnOnce()) -> Datagrams {
    let over = AtomicBool::new(false);
    let senders = u64::from(SENDERS) * 2;
    let (sent, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let before = without_room();
    std::thread::scope(|scope| {
        let (over, sent, answered) = (&over, &sent, &answered);
        for family in Family::BOTH {
            for n in 0..SENDERS {
                scope.spawn(move || {
                    let socket = lab.within("client", || sender(family, n));
                    let (mine, back) = stream(&socket, rate / senders, over);
                    sent.fetch_add(mine, Relaxed);
                    answered.fetch_add(back, Relaxed);
                });
            }
        }
        let stop = Stop(over);
        trouble();
        drop(stop);
    });
    Datagrams { sent: sent.into_inner(), answered: answered.into_inner(), without_room: without_room() - before }
}

/// One client; returns how many datagrams it sent, and how many different numbers came back.
fn stream(socket: &UdpSocket, rate: u64, over: &AtomicBool) -> (u64, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let (mut seen, mut count, mut text) = (Vec::new(), 0, [0; 64]);
            loop {
                match socket.recv(&mut text) {
                    Ok(_) => {
                        let number = u64::from_be_bytes(text[..8].try_into().unwrap());
                        let (word, bit) = (usize::try_from(number / 64).unwrap(), 1_u64 << (number % 64));
                        if word >= seen.len() {
                            seen.resize(word + 1024, 0);
                        }
                        count += u64::from(seen[word] & bit == 0);
                        seen[word] |= bit;
                    }
                    // Nothing has come for as long as a socket waits.
                    Err(_) if done.load(Relaxed) => return count,
                    Err(_) => {}
                }
            }
        });
        let (began, mut sent) = (Instant::now(), 0_u64);
        while !over.load(Relaxed) {
            let elapsed = u64::try_from(began.elapsed().as_micros()).unwrap();
            let due = rate * elapsed / 1_000_000;
            while sent < due {
                // The socket may be full.
                if socket.send(&sent.to_be_bytes()).is_err() {
                    break;
                }
                sent += 1;
            }
            std::thread::sleep(TICK);
        }
        done.store(true, Relaxed);
        (sent, answers.join().unwrap())
    })
}

/// A client's socket for numbered datagrams. To be called in the client's namespace.
fn sender(family: Family, n: u16) -> UdpSocket {
    let socket = buffered(SocketAddr::new(family.client(10 + n), 0));
    socket.connect(SocketAddr::new(family.vip(), ECHO)).unwrap();
    socket
}

fn buffered(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).unwrap();
    // Longer than any trouble here keeps a packet waiting.
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket
}
