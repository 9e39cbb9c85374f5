//! Connections that must outlast whatever happens to balancers: some that are asked again and again, some that stay idle, downloads
//! on their way, and some that begin meanwhile.

use super::lab::{Lab, Said, eventually};
use super::net::{Family, backend_of, dial_within, get, get_within};
use super::requests::{download, sum_of};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: Range<u16> = 20..25;
const IDLE: Range<u16> = 10..15;
const DOWNLOADS: Range<u16> = 40..45;
/// Of those that begin all the time.
const BEGINS: u16 = 37;
/// A download of some ten seconds.
const BYTES: u64 = 32 << 20;
const RATE: &str = "3M";
/// A TCP repeats what was lost while nobody had the VIP: after 0.2 s, and each time after twice as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that stays, and who answers on it.
pub(crate) struct KeptOpen {
    stream: TcpStream,
    client: IpAddr,
    backend: String,
}

impl KeptOpen {
    /// Some of both families.
    #[track_caller]
    pub(crate) fn some(lab: &Lab) -> Vec<Self> {
        Self::all(lab, CLIENTS, 80)
    }

    /// As many of other clients, to be left alone until the end.
    #[track_caller]
    pub(crate) fn idle(lab: &Lab) -> Vec<Self> {
        Self::all(lab, IDLE, 80)
    }

    /// One of each of these clients in both families.
    #[track_caller]
    pub(crate) fn all(lab: &Lab, clients: Range<u16>, port: u16) -> Vec<Self> {
        let each = Family::BOTH.into_iter().flat_map(|family| clients.clone().map(move |n| (family, n)));
        each.map(|(family, n)| Self::open(lab, family, n, port)).collect()
    }

    #[track_caller]
    fn open(lab: &Lab, family: Family, n: u16, port: u16) -> Self {
        let client = family.client(n);
        let (from, to) = (SocketAddr::new(client, 0), SocketAddr::new(family.vip(), port));
        let stream = lab.within("client", || dial_within(PATIENCE, from, to)).unwrap();
        let mut this = Self { stream, client, backend: String::new() };
        this.backend = this.ask().unwrap_or_else(|error| panic!("{client}: {error}"));
        this
    }

    /// Its client.
    pub(crate) fn client(&self) -> IpAddr {
        self.client
    }

    /// Who has answered at first.
    pub(crate) fn backend(&self) -> &str {
        &self.backend
    }

    /// Who answers.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
        let (mut answer, mut bytes) = (String::new(), [0; 1024]);
        // The body is one line.
        while !answer.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('\n')) {
            let length = self.stream.read(&mut bytes)?;
            if length == 0 {
                return Err(io::Error::other(format!("the connection has ended after {answer:?}")));
            }
            answer += &String::from_utf8_lossy(&bytes[..length]);
        }
        Ok(backend_of(answer.split_once("\r\n\r\n").unwrap().1, self.client))
    }
}

/// All connections go on at their backends, and new ones are served.
#[track_caller]
pub(crate) fn go_on(lab: &Lab, connections: &mut [KeptOpen]) {
    for kept in connections {
        let answers = kept.ask().unwrap_or_else(|error| panic!("{}: {error}", kept.client));
        assert_eq!(answers, kept.backend, "{} was moved", kept.client);
    }
    for family in Family::BOTH {
        lab.within("client", || get(family.client(30), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

/// Downloads on their way while `event` happens: at so low a rate that they outlast it. All of them come whole.
#[track_caller]
pub(crate) fn downloads_outlast(lab: &Lab, event: impl FnOnce()) {
    for download in downloads_during(lab, event) {
        download.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// The same, and what is wrong with those that do not come whole.
#[track_caller]
pub(crate) fn downloads_during(lab: &Lab, event: impl FnOnce()) -> Vec<Result<(), String>> {
    let sum = sum_of(lab, BYTES);
    let open = || {
        let all = lab.sh("client", "ss -Htn state established dst 192.0.2.100 or dst [2001:db8:1::100] | wc -l");
        all.trim().parse::<usize>().unwrap()
    };
    let before = open();
    std::thread::scope(|scope| {
        let one = |(family, n): (Family, u16)| {
            let (from, to) = (family.client(n), SocketAddr::new(family.vip(), 80));
            scope.spawn(move || download(lab, from, to, BYTES, RATE))
        };
        let each = Family::BOTH.into_iter().flat_map(|family| DOWNLOADS.map(move |n| (family, n)));
        let downloads: Vec<_> = each.map(one).collect();
        assert!(eventually(PATIENCE, || open() >= before + downloads.len()), "{before} before, {} now", open());
        // Until flow control has them where only the backend has something to say.
        std::thread::sleep(Duration::from_secs(1));
        event();
        let whole = |Said { code, out, err }| match code == Some(0) && out == sum {
            true => Ok(()),
            false => Err(format!("exit code {code:?}, sum {out}: {err}")),
        };
        downloads.into_iter().map(|download| whole(download.join().unwrap())).collect()
    })
}

/// Connections that begin while `act` runs, of each family one after the other. All of them are answered: a SYN that was lost comes
/// again.
#[track_caller]
pub(crate) fn while_some_begin(lab: &Lab, act: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let begin = |family: Family| {
        let mut begun = 0;
        while !over.load(Ordering::Relaxed) {
            let answer = lab.within("client", || get_within(PATIENCE, family.client(BEGINS), family.vip(), 80));
            answer.unwrap_or_else(|error| panic!("{family:?}, after {begun}: {error}"));
            begun += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        begun
    };
    let begun = std::thread::scope(|scope| {
        let each = Family::BOTH.map(|family| scope.spawn(move || begin(family)));
        let done = catch_unwind(AssertUnwindSafe(act));
        over.store(true, Ordering::Relaxed);
        let begun = each.map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done.unwrap_or_else(|panic| resume_unwind(panic));
        begun
    });
    println!("begun meanwhile, none failed: {begun:?}");
}

/// How long it takes, from `event` on, until each of ten clients gets a new connection, in rising order. A client tries again after
/// 300 ms.
#[track_caller]
pub(crate) fn served_again(lab: &Lab, event: impl FnOnce()) -> Vec<Duration> {
    let begin = Instant::now();
    event();
    let each: Vec<_> = Family::BOTH.into_iter().flat_map(|family| (31..36).map(move |n| (family, n))).collect();
    let one = |(family, n): (Family, u16)| {
        let (from, to) = (SocketAddr::new(family.client(n), 0), SocketAddr::new(family.vip(), 80));
        let serves = || lab.within("client", || dial_within(Duration::from_millis(300), from, to)).is_ok();
        assert!(eventually(PATIENCE, serves), "nobody serves {from}");
        begin.elapsed()
    };
    let mut times: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = each.into_iter().map(|client| scope.spawn(move || one(client))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    times.sort_unstable();
    println!("served again after, ms: {:?}", times.iter().map(Duration::as_millis).collect::<Vec<_>>());
    times
}
