//! A worker that is made to break out: it dies, everybody can see of what, and the next one serves.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::time::Duration;

/// Makes a process that waits in a system call make another one when it goes on: what a hostile packet that has taken a
/// worker over would do.
fn make_call(pid: u32, number: u64) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    ptrace::attach(pid).unwrap();
    assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(..)));
    let mut registers = ptrace::getregs(pid).unwrap();
    // Back to the instruction that enters the kernel; and no restart of the call that was interrupted.
    #[cfg(target_arch = "x86_64")]
    {
        (registers.rax, registers.orig_rax) = (number, u64::MAX);
        registers.rip -= 2;
    }
    #[cfg(target_arch = "aarch64")]
    {
        registers.regs[8] = number;
        registers.pc -= 4;
    }
    ptrace::setregs(pid, registers).unwrap();
    ptrace::detach(pid, None).unwrap();
}

/// Number of getsid, which nothing in a worker calls.
#[cfg(target_arch = "x86_64")]
const GETSID: u64 = 124;
#[cfg(target_arch = "aarch64")]
const GETSID: u64 = 156;

#[test]
fn a_death_by_the_sandbox_names_the_system_call() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let kills = || {
        let status = loaded.status();
        status["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|process| process["sandbox_kills"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(kills(), 0);
    // Tried at the start; here it is known that the kernel does it (src/queue/tests/kernel.rs).
    assert_eq!(loaded.status()["nf_repeat"], "repeats");
    // The kernel prints ten records in five seconds, and other tests on this machine may use them up.
    let mut named = false;
    for death in 1..=4 {
        let victim = loaded.workers()[0];
        make_call(victim, GETSID);
        assert!(eventually(Duration::from_secs(5), || kills() == death), "{:?}", loaded.log());
        let elsewhere = format!("ausearch -m SECCOMP -p {victim}");
        let told = || {
            let log = loaded.log();
            log.contains("it called getsid (system call") || log.contains(&elsewhere)
        };
        assert!(eventually(Duration::from_secs(5), told), "neither the call nor where to look is told");
        named = loaded.log().contains("it called getsid (system call");
        if named {
            break;
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    assert!(named, "the system call was never named");
    let log = loaded.log();
    assert!(log.contains("killed by its own sandbox (SIGSYS): SECURITY EVENT"), "{log}");

    assert!(eventually(Duration::from_secs(10), || loaded.workers().len() == 2));
    let history = loaded.json(&["history"]);
    let noted = history.as_array().unwrap().iter().filter(|event| event["by"] == "kernel").collect::<Vec<_>>();
    let text = |key: &str| noted.iter().map(|event| event[key].as_str().unwrap()).collect::<Vec<_>>().join("\n");
    assert!(text("what").contains("worker[0] killed by its sandbox"), "{noted:?}");
    assert!(text("cause").contains("it called getsid (system call"), "{noted:?}");
    let first = loaded.ask(&["status"]).out;
    assert!(first.contains("SECURITY EVENT"), "{first}");
    assert!(loaded.ask(&["metrics"]).out.contains("loaded_process_sandbox_kills_total{process=\"worker[0]\"}"));
    for family in Family::BOTH {
        lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap_or_else(|e| panic!("{family:?}: {e}"));
    }
    loaded.stop();
}
