//! A system at work whose worker 0 can be taken over by a packet, and decent clients of worker 1.

use super::outside::View;
use crate::rig::lab::{Lab, double, eventually};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, get};
use nix::errno::Errno;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Echo of the backends.
pub(crate) const ECHO: u16 = 7007;
/// A life of a second is no short one: the next is begun at once.
const HEALTHY_LIFE: Duration = Duration::from_millis(1020);
/// For a death, and for a new life; the rest is for a busy machine.
pub(crate) const RECOVERY_TIMEOUT: Duration = Duration::from_secs(8);
/// `worker/src/hostile.rs`
pub(crate) const MAGIC: &[u8; 16] = b"taken-by-packet\n";
const ANSWER: usize = 44;

/// What an order is aimed at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    pub(crate) process: u32,
    pub(crate) signal: u16,
}

/// What the sender of an order hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The worker lives; what the kernel has answered it.
    Answer(i32),
    /// The datagram has met the balancer's own kernel.
    Refused,
    Nothing,
}

/// It ends before its lab.
pub(crate) struct System {
    pub(crate) loaded: Loaded,
    pub(crate) lab: Lab,
    /// Of both families: a client of worker 0, and one of worker 1.
    clients: [(u16, u16); 2],
    pub(crate) workers: [u32; 2],
    pub(crate) prober: u32,
}

/// Everything to the virtual IPs, by address: `prefix6` is what makes clients of one network clients of two workers.
pub(crate) fn service(backends: u16) -> String {
    let each = |family: Family| {
        (1..=backends).map(move |n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n)))
    };
    let backends: String = Family::BOTH.into_iter().flat_map(each).collect();
    format!(
        "cores = \"0-1\"\nflows = 2048\nclients = 2048\ndrain = \"3s\"\n[[service]]\nname = \"all\"\n\
         vip = [\"{}\", \"{}\"]\nprotocol = \"any\"\naffinity = {{ by = \"client\", prefix4 = 32, prefix6 = 128 }}\n\
         check = {{ kind = \"tcp\", port = 80, interval = \"500ms\" }}\n{backends}",
        Family::V4.vip(),
        Family::V6.vip()
    )
}

impl System {
    pub(crate) fn up() -> Option<Self> {
        Self::up_with("")
    }

    /// With these lines at the top of its configuration.
    pub(crate) fn up_with(keys: &str) -> Option<Self> {
        let binary = double()?;
        let lab = Lab::up()?;
        let config = lab.file("loaded.toml", &format!("{keys}{}", service(3)));
        let loaded = Loaded::spawn_as(&binary, &lab, |command| {
            command.args(["-D", "-c", &config]);
        })
        .until_it_serves();
        assert!(eventually(RECOVERY_TIMEOUT, || loaded.prober().is_some()));
        let clients = Family::BOTH.map(|family| [0, 1].map(|worker| client_of(&loaded, family, worker)).into());
        let workers = pids(&loaded).map(|pid| pid.expect("two workers"));
        let prober = loaded.prober().unwrap();
        let system = Self { loaded, lab, clients, workers, prober };
        // The first death of a while lets what the dead one held come again, and with it the next death.
        std::thread::sleep(HEALTHY_LIFE);
        Some(system)
    }

    pub(crate) fn victim(&self, family: Family) -> IpAddr {
        family.client(self.clients[usize::from(family == Family::V6)].0)
    }

    pub(crate) fn decent(&self, family: Family) -> IpAddr {
        family.client(self.clients[usize::from(family == Family::V6)].1)
    }

    pub(crate) fn at_supervisor(&self) -> Aim {
        Aim { process: self.loaded.pid(), signal: 9 }
    }

    /// Sends an order to worker 0. An answer is waited for as long as `limit`, and as nothing has ended the worker.
    pub(crate) fn order(&self, family: Family, name: &str, aim: Aim, limit: Duration) -> Heard {
        let before = self.loaded.log().len();
        let ended = || !self.deaths_since(before).is_empty();
        self.lab.within("client", || {
            let socket = UdpSocket::bind((self.victim(family), 0)).unwrap();
            socket.connect(SocketAddr::new(family.vip(), ECHO)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            socket.send(&payload(name, aim)).unwrap();
            let (end, mut text) = (Instant::now() + limit, [0; 512]);
            while Instant::now() < end && !ended() {
                match socket.recv(&mut text) {
                    Ok(length) => return Heard::Answer(answer(&text[..length])),
                    Err(error) if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) => return Heard::Refused,
                    Err(_) => {}
                }
            }
            Heard::Nothing
        })
    }

    /// The lines on deaths of worker 0 behind this place of the log.
    pub(crate) fn deaths_since(&self, place: usize) -> Vec<String> {
        let log = self.loaded.log();
        let lines = log[place..].split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let deaths = lines.filter(|line| {
            line.contains("worker[0]: ") && (line.contains(": ended with code ") || line.contains(": killed by "))
        });
        deaths.map(|line| line.trim_end().to_owned()).collect()
    }

