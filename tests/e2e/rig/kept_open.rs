//! Connections that must outlast whatever happens to balancers: some that stay open, and downloads on their way.

use super::lab::{Lab, Said, eventually};
use super::net::{Family, backend_of, dial_within, get};
use super::requests::{download, sum_of};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CLIENTS: std::ops::Range<u16> = 20..25;
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
        let each = Family::BOTH.into_iter().flat_map(|family| CLIENTS.map(move |n| (family, n)));
        each.map(|(family, n)| Self::open(lab, family, n)).collect()
    }

    #[track_caller]
    fn open(lab: &Lab, family: Family, n: u16) -> Self {
        let client = family.client(n);
        let stream = lab
            .within("client", || dial_within(PATIENCE, SocketAddr::new(client, 0), SocketAddr::new(family.vip(), 80)))
            .unwrap();
        let mut this = Self { stream, client, backend: String::new() };
        this.backend = this.ask();
        this
    }

    /// Who answers.
    #[track_caller]
    fn ask(&mut self) -> String {
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n").unwrap();
        let (mut answer, mut bytes) = (String::new(), [0; 1024]);
        // The body is one line.
        while !answer.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('\n')) {
            let length = self.stream.read(&mut bytes).unwrap_or_else(|e| panic!("{}: {e}", self.client));
            assert!(length > 0, "{}: the connection has ended after {answer:?}", self.client);
            answer += &String::from_utf8_lossy(&bytes[..length]);
        }
        backend_of(answer.split_once("\r\n\r\n").unwrap().1, self.client)
    }
}

/// All connections go on at their backends, and new ones are served.
#[track_caller]
pub(crate) fn go_on(lab: &Lab, connections: &mut [KeptOpen]) {
    for kept in connections {
        assert_eq!(kept.ask(), kept.backend, "{} was moved", kept.client);
    }
    for family in Family::BOTH {
        lab.within("client", || get(family.client(30), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

/// Downloads on their way while `event` happens: at so low a rate that they outlast it.
#[track_caller]
pub(crate) fn downloads_outlast(lab: &Lab, event: impl FnOnce()) {
    let sum = sum_of(lab, BYTES);
    std::thread::scope(|scope| {
        let one = |(family, n): (Family, u16)| {
            let (from, to) = (family.client(n), SocketAddr::new(family.vip(), 80));
            scope.spawn(move || download(lab, from, to, BYTES, RATE))
        };
        let each = Family::BOTH.into_iter().flat_map(|family| (40..43).map(move |n| (family, n)));
        let downloads: Vec<_> = each.map(one).collect();
        let begun = || lab.sh("client", "ss -Htn state established dst 192.0.2.100 or dst [2001:db8:1::100] | wc -l");
        let open = CLIENTS.len() * 2 + downloads.len();
        assert!(eventually(PATIENCE, || begun().trim().parse::<usize>().unwrap() >= open), "{}", begun());
        // Until flow control has them where only the backend has something to say.
        std::thread::sleep(Duration::from_secs(1));
        event();
        for download in downloads {
            let Said { code, out, err } = download.join().unwrap();
            assert_eq!((code, out.as_str()), (Some(0), sum.as_str()), "{err}");
        }
    });
}

/// How long it takes, from `event` on, until each of ten clients gets a new connection, in rising order. A client tries again after
/// 300 ms.
#[track_caller]
pub(crate) fn served_again(lab: &Lab, event: impl FnOnce()) {
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
}
