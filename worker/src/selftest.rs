//! `loaded --selftest`: tries to break out of the sandbox, on the machine it is to protect, and says what came of it.
//!
//! Each forbidden attempt of [`loaded_sandbox::attempt`] is tried by a child of its own that went the way of a running
//! worker: the same descriptors, the same two stages of [`sandbox`], real tables, a real queue, real sealed templates.
//! That a child died is no proof: the target of an attempt is examined from outside, before and after. And
//! because a sandbox that stops the work is of no use either, a packet is received and answered inside it.
//!
//! All this happens in a network and a mount namespace of its own ([`testbed`]); the host sees nothing of it.

mod error;
mod findings;
mod outside;
mod testbed;

pub use error::Error;
pub use findings::{Findings, ResultRow};

use crate::inbox::Inbox;
use crate::sandbox;
use crate::setup::flow_timeouts;
use error::os;
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD};
use loaded_ipc::{Idle, SupervisorLink};
use loaded_queue::{QueueSocket, Verdict};
use loaded_sandbox::selftest::{Observed, run_all, run_inside};
use loaded_sandbox::{
    Bindings, Identity, KernelSupport, SandboxPolicy, SandboxRequirement, Survival, attempt, inherited,
};
use loaded_table::{AffinityTable, Counters, FlowTable, Region};
use nix::unistd::geteuid;
use outside::TestbedState;
use std::fs::File;
use std::io::Write;
use std::time::Instant;
use testbed::{TABLES, Testbed};

/// Whom the children become. Every system has this user, whatever `-U` will name.
const USER: &str = "nobody";
/// Waits for the packet, each of [`loaded_queue::RECEIVE_TIMEOUT_MS`]: two seconds.
const PACKET_WAITS: usize = 40;
/// The answer of a child that has answered its packet.
const ANSWERED: i64 = 1;
/// Where the payload of a UDP datagram begins, and its checksum: behind an IPv4 header without options.
const PAYLOAD: usize = 28;
const CHECKSUM: std::ops::Range<usize> = 26..28;

/// Runs the self-test with the policy of the release and prints the table. The exit code: 0 if all is as it must be,
/// 1 if a line is red or the test could not be run.
#[must_use]
pub fn run(requirement: SandboxRequirement) -> i32 {
    match examine(&SandboxPolicy::worker(), requirement) {
        Ok(findings) => {
            // A reader that has gone away does not change what was found.
            let _ = write!(std::io::stdout(), "{findings}");
            i32::from(findings.red().next().is_some())
        }
        Err(error) => {
            eprintln!("loaded: error: self-test: {error}");
            1
        }
    }
}

/// Runs the self-test with a policy, in this process: closes every descriptor but 0, 1 and 2, and leaves the process on
/// the testbed. It must have one thread, own no descriptor, and end soon after.
///
/// # Errors
/// When the test could not be run; nothing is known then.
pub fn examine(policy: &SandboxPolicy, requirement: SandboxRequirement) -> Result<Findings, Error> {
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let start = Instant::now();
    let identity = Identity::lookup(USER)?;
    let support = KernelSupport::probe();
    requirement.check(&support)?;

    let testbed = Testbed::set_up()?;
    let parent = std::process::id();
    let enter = || enter(policy, &identity, parent, requirement);
    let before = TestbedState::take()?;
    before.check(&testbed)?;
    let results = run_all(&|| enter().map(kept), &attempts())?;
    let mut rows: Vec<ResultRow> = results.into_iter().map(ResultRow::of).collect();
    rows.push(packet(&testbed, &enter)?);
    let after = TestbedState::take()?;
    rows.extend(after.compare(&before));
    Ok(Findings { support, rows, changes: after.changes(&before), seconds: start.elapsed().as_secs_f32() })
}

/// The last one needs a message that waits on the queue: the kernel's answers to the empty templates that the allowed
/// attempts sent (EINVAL: a verdict without its header) are there by then.
fn attempts() -> Vec<attempt::Attempt> {
    [attempt::forbidden(), attempt::allowed(), vec![attempt::receive_into_templates()]].concat()
}

/// The way of [`crate::run()`] into the sandbox, step for step; in the sacrificed child.
fn enter(
    policy: &SandboxPolicy,
    identity: &Identity,
    parent: u32,
    requirement: SandboxRequirement,
) -> Result<QueueSocket, Error> {
    silence()?;
    sandbox::drop_to(identity, parent, Survival::DiesToo)?;
    let link = SupervisorLink::from_fd(inherited(LINK_FD)?);
    let [flows_fd, clients_fd, counters_fd] = [inherited(FLOWS_FD)?, inherited(CLIENTS_FD)?, inherited(COUNTERS_FD)?];
    let flows = FlowTable::open(Region::map(&flows_fd)?, TABLES, flow_timeouts(&Idle::STANDARD))?;
    let clients = AffinityTable::open(Region::map(&clients_fd)?, TABLES, |_| {})?;
    let counters = Counters::map(&counters_fd)?;
    let custody = [flows_fd, clients_fd, counters_fd, inherited(JOURNAL_FD)?];
    let socket = QueueSocket::open(inherited(QUEUE_FD)?, attempt::QUEUE).map_err(os("build the templates"))?;
    let inbox = Inbox::new(inherited(MEMBERSHIP_FD)?, 0)?;
    sandbox::close_by(policy, &socket, requirement)?;
    // Dropped inside the sandbox they would unmap and close, and the child would die before its attempt.
    std::mem::forget((link, inbox, flows, clients, counters, custody));
    Ok(socket)
}

/// A worker's 0, 1 and 2 are /dev/null.
fn silence() -> Result<(), Error> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(os("open /dev/null"))?;
    let done = nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null));
    done.map_err(|errno| os("put /dev/null on 0, 1 and 2")(errno.into()))
}

/// What the attempts aim at must outlive them; see [`enter`].
fn kept(socket: QueueSocket) -> Bindings {
    let bindings = sandbox::bindings(&socket);
    std::mem::forget(socket);
    bindings
}

/// A datagram is queued, a sandboxed child answers it through the templates with new bytes, and they arrive.
fn packet(testbed: &Testbed, enter: &dyn Fn() -> Result<QueueSocket, Error>) -> Result<ResultRow, Error> {
    testbed.ask()?;
    let seen = run_inside(enter, &answer)?;
    let delivered = testbed.answer();
    let good = seen == Observed::Lives(ANSWERED) && delivered;
    let seen = match (good, delivered) {
        (true, _) => "delivered".to_owned(),
        (_, true) => format!("delivered, {seen}"),
        (_, false) => format!("lost, {seen}"),
    };
    Ok(ResultRow {
        name: "allowed: receive a packet, answer it".to_owned(),
        expected: "delivered".to_owned(),
        seen,
        good,
    })
}

/// Inside the sandbox: receives until the testbed's datagram is there and sends it on with its new payload.
fn answer(socket: &mut QueueSocket) -> i64 {
    for _ in 0..PACKET_WAITS {
        if socket.receive().is_err() {
            break;
        }
        let mut answered = false;
        while let Some(mut packet) = socket.next() {
            if let Some(payload) = packet.bytes().get_mut(PAYLOAD..PAYLOAD + testbed::ANSWER.len()) {
                payload.copy_from_slice(testbed::ANSWER);
                answered = true;
            }
            // Zero says "no checksum" (RFC 768).
            if let Some(sum) = packet.bytes().get_mut(CHECKSUM) {
                sum.fill(0);
            }
            packet.settle(Verdict::Rewrite);
        }
        if answered {
            socket.flush();
            return ANSWERED;
        }
    }
    0
}
