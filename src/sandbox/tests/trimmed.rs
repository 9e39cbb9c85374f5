//! The supervisor's trim: what it still needs works, what it must not do kills, and children inherit it.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use loaded_sandbox::selftest::{enter_private_namespaces, red, run_all, table};
use loaded_sandbox::{Bindings, Layer, SandboxError, SandboxPolicy, attempt, trim_supervisor};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use rig::{child_passes, in_child, nobody, raw, release_sandbox};

fn main() -> ExitCode {
    rig::run(&[
        ("capabilities are exactly the table's", capabilities),
        ("iptables-restore installs and removes", iptables),
        ("iptables-legacy-restore installs and removes", iptables_legacy),
        ("each denied call kills", denied),
        ("an x32 number kills", x32),
        ("a child started by exec inherits both", inherited),
        ("a worker enters its sandbox below it", worker_below),
        ("a missing capability is named", missing_capability),
        ("a child of another user can be stopped", stop_child),
    ])
}

fn trimmed() {
    enter_private_namespaces().unwrap();
    assert!(trim_supervisor(false).unwrap().has(Layer::Seccomp));
}

const MASK: &str = "00000000002431e0";

fn capabilities() {
    child_passes(|| {
        trimmed();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        for line in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{line}:\t{MASK}")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    });
}

/// The rules that the supervisor installs: steering by client address with cBPF, to a queue, untracked (design, §5).
const RULES: &str = "*raw
:LOADED_PRE - [0:0]
-A LOADED_PRE -m bpf --bytecode \"7,32 0 0 12,36 0 0 2654435761,116 0 0 16,148 0 0 2,21 0 1 0,6 0 0 65535,6 0 0 0\" -j NFQUEUE --queue-num 5
-A LOADED_PRE -d 192.0.2.100/32 -j CT --notrack
-A PREROUTING -j LOADED_PRE
COMMIT
";
const REMOVAL: &str = "*raw
-D PREROUTING -j LOADED_PRE
-F LOADED_PRE
-X LOADED_PRE
COMMIT
";

fn feed(program: &str, text: &str) -> Result<(), String> {
    let mut child = Command::new(program)
        .arg("--noflush")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    child.stdin.take().unwrap().write_all(text.as_bytes()).map_err(|e| e.to_string())?;
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {} {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn saved(program: &str) -> String {
    String::from_utf8(Command::new(program).args(["-t", "raw"]).output().unwrap().stdout).unwrap()
}

fn installs_and_removes(restore: &str, save: &str) {
    trimmed();
    feed(restore, RULES).unwrap();
    let rules = saved(save);
    println!("{rules}");
    assert!(rules.contains("--queue-num 5") && rules.contains("--bytecode") && rules.contains("--notrack"));
    feed(restore, REMOVAL).unwrap();
    assert!(!saved(save).contains("LOADED"), "{}", saved(save));
}

fn iptables() {
    child_passes(|| installs_and_removes("/usr/sbin/iptables-restore", "/usr/sbin/iptables-save"));
    let rules6 = RULES.replace("192.0.2.100/32", "2001:db8::1/128");
    child_passes(move || {
        trimmed();
        feed("/usr/sbin/ip6tables-restore", &rules6).unwrap();
    });
}

fn iptables_legacy() {
    const RESTORE: &str = "/usr/sbin/iptables-legacy-restore";
    // Whether it works here at all, untrimmed: many kernels are built without the legacy tables.
    let works = in_child(|| {
        enter_private_namespaces().unwrap();
        feed(RESTORE, RULES).unwrap();
    });
    if !Path::new(RESTORE).exists() || !matches!(works, WaitStatus::Exited(_, 0)) {
        println!("skipped: no legacy tables in this kernel");
        return;
    }
    child_passes(|| installs_and_removes(RESTORE, "/usr/sbin/iptables-legacy-save"));
}

fn died_of_sigsys(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
}

fn denied() {
    for rule in SandboxPolicy::supervisor().rules() {
        let status = in_child(|| {
            trim_supervisor(false).unwrap();
            raw(rule.number, [u64::MAX; 6]);
        });
        assert!(died_of_sigsys(status), "{}: {status:?}", rule.call);
    }
}

fn x32() {
    for number in [libc::SYS_ptrace, libc::SYS_getpid] {
        let status = in_child(|| {
            trim_supervisor(false).unwrap();
            raw(number | 0x4000_0000, [0; 6]);
        });
        assert!(died_of_sigsys(status), "{status:?}");
    }
}

fn inherited() {
    child_passes(|| {
        trimmed();
        let output = Command::new("/bin/cat").arg("/proc/self/status").output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        for line in ["CapPrm", "CapEff", "CapBnd"] {
            assert!(status.contains(&format!("{line}:\t{MASK}")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        let mount = Command::new("/bin/mount").args(["-t", "tmpfs", "none", "/mnt"]).output().unwrap().status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&mount), Some(libc::SIGSYS), "{mount}");
    });
}

fn worker_below() {
    child_passes(|| {
        trimmed();
        let templates = 0x2000_0000_0000..0x2000_0000_1000;
        let bindings = Bindings::Worker { queue_fd: 3, link_fd: 4, membership_fd: 5, templates };
        let results = run_all(&release_sandbox(SandboxPolicy::worker(), bindings), &attempt::short()).unwrap();
        println!("{}", table(&results));
        assert!(red(&results).is_empty());
    });
}

fn missing_capability() {
    child_passes(|| {
        caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
        caps::drop(None, caps::CapSet::Permitted, caps::Capability::CAP_NET_RAW).unwrap();
        let error = trim_supervisor(false).unwrap_err();
        assert!(matches!(&error, SandboxError::MissingCapability { capability, .. } if capability == "CAP_NET_RAW"));
        println!("{error}");
    });
}

fn stop_child() {
    child_passes(|| {
        trimmed();
        let uid = nobody().uid;
        let mut child =
            std::os::unix::process::CommandExt::uid(&mut Command::new("/bin/sleep"), uid).arg("60").spawn().unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    });
}
