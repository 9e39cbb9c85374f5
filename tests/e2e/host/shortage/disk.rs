//! A full disk that holds log, pid file and control socket.

use super::{RECOVERY_TIMEOUT, comes_back, unnoticed};
use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::paired;
use crate::rig::net::Family;
use crate::rig::servers::{backends, service};
use crate::rig::witness::ECHO;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: usize = 4096;

/// A small file system of the test's own, mounted as long as this value lives.
struct Disk(PathBuf);

impl Disk {
    fn new(lab: &Lab) -> Self {
        let path = lab.state().join("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", "size=256k,nr_inodes=32,mode=755", "tmpfs"]).arg(&path).status();
        assert!(status.unwrap().success(), "mount a tmpfs");
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Uses up all bytes and all inodes.
    fn fill(&self) {
        let mut file = File::create(self.at("filler")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
        let more = (0..).map(|n| File::create(self.at(&format!("more.{n}"))));
        let error = more.filter_map(Result::err).next().unwrap();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a supervisor that has its log there may be ending yet.
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status().is_ok_and(|status| status.success());
        assert!(unmounted || std::thread::panicking(), "{} stays", self.0.display());
    }
}

fn text(weight: u16) -> String {
    let backends = backends(&[1, 2, 3], &format!("weight = {weight}"));
    let check = "check = { kind = \"tcp\", port = 80, interval = \"500ms\" }";
    let (web, echo) = (service("web", "tcp", 80, check), service("echo", "udp", ECHO, ""));
    format!("cores = \"0-1\"\nqueue_len = 16384\n{web}{backends}{echo}{backends}")
}

/// A supervisor with its pid file and control socket on the disk.
fn supervisor(lab: &Lab, log: &Path, pid_file: &Path, control: &Path) -> Loaded {
    let config = lab.state().join("loaded.toml");
    Loaded::spawn_at(&binary(), lab, (log.to_owned(), control.to_owned()), |command| {
        command.arg("-D").arg("-c").arg(config).arg("--pid-file").arg(pid_file);
    })
}

#[test]
fn a_full_disk_costs_the_log_and_nothing_else() {
    paired(|lab| {
        let disk = Disk::new(lab);
        lab.file("loaded.toml", &text(1));
        let (pid_file, control) = (disk.at("loaded.pid"), disk.at("control.sock"));
        let mut loaded = supervisor(lab, &disk.at("log"), &pid_file, &control).until_it_serves();
        comes_back(&loaded, 4);
        // What is left of its last page is room for lines, also on a full disk.
        while loaded.log().len() % PAGE < PAGE - 200 {
            loaded.counters();
        }
        disk.fill();
        let full = loaded.log().len().next_multiple_of(PAGE);
        unnoticed(lab, || {
            for pid in loaded.workers().into_iter().chain(loaded.prober()) {
                signal_to(pid, Signal::SIGKILL);
                let replaced = || !loaded.workers().contains(&pid) && loaded.prober() != Some(pid);
                assert!(eventually(RECOVERY_TIMEOUT, replaced));
                comes_back(&loaded, 4);
            }
            let generation = loaded.status()["generation"].as_u64().unwrap();
            lab.file("loaded.toml", &text(2));
            loaded.signal(Signal::SIGHUP);
            assert!(eventually(RECOVERY_TIMEOUT, || loaded.status()["generation"].as_u64() > Some(generation)));
            comes_back(&loaded, 4);
            assert_eq!(loaded.backend("web", Family::V6.backend(1))["weight"], 2);

            let workers = loaded.workers();
            loaded.end(Signal::SIGKILL);
            // What is not there yet cannot be made; nothing has changed for that.
            for (name, pid_file, control) in [
                ("pid", disk.at("new.pid"), control.clone()),
                ("socket", lab.state().join("new.pid"), disk.at("new.sock")),
            ] {
                let mut refused =
                    supervisor(lab, &lab.state().join(format!("refused.{name}.log")), &pid_file, &control);
                assert_eq!(refused.wait().code(), Some(1));
                let log = refused.log();
                println!("{}", log.lines().last().unwrap_or_default());
                let object = if name == "pid" { &pid_file } else { &control };
                assert!(log.contains(object.to_str().unwrap()) && log.contains("No space left on device"), "{log}");
                assert!(!lab.state().join("new.pid").exists() && !disk.at("new.sock").exists());
                assert!(workers.iter().all(|pid| crate::rig::loaded::lives(*pid)), "{log}");
            }
            // What a dead supervisor has left makes room for the next one's.
            loaded = supervisor(lab, &lab.state().join("second.log"), &pid_file, &control).until_it_serves();
            comes_back(&loaded, 4);
            assert_eq!(fs::read_to_string(&pid_file).unwrap().trim(), loaded.pid().to_string());
        });
        let log = fs::read_to_string(disk.at("log")).unwrap();
        assert!(log.len() <= full && !log.contains("reload: generation"), "the disk was not full:\n{log}");
        loaded.stop();
    });
}
