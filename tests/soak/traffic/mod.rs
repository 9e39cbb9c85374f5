//! Clients of every kind and both families: requests over kept and over new connections, downloads whose hashes are
//! compared, and numbered datagrams that must have one answer each.

mod datagrams;
mod requests;

use crate::report::Report;
use crate::rig::lab::Lab;
use crate::rig::net::Family;
use crate::rig::requests::{download, sum_of};
use datagrams::Datagrams;
use requests::{Asked, Client};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

/// Last numbers of the clients' addresses.
const STEADY: Range<u16> = 10..14;
const NEW: Range<u16> = 10..12;
const MORTAL: Range<u16> = 12..14;
const DATAGRAMS: Range<u16> = 20..28;
const DOWNLOADS: Range<u16> = 30..33;
/// Connections of each such client of the first three kinds.
const CONNECTIONS: u16 = 4;
/// Mean time between two requests of a connection.
const PAUSE: Duration = Duration::from_millis(20);
const MORTAL_PAUSE: Duration = Duration::from_millis(40);
/// Size of a download: three seconds at the rate below.
const BYTES: u64 = 6 << 20;
const DOWNLOAD_RATE: &str = "2M";

/// Counters shared by running clients.
#[derive(Default)]
pub(crate) struct Counts {
    /// Answers to requests.
    pub(crate) answers: AtomicU64,
    /// The number of the next datagram.
    datagrams: AtomicU64,
}

pub(crate) struct Traffic<'scope> {
    steady: Vec<ScopedJoinHandle<'scope, Asked>>,
    new: Vec<ScopedJoinHandle<'scope, Asked>>,
    mortal: Vec<ScopedJoinHandle<'scope, Asked>>,
    downloads: Vec<ScopedJoinHandle<'scope, Downloads>>,
    datagrams: Vec<ScopedJoinHandle<'scope, Datagrams>>,
}

#[derive(Default)]
struct Downloads {
    right: u64,
    wrong: Vec<String>,
}

/// Gives the client host more ports, and reuses them sooner.
pub(crate) fn prepare(lab: &Lab) {
    lab.sh("client", "sysctl -q -w net.ipv4.ip_local_port_range='1024 65535' net.ipv4.tcp_tw_reuse=1");
}

impl<'scope> Traffic<'scope> {
    /// Starts all clients; they end when `over` is set.
    pub(crate) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        lab: &'env Lab,
        counts: &'env Counts,
        over: &'env AtomicBool,
    ) -> Self {
        let requests = |hosts: Range<u16>, port, stays, pause| {
            let all = clients(hosts).flat_map(|client| (0..CONNECTIONS).map(move |_| client));
            let begin = |(family, n): (Family, u16)| {
                let to = SocketAddr::new(family.vip(), port);
                let client = Client { from: family.client(n), to, stays, pause };
                scope.spawn(move || lab.within("client", || client.ask(&counts.answers, over)))
            };
            all.map(begin).collect()
        };
        let sum = sum_of(lab, BYTES);
        let download = |(family, n)| {
            let sum = sum.clone();
            scope.spawn(move || downloads(lab, family, n, &sum, over))
        };
        let datagram = |(family, n)| {
            scope.spawn(move || lab.within("client", || datagrams::stream(family, n, &counts.datagrams, over)))
        };
        Self {
            steady: requests(STEADY, 80, true, PAUSE),
            new: requests(NEW, 80, false, PAUSE),
            mortal: requests(MORTAL, 81, true, MORTAL_PAUSE),
            downloads: clients(DOWNLOADS).map(download).collect(),
            datagrams: clients(DATAGRAMS).map(datagram).collect(),
        }
    }

    /// Waits until all clients have ended, and judges what they have seen. The machine itself dropped `without_room` packets
    /// between two interfaces, for want of room in its backlogs.
    pub(crate) fn end(self, without_room: impl FnOnce() -> u64, report: &mut Report) {
        println!("clients");
        let steady = Asked::sum(self.steady);
        report.expect(steady.is_perfect(), &format!("connections that stay: {steady}"), || steady.first_errors());
        let new = Asked::sum(self.new);
        report.expect(new.is_perfect(), &format!("new connections: {new}"), || new.first_errors());
        let mortal = Asked::sum(self.mortal);
        report.verdict(mortal.done > 0, &format!("backends that die (errors are only counted): {mortal}"));
        let mut all = Downloads::default();
        for one in self.downloads.into_iter().map(|thread| thread.join().unwrap()) {
            all.right += one.right;
            all.wrong.extend(one.wrong);
        }
        let is_good = all.right > 0 && all.wrong.is_empty();
        report.expect(is_good, &format!("downloads with the right hash: {}", all.right), || {
            format!("{} others: {:#?}", all.wrong.len(), &all.wrong[..all.wrong.len().min(5)])
        });
        let datagrams = Datagrams::sum(self.datagrams);
        let without_room = without_room();
        let text = format!("datagrams: {datagrams}; the machine's own backlogs had no room for {without_room} packets");
        report.verdict(datagrams.are_good(without_room), &text);
    }
}

fn clients(hosts: Range<u16>) -> impl Iterator<Item = (Family, u16)> {
    hosts.flat_map(|n| Family::BOTH.map(|family| (family, n)))
}

/// Downloads one file after another.
fn downloads(lab: &Lab, family: Family, n: u16, sum: &str, over: &AtomicBool) -> Downloads {
    let mut all = Downloads::default();
    let client = family.client(n);
    while !over.load(Ordering::Relaxed) {
        let said = download(lab, client, SocketAddr::new(family.vip(), 80), BYTES, DOWNLOAD_RATE);
        if said.code == Some(0) && said.out == sum {
            all.right += 1;
        } else {
            all.wrong.push(format!("{client}: {said:?}"));
        }
    }
    all
}
