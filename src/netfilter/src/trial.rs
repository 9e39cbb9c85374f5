//! Finds out at every start whether this kernel honours NF_REPEAT ([`RepeatSupport`]). Runs in a process and a network namespace
//! of its own while the start goes on; a separate role, because a process that has left its network namespace cannot
//! return to it.

use crate::{Error, Family, Tools};
use loaded_queue::{Owner, RepeatSupport, try_repeat};
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

/// Name of this role on the command line.
pub const ROLE: &str = "trial";
/// How long to wait for the result once it is asked for. It takes about 40 ms; on an emulated or very busy machine seconds.
const RESULT_TIMEOUT: Duration = Duration::from_secs(5);
/// The namespace is our own, so any number is free.
const QUEUE: u16 = 0;
const QUEUE_LEN: u32 = 8;
/// Sends a datagram on lo to the queue, as packets for a virtual IP are sent.
const RULES: &str = "*raw\n-A PREROUTING -p udp -d 127.0.0.9 -j NFQUEUE --queue-num 0\nCOMMIT\n";

/// A trial in progress.
#[derive(Debug)]
pub struct Trial(Result<Child, String>);

impl Trial {
    /// Starts it. Call before the supervisor gives up rights.
    pub fn begin() -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("loaded").args(["--role", ROLE]).env_clear();
        // It finds the same programs.
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(child.map_err(|error| format!("start a process: {error}")))
    }

    /// The result. A trial that has none, in time or at all, is made once more: an answer holds for the life of an instance. Waits
    /// ten seconds at most.
    pub fn result(self) -> RepeatSupport {
        match self.first_result() {
            RepeatSupport::Unknown(_) => Self::begin().first_result(),
            known => known,
        }
    }

    fn first_result(self) -> RepeatSupport {
        match self.0 {
            Err(why) => RepeatSupport::Unknown(why),
            Ok(mut child) => {
                let word = word(&mut child);
                // It exits after its answer; if there was none, it is killed. Either way the wait is short.
                let _ = child.kill();
                let _ = child.wait();
                word.map_or_else(RepeatSupport::Unknown, |word| parse(&word))
            }
        }
    }
}

fn word(child: &mut Child) -> Result<String, String> {
    let mut pipe = child.stdout.take().ok_or("there is no pipe from it")?;
    let end = Instant::now() + RESULT_TIMEOUT;
    let mut text = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("no result within {RESULT_TIMEOUT:?}"));
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

fn parse(word: &str) -> RepeatSupport {
    match word.trim() {
        "repeats" => RepeatSupport::Repeats,
        "accepts" => RepeatSupport::Accepts,
        "" => RepeatSupport::Unknown("the process that tries it has died".to_owned()),
        other => RepeatSupport::Unknown(other.strip_prefix("unknown: ").unwrap_or(other).to_owned()),
    }
}

/// Kernel modules our rules need beyond basic iptables, each with a rule that tries it.
pub const PARTS: [(&str, &str); 6] = [
    ("xt_NFQUEUE", "-j NFQUEUE --queue-num 0"),
    ("xt_bpf", "-m bpf --bytecode \"1,6 0 0 0\" -j RETURN"),
    ("xt_CT", "-j CT --notrack"),
    ("xt_iprange", "-m iprange --src-range ADDRESS-ADDRESS -j RETURN"),
    ("xt_socket", "-m socket -j RETURN"),
    ("xt_rpfilter", "-m rpfilter --invert -j RETURN"),
];
/// A rule that needs none of them.
const PLAIN: &str = "-j RETURN";
/// So many times in a row a rule must be refused before its module counts as missing.
const REFUSALS: u32 = 2;

/// Asks for a queue, of a network namespace that ends at once. Where nfnetlink_queue is a module, the kernel loads it for this
/// (nfnetlink_rcv_msg, net/netfilter/nfnetlink.c), however long that takes.
///
/// # Errors
/// If this kernel gives none: why.
pub fn has_queues() -> Result<(), String> {
    in_empty_namespace(|| Owner::open(QUEUE, QUEUE_LEN).map(drop).map_err(|error| error.to_string()))?
}

/// Makes the kernel load the table that our rules go into, in both families, while this process may: iptables-legacy loads
/// `ip_tables` and `ip6_tables` by a modprobe of its own, which needs CAP_SYS_MODULE. Without it there is no such table ("unable to
/// initialize table 'raw'", seen on Linux 6.12). With nftables the kernel itself calls modprobe.
///
/// # Errors
/// Why there is no such table in a family.
pub fn load_tables(tools: &Tools) -> Result<(), String> {
    if tools.is_nft() {
        return Ok(());
    }
    let load = |family| lacking(tools, family, &[]).map(drop).map_err(|why| format!("{family}: {why}"));
    Family::ALL.into_iter().try_for_each(load)
}

/// Which of [`PARTS`] are missing in either family.
///
/// # Errors
/// If they cannot be tried.
pub fn missing_parts() -> Result<Vec<&'static str>, String> {
    missing_parts_by(&Tools::find().map_err(|error| error.to_string())?)
}

fn missing_parts_by(tools: &Tools) -> Result<Vec<&'static str>, String> {
    let all = PARTS.map(|(module, _)| module);
    let [v4, v6] = Family::ALL.map(|family| lacking(tools, family, &all));
    let (v4, v6) = (v4?, v6?);
    Ok(all.into_iter().filter(|module| v4.contains(module) || v6.contains(module)).collect())
}

