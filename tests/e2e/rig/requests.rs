//! What clients ask of the virtual IP: small requests, downloads, and load by `wrk`.

use super::lab::{Lab, Said};
use super::net::{Family, backend_of, get};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

const CLIENTS: std::ops::Range<u16> = 10..40;

/// Where each client's HTTP requests go; it must be one place for each.
#[track_caller]
pub(crate) fn places(lab: &Lab, family: Family, requests: usize) -> BTreeMap<IpAddr, String> {
    let one = |client| {
        let answers = (0..requests).map(|_| get(client, family.vip(), 80).map(|answer| backend_of(&answer, client)));
        let backends: BTreeSet<_> = answers.map(|answer| answer.unwrap_or_else(|e| panic!("{client}: {e}"))).collect();
        assert_eq!(backends.len(), 1, "{client} does not stay with its backend: {backends:?}");
        (client, backends.into_iter().next().unwrap())
    };
    lab.within("client", || CLIENTS.map(|n| one(family.client(n))).collect())
}

/// What the backends serve, and where the tests find it.
fn data() -> String {
    std::env::var("LAB_DATA").unwrap_or("/var/cache/loaded-lab".to_owned()) + "/big"
}

/// What `sha256sum` says of the first bytes of the big file.
pub(crate) fn sum_of(lab: &Lab, bytes: u64) -> String {
    lab.sh("client", &format!("head -c {bytes} {} | sha256sum", data()))
}

/// `http://ADDRESS:PORT/PATH`, whatever the family.
pub(crate) fn url(vip: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}/{path}", SocketAddr::new(vip, port))
}

/// The first bytes of the big file, at a rate of curl's. Its output is their sum if all of them came.
pub(crate) fn download(lab: &Lab, from: IpAddr, to: SocketAddr, bytes: u64, rate: &str) -> Said {
    let (range, url) = (format!("0-{}", bytes - 1), url(to.ip(), to.port(), "big"));
    let curl =
        format!("curl -gsS --interface {from} --limit-rate {rate} --max-time 100 -r {range} '{url}' | sha256sum");
    lab.exec("client", &["bash", "-o", "pipefail", "-c", &curl])
}

/// Sends so many echo requests with `size` bytes at once, and each is answered. One after the other, ping(8) would wait for the
/// last answer only for two round trips or the time between two requests, and for -W only if none has come.
#[track_caller]
pub(crate) fn pings(lab: &Lab, who: &str, (from, to): (IpAddr, IpAddr), count: u16, size: u16) {
    let words = format!("ping -q -c {count} -l {count} -i 2 -W 2 -s {size} -I {from} {to}");
    let said = lab.exec(who, &words.split(' ').collect::<Vec<_>>());
    assert!(said.out.contains(&format!(" {count} received, 0% packet loss")), "{words}: {}{}", said.out, said.err);
}

/// What came before a reset waits for the reader: in the client's kernel, and in curl, which reads without a pause as long as there
/// is something and waits afterwards, until that was no more than its rate. Here both have little.
pub(crate) fn small_buffers(lab: &Lab) {
    lab.sh("client", "sysctl -qw net.ipv4.tcp_rmem='4096 65536 65536'");
    for who in ["b1", "b2", "b3"] {
        lab.sh(who, "tc qdisc add dev eth0 root tbf rate 40mbit burst 64k limit 4m");
    }
}

/// `wrk` on connections that stay, for so many seconds: there must be not one error.
#[track_caller]
pub(crate) fn wrk(lab: &Lab, url: &str, connections: u16, seconds: u64) {
    let (connections, seconds) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let said = lab.exec("client", &["wrk", "-t1", &connections, &seconds, url]);
    assert_eq!(said.code, Some(0), "wrk: {}", said.err);
    assert!(["Socket errors", "Non-2xx"].iter().all(|problem| !said.out.contains(problem)), "{url}: {}", said.out);
    println!("{}", said.out.lines().find(|line| line.contains(" requests in ")).unwrap_or_default().trim());
}
