//! What the attempts of a hostile worker are aimed at, as root sees it from outside of the sandbox.

use super::error::{Error, os};
use super::findings::ResultRow;
use super::testbed::{FOREIGN, Testbed, run, tool_exists};
use loaded_sandbox::attempt;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs;
use std::os::fd::AsRawFd;

/// The testbed at one moment, without what a packet may change.
#[derive(Debug)]
pub(super) struct TestbedState {
    /// The rules of the firewall, and the tool that printed them.
    rules: (&'static str, String),
    /// Counts the changes of nf_tables, also those that were taken back. None on a kernel without.
    generation: Option<u32>,
    /// Every queue: its number, its owner's netlink port, its mode.
    queues: Vec<String>,
    /// Packets that wait for a verdict in any of them.
    waiting: u64,
    /// The links and their flags.
    links: Vec<String>,
    /// Tracked connections. None on a kernel without.
    connections: Option<u64>,
}

impl TestbedState {
    /// Takes a snapshot of what a worker might change outside itself.
    pub(super) fn take() -> Result<Self, Error> {
        let (queues, waiting) = queues()?;
        Ok(Self {
            rules: rules()?,
            generation: generation(),
            queues,
            waiting,
            links: links()?,
            connections: connections(),
        })
    }

    /// Is there what the attempts could take away? A watcher of an empty testbed would call everything unchanged.
    pub(super) fn check(&self, testbed: &Testbed) -> Result<(), Error> {
        let queue = attempt::QUEUE.to_string();
        let bound = self.queues.iter().any(|line| line.split(' ').next() == Some(&queue));
        let up = self.links.iter().any(|line| line.starts_with("lo ") && line.contains("IFF_UP"));
        for (there, what) in [
            (self.rules.1.contains(FOREIGN), "the foreign rule is not seen"),
            (bound, "the queue is not seen in /proc/net/netfilter/nfnetlink_queue"),
            (up, "lo is not seen as up"),
            (!testbed.tracks || self.connections.is_some_and(|n| n > 0), "the tracked connection is not seen"),
        ] {
            if !there {
                return Err(Error::Testbed(what));
            }
        }
        Ok(())
    }

    /// A line for each thing watched.
    pub(super) fn compare(&self, before: &TestbedState) -> Vec<ResultRow> {
        let mut rows = vec![
            same(&format!("rule set, by {}", self.rules.0), self.rules == before.rules),
            same("queues and their owners", self.queues == before.queues),
            same("links and their flags", self.links == before.links),
            ResultRow {
                name: "outside: packets waiting in the queue".to_owned(),
                expected: "0".to_owned(),
                seen: self.waiting.to_string(),
                good: self.waiting == 0,
            },
        ];
        if before.generation.is_some() {
            rows.push(same("number of nf_tables changes", self.generation == before.generation));
        }
        if before.connections.is_some() {
            rows.push(same("number of tracked connections", self.connections == before.connections));
        }
        rows
    }

    /// What is different, a line each, with + where it is new and - where it is gone.
    pub(super) fn changes(&self, before: &TestbedState) -> Vec<String> {
        let (old, new) = (before.lines(), self.lines());
        let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("- {line}"));
        let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("+ {line}"));
        gone.chain(come).collect()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.rules.1.lines().map(|line| line.trim().to_owned()).collect();
        lines.extend(self.queues.iter().map(|line| format!("queue {line}")));
        lines.extend(self.links.iter().map(|line| format!("link {line}")));
        lines.extend(self.connections.map(|count| format!("{count} tracked connections")));
        lines
    }
}

fn same(what: &str, same: bool) -> ResultRow {
    let seen = if same { "unchanged" } else { "CHANGED" };
    ResultRow { name: format!("outside: {what}"), expected: "unchanged".to_owned(), seen: seen.to_owned(), good: same }
}

/// `nft` shows the rules of every tool but iptables-legacy; without it, what iptables can show. Without counters: the
/// packets of the test itself are counted there.
fn rules() -> Result<(&'static str, String), Error> {
    if tool_exists("nft") {
        let mut rules = run("nft", &["--stateless", "list", "ruleset"])?;
        // Then iptables is the legacy one here, or an attempt took the rule away. Not asked otherwise: it loads modules.
        if !rules.contains(FOREIGN) {
            rules += &run("iptables-legacy-save", &[]).map_or_else(|_| String::new(), |saved| without_counters(&saved));
        }
        return Ok(("nft", rules));
    }
    let saved = run("iptables-save", &[])? + &run("ip6tables-save", &[]).unwrap_or_default();
    Ok(("iptables-save", without_counters(&saved)))
}

/// The comments have the time in them, the chains their counters: `:INPUT ACCEPT [3:168]`.
fn without_counters(saved: &str) -> String {
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Asks nf_tables for its generation, which rises with each transaction (nf_tables_commit). No tool is needed for it.
fn generation() -> Option<u32> {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`, and the same with NFT_MSG_GETGEN.
    const NEWGEN: u16 = 0x0a0f;
    const GETGEN: u16 = 0x0a10;
    const REQUEST: u16 = 1;
    /// Eight bytes of attribute 1, NFTA_GEN_ID, which comes first (nf_tables_fill_gen_info).
    const ID: [u16; 2] = [8, 1];
    let mut message = [0; 20];
    message[0..4].copy_from_slice(&20_u32.to_ne_bytes());
    message[4..6].copy_from_slice(&GETGEN.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST.to_ne_bytes());

    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).ok()?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(1)).ok()?;
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).ok()?;
    send(socket.as_raw_fd(), &message, MsgFlags::empty()).ok()?;
    let mut answer = [0; 256];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    let word = |at: usize| u16::from_ne_bytes([answer[at], answer[at + 1]]);
    let good = length >= 28 && word(4) == NEWGEN && [word(20), word(22)] == ID;
    good.then(|| u32::from_be_bytes([answer[24], answer[25], answer[26], answer[27]]))
}

/// Columns (nfnetlink_queue.c, seq_show): number, owner's port, packets waiting, mode, range; the rest are counters.
fn queues() -> Result<(Vec<String>, u64), Error> {
    const FILE: &str = "/proc/net/netfilter/nfnetlink_queue";
    let text = fs::read_to_string(FILE).map_err(os("read /proc/net/netfilter/nfnetlink_queue"))?;
    let mut waiting = 0;
    let lines = text.lines().map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        waiting += columns.get(2).and_then(|n| n.parse().ok()).unwrap_or(0);
        let lasting: Vec<&str> = [0, 1, 3, 4].into_iter().filter_map(|i| columns.get(i).copied()).collect();
        lasting.join(" ")
    });
    let lines = lines.collect();
    Ok((lines, waiting))
}

/// Not from /sys/class/net: a sysfs shows the links of the network in which it was mounted, here the host's.
fn links() -> Result<Vec<String>, Error> {
    let addresses = getifaddrs().map_err(|errno| os("list the links")(errno.into()))?;
    let mut links: Vec<String> = addresses
        .map(|address| {
            let names: Vec<&str> = address.flags.iter_names().map(|(name, _)| name).collect();
            format!("{} {}", address.interface_name, names.join(" "))
        })
        .collect();
    links.sort_unstable();
    links.dedup();
    Ok(links)
}

/// Of this network only (nf_conntrack_standalone.c registers the sysctl in each).
fn connections() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok()?.trim().parse().ok()
}