/// Which of `modules` (names in [`PARTS`]) this family lacks for certain: a rule that needs one is refused again and again,
/// while a rule that needs none is taken.
///
/// # Errors
/// If they cannot be tried; nothing is known of any then.
pub(crate) fn lacking(tools: &Tools, family: Family, modules: &[&'static str]) -> Result<Vec<&'static str>, String> {
    in_empty_namespace(|| {
        let plain = || try_rule(tools, family, PLAIN);
        // The first rule after a boot makes the kernel load netfilter, which on a slow machine takes longer than the program may.
        plain().or_else(|_| plain()).map_err(|error| error.to_string())?;
        let refused = |rule: &str| (0..REFUSALS).all(|_| try_rule(tools, family, rule).is_err_and(|e| is_refusal(&e)));
        let wanted = PARTS.into_iter().filter(|(module, _)| modules.contains(module));
        let lacking = wanted.filter(|(_, rule)| refused(rule)).map(|(module, _)| module).collect();
        plain().map_err(|error| error.to_string()).map(|()| lacking)
    })?
}

/// Whether it is the rule that failed, and not the program or its wait for the lock of the legacy back end, which all
/// network namespaces share.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Failed { said, .. } if !said.contains("xtables lock"))
}

fn try_rule(tools: &Tools, family: Family, rule: &str) -> Result<(), Error> {
    let address = if family == Family::V4 { "192.0.2.1" } else { "2001:db8::1" };
    let rule = rule.replace("ADDRESS", address);
    tools.restore(family, &format!("*raw\n-A PREROUTING {rule}\nCOMMIT\n"))
}

/// Runs this in a network namespace that ends with its thread.
fn in_empty_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let tried = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("make a network namespace: {error}"))?;
            Ok(work())
        });
        thread.join()
    });
    tried.unwrap_or_else(|_| Err("the thread that tries it has died".to_owned()))
}

/// Runs the role: prints the result to standard output. `raise_loopback` sets lo up in the calling thread's network
/// namespace.
pub fn run<E: Display>(raise_loopback: impl FnOnce() -> Result<(), E>) {
    // In case the supervisor dies meanwhile; all waits here are short anyway.
    let _ = set_pdeathsig(Signal::SIGKILL);
    let result = in_own_namespace(raise_loopback).unwrap_or_else(RepeatSupport::Unknown);
    let _ = writeln!(std::io::stdout(), "{result}");
}

/// Moves this thread to a new network namespace, for good, and tries there.
fn in_own_namespace<E: Display>(raise_loopback: impl FnOnce() -> Result<(), E>) -> Result<RepeatSupport, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("make a network namespace: {error}"))?;
    raise_loopback().map_err(|error| error.to_string())?;
    let tools = Tools::find().map_err(|error| error.to_string())?;
    let (owner, sender, listener) = furnish(&tools)?;
    Ok(try_repeat(&owner, &sender, &listener))
}

/// A queue and two sockets; what the first sends to the second is queued.
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
    fn prepared_namespace() -> Option<(Owner, UdpSocket, UdpSocket)> {
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
        let Some((owner, sender, listener)) = prepared_namespace() else { return };
        assert_eq!(try_repeat(&owner, &sender, &listener), RepeatSupport::Repeats);
        assert_eq!(try_repeat(&owner, &sender, &listener), RepeatSupport::Repeats, "nothing is left behind");
    }

    #[test]
    fn all_parts_of_our_rules_are_there() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(missing_parts(), Ok(Vec::new()));
        }
    }

    #[test]
    fn this_kernel_has_queues() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(has_queues(), Ok(()));
        }
    }

    /// As after a boot, when a rule's module is not there yet: the first try of each fails.
    #[test]
    fn a_rule_that_is_refused_once_lacks_nothing() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("loaded-trial-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        for program in ["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save"] {
            let script = format!(
                "#!/bin/sh\nrule=$(cat)\nseen={}/$(basename $0).$(echo \"$rule\" | cksum | cut -d' ' -f1)\n\
                 test -e $seen || {{ touch $seen; echo 'Extension is not there' >&2; exit 2; }}\n\
                 echo \"$rule\" | PATH=/usr/sbin:/sbin:/usr/bin:/bin exec {program} \"$@\"\n",
                folder.display()
            );
            let path = folder.join(program);
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let missing = missing_parts_by(&Tools::find_in(&[&folder]).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(missing, Ok(Vec::new()));
    }

    #[test]
    fn what_never_comes_to_the_queue_is_unknown() {
        let Some((owner, sender, _listener)) = prepared_namespace() else { return };
        let elsewhere = UdpSocket::bind("127.0.0.8:0").unwrap();
        assert!(
            matches!(try_repeat(&owner, &sender, &elsewhere), RepeatSupport::Unknown(why) if why.contains("its queue"))
        );
    }

    #[test]
    fn results_survive_the_pipe() {
        for result in
            [RepeatSupport::Repeats, RepeatSupport::Accepts, RepeatSupport::Unknown("no socket: EPERM".to_owned())]
        {
            assert_eq!(parse(&format!("{result}\n")), result);
        }
        assert!(matches!(parse(""), RepeatSupport::Unknown(_)));
    }
}
