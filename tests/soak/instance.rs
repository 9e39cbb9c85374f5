//! The instance under test: its configurations; starting, upgrading, killing and stopping it.

use crate::control::Control;
use crate::rig::config::{FREE, STICKY, Service, config};
use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::{Counted, Loaded, lives};
use crate::rig::net::Family;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limits: until two workers serve, until an upgrade has replaced the supervisor, until KILL and TERM have ended it.
const START: Duration = Duration::from_secs(20);
const UPGRADE: Duration = Duration::from_secs(40);
const DEATH: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(20);
/// Number of configurations that reloads alternate between.
pub(crate) const VARIANTS: usize = 3;
/// Port of the services whose backend never answers.
pub(crate) const SINK: u16 = 9;
/// Number of that backend: no host has its address.
pub(crate) const NOBODY: u16 = 79;
const IDLE: &str = "idle = { tcp = \"30s\", half_open = \"10s\", closing = \"10s\", udp = \"10s\" }";

pub(crate) struct Instance<'a> {
    lab: &'a Lab,
    out: &'a Path,
    pub(crate) control: Control,
    loaded: Loaded,
}

impl<'a> Instance<'a> {
    /// Starts it with the first configuration and waits until it serves. Each start logs to a new file in `out`.
    pub(crate) fn start(lab: &'a Lab, out: &'a Path) -> Self {
        configure(lab, 0);
        let control = Control::of(lab);
        let loaded = start(lab, out, &control);
        Self { lab, out, control, loaded }
    }

    /// Pid of the supervisor.
    pub(crate) fn pid(&self) -> u32 {
        self.loaded.pid()
    }

    pub(crate) fn has_two_workers(&self) -> bool {
        self.control.comes_to(START, |status| status.has_two_workers())
    }

    /// Replaces the configuration and sends HUP.
    pub(crate) fn reload(&self, variant: usize) {
        configure(self.lab, variant);
        self.loaded.signal(Signal::SIGHUP);
    }

    /// Sends USR2 and waits until a new process of the same binary serves.
    pub(crate) fn upgrade(&self) -> Result<(), String> {
        let old = self.pid();
        self.loaded.signal(Signal::SIGUSR2);
        if !eventually(UPGRADE, || !lives(old)) {
            return Err(format!("the upgrade of {old} does not end: {}", self.last_words()));
        }
        let new = || fs::read_to_string(pid_file(self.lab)).ok()?.trim().parse().ok().filter(|pid| *pid != old);
        if !self.has_two_workers() || !eventually(START, || new().is_some_and(lives)) {
            return Err(format!("nobody serves after the upgrade of {old}: {}", self.last_words()));
        }
        self.loaded.is_followed_by(new().unwrap());
        Ok(())
    }

    /// Kills the supervisor; its workers go on.
    pub(crate) fn kill(&self) {
        let pid = self.pid();
        self.loaded.signal(Signal::SIGKILL);
        assert!(eventually(DEATH, || !lives(pid)), "supervisor {pid} survives SIGKILL");
    }

    /// Starts a new supervisor after a kill or a stop.
    pub(crate) fn start_again(&mut self) {
        self.loaded = start(self.lab, self.out, &self.control);
    }

    pub(crate) fn stop(&self) -> Result<(), String> {
        let pid = self.pid();
        self.loaded.signal(Signal::SIGTERM);
        if eventually(END, || !lives(pid)) { Ok(()) } else { Err(format!("supervisor {pid} lives on")) }
    }

    /// Counters of its workers, once they no longer rise.
    pub(crate) fn counters(&self) -> Vec<Counted> {
        self.loaded.counters()
    }

    fn last_words(&self) -> String {
        last_words(&self.loaded)
    }
}

fn start(lab: &Lab, out: &Path, control: &Control) -> Loaded {
    let starts =
        fs::read_dir(out).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().starts_with("loaded."));
    let log = out.join(format!("loaded.{}.log", starts.count()));
    let loaded = Loaded::spawn_at(&binary(), lab, (log, control.path.clone()), |command| {
        command.arg("-D").arg("--pid-file").arg(pid_file(lab)).arg("-c").arg(lab.state().join("soak.toml"));
    });
    // Its workers serve before the first rules are there.
    let loaded = loaded.until_it_serves();
    let serves = control.comes_to(START, |status| status.has_two_workers());
    assert!(serves, "loaded does not serve: {}", last_words(&loaded));
    loaded
}

fn pid_file(lab: &Lab) -> PathBuf {
    lab.state().join("soak.pid")
}

fn last_words(loaded: &Loaded) -> String {
    let log = loaded.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// Replaces the configuration file in one step.
fn configure(lab: &Lab, variant: usize) {
    let path = lab.file("soak.toml.new", &configuration(variant));
    fs::rename(path, lab.state().join("soak.toml")).unwrap();
}

/// Variants differ in the weights and checks of `steady` and `echo`, in the backends of `mortal`, and in a service more.
fn configuration(variant: usize) -> String {
    let (weight, interval) = if variant == 1 { (2, "800ms") } else { (1, "1s") };
    let living = [(1, weight), (2, 1), (3, 1)];
    let mortals: &[_] = if variant == 2 { &[(4, 1), (5, 1)] } else { &[(4, 1), (5, 1), (6, 1)] };
    let steady = format!(
        "strategy = \"maglev\"\n{STICKY}\n{IDLE}\ncheck = {{ kind = \"http\", port = 80, path = \"/small\", \
         interval = \"{interval}\", timeout = \"800ms\", fall = 5 }}"
    );
    let check = "check = { kind = \"tcp\", port = 81, interval = \"500ms\", fall = 2, rise = 1 }";
    let mortal = format!("strategy = \"rr\"\n{FREE}\n{IDLE}\n{check}");
    let echo = format!("strategy = \"rr\"\n{FREE}\n{IDLE}");
    let of = |strategy: &str| format!("strategy = \"{strategy}\"\n{IDLE}");
    let (sink, sink_udp, extra, port) = (of("rr"), of("maglev"), of("weighted"), SINK.to_string());
    let service =
        |name, protocol, ports, keys, backends| Service { name, protocol, ports, keys, backends, ..Service::default() };
    let mut services = vec![
        service("steady", "tcp", "80", &*steady, &living[..]),
        service("mortal", "tcp", "81", &*mortal, mortals),
        service("echo", "udp", "7007", &*echo, &living[..]),
        service("sink", "tcp", &*port, &*sink, &[(NOBODY, 1)]),
        service("sink-udp", "udp", &*port, &*sink_udp, &[(NOBODY, 1)]),
    ];
    if variant == 2 {
        services.push(service("extra", "tcp", "8080", &*extra, &[(1, 1), (2, 1)]));
    }
    format!("cores = \"0-1\"\n{}", config("10s", &services))
}

/// Prepares the network for floods: answers to spoofed sources go to the client host, which ignores them. Packets to the
/// backend of the sinks go to the switch, which has no address.
pub(crate) fn prepare(lab: &Lab) {
    let switch = lab.sh("sw", "cat /sys/class/net/br0/address");
    for (family, network) in Family::BOTH.into_iter().zip(["10.0.0.0/8", "fd00::/8"]) {
        lab.sh("lb", &format!("ip route add {network} via {}", family.client(1)));
        let nobody = family.backend(NOBODY);
        lab.sh("lb", &format!("ip neigh add {nobody} lladdr {} dev eth1 nud permanent", switch.trim()));
    }
}
