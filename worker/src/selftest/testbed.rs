//! Where the self-test takes place: a network and a mount namespace of its own, with things in it whose loss is seen.

use super::error::{Error, os};
use loaded_ipc::{ALL_COUNTERS, MembershipReader, MembershipWriter, SupervisorLink, WorkerLink};
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD};
use loaded_queue::Owner;
use loaded_sandbox::selftest::{enter_private_namespaces, raise_loopback};
use loaded_sandbox::{attempt, keep_only_fds};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, TableSpec, shm};
use nix::fcntl::OFlag;
use nix::unistd::dup3;
use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The payload that the sandboxed child puts in place of [`QUESTION`]; as long as that.
pub(super) const ANSWER: &[u8; 8] = b"answered";
const QUESTION: &[u8; 8] = b"question";
/// Its datagrams are queued and not tracked, as those to a virtual IP are.
const QUEUED: &str = "127.0.0.9:0";
/// Packets that may wait in the queue.
const QUEUE_LENGTH: u32 = 64;
/// The tables are there to be mapped, not to be filled.
/// Their hash key is no secret: no packet of a stranger comes in.
pub(super) const TABLES: TableSpec = TableSpec::new(1024, [0; 16]);
/// Not the caller's PATH: this runs as root.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What feeds the queue, and a rule of somebody else's. Its address (RFC 5737) tells it from all others.
const RULES: &str = "*raw
-A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 5
COMMIT
*filter
-A INPUT -s 192.0.2.66 -j DROP
COMMIT
";
/// Of that rule, as every tool prints it.
pub(super) const FOREIGN: &str = "192.0.2.66";
/// Connection tracking begins in a network with the first rule that asks for it (nf_ct_netns_get).
const TRACKING: &str = "*raw
-A OUTPUT -p udp -d 127.0.0.9 -j CT --notrack
COMMIT
*filter
-A INPUT -m conntrack --ctstate INVALID -j DROP
COMMIT
";

/// The testbed. What it holds must stay open to the end.
#[derive(Debug)]
pub(super) struct Testbed {
    /// Whether there is a tracked connection, and so something to flush.
    pub(super) tracks: bool,
    listener: UdpSocket,
    asker: UdpSocket,
    _owner: Owner,
    _links: (WorkerLink, MembershipWriter),
    _connection: Option<(TcpListener, TcpStream)>,
}

impl Testbed {
    /// Makes it around this process, for good.
    pub(super) fn set_up() -> Result<Self, Error> {
        keep_only_fds(&[0, 1, 2])?;
        enter_private_namespaces()?;
        raise_loopback()?;
        let (owner, links) = lay_out_descriptors()?;
        restore(RULES)?;
        // A kernel without connection tracking runs `loaded` no worse; there is then nothing to flush.
        let tracks = restore(TRACKING).is_ok();
        let connection = if tracks { Some(connect().map_err(os("connect on lo"))?) } else { None };
        if tool_exists("nft") {
            run("nft", &["add", "table", "inet", "foreign"])?;
        }
        let bind = |address| UdpSocket::bind(address).map_err(os("bind a UDP socket on lo"));
        let (listener, asker) = (bind(QUEUED)?, bind("127.0.0.1:0")?);
        listener.set_read_timeout(Some(Duration::from_secs(1))).map_err(os("set a receive timeout"))?;
        Ok(Self { tracks, listener, asker, _owner: owner, _links: links, _connection: connection })
    }

    /// Sends a datagram, which is queued.
    pub(super) fn ask(&self) -> Result<(), Error> {
        let sent = self.listener.local_addr().and_then(|address| self.asker.send_to(QUESTION, address));
        sent.map(drop).map_err(os("send a datagram on lo"))
    }

    /// Has it arrived, with its new payload?
    pub(super) fn answer(&self) -> bool {
        let mut payload = [0; 16];
        self.listener.recv(&mut payload).is_ok_and(|length| payload[..length] == ANSWER[..])
    }
}

/// Puts a worker's descriptors where a worker finds them. Nothing here owns those numbers: each child takes them over,
/// as after exec.
fn lay_out_descriptors() -> Result<(Owner, (WorkerLink, MembershipWriter)), Error> {
    // Nothing is open but 0, 1 and 2, so these become 3 to 9 and keep the numbers free.
    let mut places = Vec::new();
    for number in [QUEUE_FD, LINK_FD, MEMBERSHIP_FD, FLOWS_FD, CLIENTS_FD, COUNTERS_FD, JOURNAL_FD] {
        let place = OwnedFd::from(File::open("/dev/null").map_err(os("open /dev/null"))?);
        if place.as_raw_fd() != number {
            return Err(Error::Testbed("the descriptors of a worker are taken"));
        }
        places.push(place);
    }
    let owner = Owner::open(attempt::QUEUE, QUEUE_LENGTH)?;
    let (link, worker) = WorkerLink::pair()?;
    let worker: SupervisorLink = worker;
    let (prober, membership) = MembershipWriter::pair()?;
    let membership: MembershipReader = membership;
    let flows = shm::create("loaded-flows", FlowTable::bytes_for(TABLES.capacity))?;
    FlowTable::format(&Region::map(&flows)?, TABLES)?;
    let clients = shm::create("loaded-clients", AffinityTable::bytes_for(TABLES.capacity))?;
    AffinityTable::format(&Region::map(&clients)?, TABLES)?;
    let counters = shm::create("loaded-counters", Counters::bytes_for(ALL_COUNTERS))?;
    let journal = shm::create("loaded-journal", 4096)?;
    let links: [BorrowedFd<'_>; 3] = [owner.as_fd(), worker.as_fd(), membership.as_fd()];
    let custody = [flows.as_fd(), clients.as_fd(), counters.as_fd(), journal.as_fd()];
    for (thing, mut place) in links.into_iter().chain(custody).zip(places) {
        dup3(thing, &mut place, OFlag::O_CLOEXEC).map_err(|e| os("duplicate a descriptor")(e.into()))?;
        let _number = place.into_raw_fd();
    }
    Ok((owner, (link, prober)))
}

/// A tracked connection. An established one is kept for days, so it does not expire under the test.
fn connect() -> std::io::Result<(TcpListener, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((listener, client))
}

fn restore(rules: &str) -> Result<(), Error> {
    const TOOL: &str = "iptables-restore";
    let failed = |problem: String| Error::Tool { tool: TOOL, problem };
    let mut child = Command::new(TOOL)
        .arg("--noflush")
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).map_err(|e| failed(e.to_string()))?;
    }
    check(TOOL, &child.wait_with_output().map_err(|e| failed(e.to_string()))?)
}

/// Runs a tool and gives what it prints.
pub(super) fn run(tool: &'static str, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(tool).args(arguments).env("PATH", PATH).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::Tool { tool, problem: e.to_string() })?;
    check(tool, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check(tool: &'static str, output: &Output) -> Result<(), Error> {
    match output.status.success() {
        true => Ok(()),
        false => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(Error::Tool { tool, problem: format!("{}: {}", output.status, words.trim()) })
        }
    }
}

/// Is it where [`run`] looks?
pub(super) fn tool_exists(tool: &str) -> bool {
    std::env::split_paths(PATH).any(|directory| directory.join(tool).is_file())
}
