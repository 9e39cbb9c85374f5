//! Tries at every start whether this kernel repeats what it is told to repeat ([`Repeat`]), in a process and a network
//! namespace of their own, while other things go on. It is a role of its own, because a process that has left its network
//! namespace does not find back.

use crate::{Family, Tools};
use loaded_queue::{Owner, Repeat, try_repeat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The word for this role.
pub const ROLE: &str = "trial";
/// How long the result may take from the moment it is asked for. It takes some 40 ms.
const PATIENCE: Duration = Duration::from_secs(1);
/// Nobody else is in the namespace, so any number is free there.
const QUEUE: u16 = 0;
const QUEUE_LEN: u32 = 8;
/// What brings a datagram on lo to the queue, as packets for a virtual IP are brought.
const RULES: &str = "*raw\n-A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 0\nCOMMIT\n";

/// A trial that is under way.
#[derive(Debug)]
pub struct Trial(Result<Child, String>);

impl Trial {
    /// Begins it. To be done before the supervisor trims itself.
    pub fn begin() -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("loaded").args(["--role", ROLE]).env_clear();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(child.map_err(|error| format!("start a process: {error}")))
    }

    /// What it has come to; waits for it, but not long.
    pub fn result(self) -> Repeat {
        match self.0 {
            Err(why) => Repeat::Unknown(why),
            Ok(mut child) => {
                let word = word(&mut child);
                // It ends when it has spoken. If it has not, its death is certain, and waiting short.
                let _ = child.kill();
                let _ = child.wait();
                word.map_or_else(Repeat::Unknown, |word| parse(&word))
            }
        }
    }
}

fn word(child: &mut Child) -> Result<String, String> {
    let mut pipe = child.stdout.take().ok_or("there is no pipe from it")?;
    let end = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no result within {PATIENCE:?}"));
        }
        let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(format!("wait for the result: {error}")),
        }
        let mut part = [0; 512];
        match pipe.read(&mut part) {
            Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(length) => text.extend_from_slice(part.get(..length).unwrap_or_default()),
            Err(error) => return Err(format!("read the result: {error}")),
        }
    }
}

fn parse(word: &str) -> Repeat {
    match word.trim() {
        "repeats" => Repeat::Repeats,
        "accepts" => Repeat::Accepts,
        "" => Repeat::Unknown("the process that tries it has died".to_owned()),
        other => Repeat::Unknown(other.strip_prefix("unknown: ").unwrap_or(other).to_owned()),
    }
}

/// What our rules are made of beside what every iptables has: the kernel's module, and a rule that needs it.
pub const PARTS: [(&str, &str); 5] = [
    ("xt_NFQUEUE", "-j NFQUEUE --queue-num 0"),
    ("xt_bpf", "-m bpf --bytecode \"1,6 0 0 0\" -j RETURN"),
    ("xt_CT", "-j CT --notrack"),
    ("xt_iprange", "-m iprange --src-range ADDRESS-ADDRESS -j RETURN"),
    ("xt_socket", "-m socket -j RETURN"),
];

/// Which of [`PARTS`] are missing in a family, tried in a network namespace that ends with the thread that made it.
pub fn missing_parts() -> Result<Vec<&'static str>, String> {
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("make a network namespace: {error}"))?;
        let tools = Tools::find().map_err(|error| error.to_string())?;
        let works = |rule: &str| {
            [(Family::V4, "192.0.2.1"), (Family::V6, "2001:db8::1")].into_iter().all(|(family, address)| {
                let rule = rule.replace("ADDRESS", address);
                tools.restore(family, &format!("*raw\n-A PREROUTING {rule}\nCOMMIT\n")).is_ok()
            })
        };
        Ok(PARTS.into_iter().filter(|(_, rule)| !works(rule)).map(|(module, _)| module).collect())
    });
    tried.join().unwrap_or_else(|_| Err("the thread that tries it has died".to_owned()))
}

/// The role: tries, says the result on standard output, and ends. `raise_loopback` sets lo up in the network namespace of
/// the thread that calls it.
pub fn run<E: Display>(raise_loopback: impl FnOnce() -> Result<(), E>) {
    // Should the supervisor die meanwhile; all waits here are short anyway.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let result = in_a_room(raise_loopback).unwrap_or_else(Repeat::Unknown);
    let _ = writeln!(std::io::stdout(), "{result}");
}

/// Makes a network namespace around this thread, for good, and tries there.
fn in_a_room<E: Display>(raise_loopback: impl FnOnce() -> Result<(), E>) -> Result<Repeat, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("make a network namespace: {error}"))?;
    raise_loopback().map_err(|error| error.to_string())?;
    let tools = Tools::find().map_err(|error| error.to_string())?;
    let (owner, sender, listener) = furnish(&tools)?;
    Ok(try_repeat(&owner, &sender, &listener))
}

/// A queue, and two sockets; what the first sends to the second comes to the queue.
fn furnish(tools: &Tools) -> Result<(Owner, UdpSocket, UdpSocket), String> {
    let owner = Owner::open(QUEUE, QUEUE_LEN).map_err(|error| error.to_string())?;
    tools.restore(Family::V4, RULES).map_err(|error| error.to_string())?;
    let bind = |address| UdpSocket::bind(address).map_err(|error| format!("bind a socket on lo: {error}"));
    Ok((owner, bind("127.0.0.1:0")?, bind("127.0.0.9:0")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_sandbox::selftest::raise_loopback;

    /// Only as root; under CI it must be.
    fn room() -> Option<(Owner, UdpSocket, UdpSocket)> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("LOADED_CI").is_none(), "under CI these tests must run as root");
            println!("skipped: needs root");
            return None;
        }
        // Of this thread alone: each test has its own.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        raise_loopback().unwrap();
        Some(furnish(&Tools::find().unwrap()).unwrap())
    }

    #[test]
    fn this_kernel_repeats() {
        let Some((owner, sender, listener)) = room() else { return };
        assert_eq!(try_repeat(&owner, &sender, &listener), Repeat::Repeats);
        assert_eq!(try_repeat(&owner, &sender, &listener), Repeat::Repeats, "nothing is left behind");
    }

    #[test]
    fn all_parts_of_our_rules_are_there() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(missing_parts(), Ok(Vec::new()));
        }
    }

    #[test]
    fn what_never_comes_to_the_queue_is_unknown() {
        let Some((owner, sender, _listener)) = room() else { return };
        let elsewhere = UdpSocket::bind("127.0.0.8:0").unwrap();
        assert!(matches!(try_repeat(&owner, &sender, &elsewhere), Repeat::Unknown(why) if why.contains("its queue")));
    }

    #[test]
    fn results_survive_the_pipe() {
        for result in [Repeat::Repeats, Repeat::Accepts, Repeat::Unknown("no room: EPERM".to_owned())] {
            assert_eq!(parse(&format!("{result}\n")), result);
        }
        assert!(matches!(parse(""), Repeat::Unknown(_)));
    }
}