    /// Waits until a worker 0 serves that has lived for a second.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        let grown = || age(self.serving()).is_some_and(|age| age > HEALTHY_LIFE);
        assert!(eventually(2 * RECOVERY_TIMEOUT, grown), "worker 0 does not come back:\n{}", self.tail());
        self.workers[0] = self.serving();
    }

    /// Process id of worker 0 once it serves, by the log; 0 while there is none.
    fn serving(&self) -> u32 {
        let log = self.loaded.log();
        let of_zero = log.lines().rev().find(|line| {
            line.contains("worker[0]: ")
                && ["ready again, as pid ", ": ended with code ", ": killed by ", "; killing it"]
                    .iter()
                    .any(|words| line.contains(words))
        });
        match of_zero {
            None => self.workers[0],
            Some(line) => line.rsplit_once("ready again, as pid ").map_or(0, |(_, pid)| pid.trim().parse().unwrap()),
        }
    }

    /// Runs `attempt` while decent clients of worker 1 ask; none may be disappointed.
    #[track_caller]
    pub(crate) fn under_traffic(&mut self, attempt: impl FnOnce(&mut Self)) {
        let over = AtomicBool::new(false);
        let namespace = self.lab.namespace("client");
        let froms = Family::BOTH.map(|family| (family, self.decent(family)));
        let fetch = |family: Family, from: IpAddr| {
            super::enter(&namespace);
            let (mut served, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                match get(from, family.vip(), 80) {
                    Ok(_) => served += 1,
                    Err(error) => failed.push(error.to_string()),
                }
                std::thread::sleep(Duration::from_millis(25));
            }
            (served, failed)
        };
        let (served, failed) = std::thread::scope(|scope| {
            let fetch = &fetch;
            let threads: Vec<_> = froms.map(|(family, from)| scope.spawn(move || fetch(family, from))).into();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(self)));
            over.store(true, Ordering::Relaxed);
            let each = threads.into_iter().map(|thread| thread.join().unwrap());
            let sum =
                each.fold((0, Vec::new()), |sum: (u32, Vec<String>), one| (sum.0 + one.0, [sum.1, one.1].concat()));
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            sum
        });
        println!("decent clients: {served} served, {} failed", failed.len());
        assert!(failed.is_empty() && served > 20, "{served} served, {failed:?}\n{}", self.tail());
    }

    /// What must be as it was, whatever worker 0 has done.
    #[track_caller]
    pub(super) fn check(&self, before: &View, after_what: &str) {
        assert!(lives(self.loaded.pid()), "{after_what}: the supervisor is dead");
        assert_eq!(pids(&self.loaded)[1], Some(self.workers[1]), "{after_what}: worker 1 is another\n{}", self.tail());
        assert_eq!(self.loaded.prober(), Some(self.prober), "{after_what}: the prober is another\n{}", self.tail());
        // The answers to the prober are none of its business.
        assert!(!self.loaded.log().contains(" down: "), "{after_what}: a backend is down\n{}", self.tail());
        let changes = View::take(&self.lab).changes(before);
        assert!(changes.is_empty(), "{after_what}: changed outside: {changes:#?}\n{}", self.tail());
    }

    pub(crate) fn tail(&self) -> String {
        let log = self.loaded.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

/// Of both workers, where there is one.
pub(crate) fn pids(loaded: &Loaded) -> [Option<u32>; 2] {
    let core = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let workers = loaded.workers();
    // "--role worker UID GID NAME CORE …", with zeros between the words.
    let of = |wanted: &str| workers.iter().copied().find(|pid| core(pid).split('\0').nth(6) == Some(wanted));
    [of("0"), of("1")]
}

/// By the kernel's clock ticks, of which a second has a hundred (proc(5), /proc/PID/stat, field 22).
fn age(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now = Duration::from_secs_f64(uptime.split(' ').next()?.parse().ok()?);
    Some(now.saturating_sub(Duration::from_millis(10 * ticks)))
}

fn client_of(loaded: &Loaded, family: Family, worker: u16) -> u16 {
    let end = |address: IpAddr, port: u16| SocketAddr::new(address, port).to_string();
    let place = |n: u16| {
        loaded.json(&["explain", "udp", &end(family.client(n), 5000), &end(family.vip(), ECHO)])["worker"].clone()
    };
    (10..50).find(|n| place(*n) == worker).expect("a client of each worker")
}

/// What takes worker 0 over.
pub(crate) fn payload(name: &str, aim: Aim) -> Vec<u8> {
    let mut link = [0; 16];
    link[..4].copy_from_slice(b"eth0");
    let parts: [&[u8]; 8] = [
        MAGIC,
        &aim.process.to_be_bytes(),
        &aim.signal.to_be_bytes(),
        &0_u16.to_be_bytes(),
        &1_u16.to_be_bytes(),
        &[0, 0],
        &link,
        // No answer yet.
        &[0x80, 0, 0x7f, 0xff, 0, 0, 0xff, 0xff],
    ];
    [&parts.concat(), name.as_bytes()].concat()
}

/// "NAME CLIENT PAYLOAD"
#[track_caller]
fn answer(text: &[u8]) -> i32 {
    let at = text.windows(MAGIC.len()).position(|bytes| bytes == MAGIC).expect("the order comes back") + ANSWER;
    let [a, b, na, nb, c, d, nc, nd] = text[at..at + 8].try_into().unwrap();
    assert_eq!([na, nb, nc, nd], [!a, !b, !c, !d]);
    i32::from_be_bytes([a, b, c, d])
}
