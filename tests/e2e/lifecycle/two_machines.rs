//! Two balancers and Debian's keepalived, both configured as `scripts/ha/keepalived` ships it: maintenance by `loaded drain`,
//! an end by TERM, a crash, and a return. Each time the other balancer goes on with connections that it has never seen, also with
//! downloads, where the backend speaks first.

use crate::rig::lab::{Lab, Said, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, backend_of, dial_within, get};
use crate::rig::pair::{self, A, B};
use crate::rig::requests::{download, sum_of};
use crate::rig::servers::{backends, datagrams, echo, service};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CLIENTS: std::ops::Range<u16> = 20..25;
/// A download of some ten seconds.
const BYTES: u64 = 32 << 20;
const RATE: &str = "3M";
/// A TCP repeats what was lost while nobody had the VIP: after 0.2 s, and each time after twice as long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that stays, and who answers on it.
struct KeptOpen {
    stream: TcpStream,
    client: IpAddr,
    backend: String,
}

impl KeptOpen {
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

#[track_caller]
fn is_ready(loaded: &Loaded) {
    let is = || loaded.ask(&["health"]).code == Some(0);
    assert!(eventually(PATIENCE, is), "{:?}", loaded.ask(&["health"]));
}

/// All connections go on at their backends, and new ones are served.
#[track_caller]
fn go_on(lab: &Lab, connections: &mut [KeptOpen]) {
    for kept in connections {
        assert_eq!(kept.ask(), kept.backend, "{} was moved", kept.client);
    }
    for family in Family::BOTH {
        lab.within("client", || get(family.client(30), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
}

/// Downloads on their way while `event` happens: at so low a rate that they outlast it.
#[track_caller]
fn downloads_outlast(lab: &Lab, sum: &str, event: impl FnOnce()) {
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
            assert_eq!((code, out.as_str()), (Some(0), sum), "{err}");
        }
    });
}

#[test]
fn connections_go_on_through_hand_over_stop_crash_and_return() {
    let Some(lab) = Lab::up() else { return };
    pair::up(&lab);
    let echoes = service("echo", "udp", 7007, "strategy = \"maglev\"\nadopt = true") + &backends(&[1, 2, 3], "");
    let mut a = pair::serve(&lab, A, &echoes);
    let mut b = pair::serve(&lab, B, &echoes);
    is_ready(&a);
    pair::keepalived(&lab, A);
    pair::is_active(&lab, A);
    is_ready(&b);
    pair::keepalived(&lab, B);
    let open = |family| CLIENTS.map(move |n| (family, n));
    let each = Family::BOTH.into_iter().flat_map(open);
    let mut connections: Vec<_> = each.map(|(family, n)| KeptOpen::open(&lab, family, n)).collect();
    let flows = Family::BOTH.map(|family| datagrams(&lab, family, 25, 7007));
    let echoed = || flows.each_ref().map(|socket| echo(socket, PATIENCE).unwrap());
    let echoed_at_first = echoed();

    let drained = a.ask(&["drain"]);
    assert!(drained.code == Some(0) && drained.out.ends_with("it has ended\n"), "{drained:?}");
    assert_eq!(a.wait().code(), Some(0), "{}", a.log());
    pair::is_active(&lab, B);
    go_on(&lab, &mut connections);

    let mut a = pair::serve(&lab, A, &echoes);
    is_ready(&a);
    b.signal(Signal::SIGTERM);
    pair::is_active(&lab, A);
    assert_eq!(b.wait().code(), Some(0), "{}", b.log());
    assert!(b.log().contains("the VIPs have left this host: ending"), "{}", b.log());
    go_on(&lab, &mut connections);

    let b = pair::serve(&lab, B, &echoes);
    is_ready(&b);
    let sum = sum_of(&lab, BYTES);
    downloads_outlast(&lab, &sum, || {
        let begin = Instant::now();
        pair::cables(&lab, A, "down");
        let (from, vip) = (SocketAddr::new(Family::V4.client(31), 0), SocketAddr::new(Family::V4.vip(), 80));
        let serves = || lab.within("client", || dial_within(Duration::from_millis(300), from, vip)).is_ok();
        assert!(eventually(PATIENCE, serves), "nobody serves:\n{}", pair::said(&lab, B));
        println!("served again {:.1} s after the crash", begin.elapsed().as_secs_f64());
        pair::is_active(&lab, B);
    });
    go_on(&lab, &mut connections);

    assert_eq!(echoed(), echoed_at_first);

    let before = pair::said(&lab, A).len();
    pair::cables(&lab, A, "up");
    is_ready(&a);
    let returned = || pair::said(&lab, A)[before..].contains("Entering BACKUP STATE");
    assert!(eventually(PATIENCE, returned), "{}", pair::said(&lab, A));
    pair::is_active(&lab, B);
    go_on(&lab, &mut connections);
    assert_eq!(a.end(Signal::SIGTERM).code(), Some(0), "without a VIP it does not wait: {}", a.log());
}
