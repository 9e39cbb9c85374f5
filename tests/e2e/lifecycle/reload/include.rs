//! Backends from included files, which the shipped script writes by a real name server.

use crate::rig::config::{STICKY, Service, config};
use crate::rig::lab::{Lab, Said, binary, eventually, root};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::net::{Family, backend_of, get};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

const NAME: &str = "web.backends.example";
const SERVER: &str = "127.0.0.53";

/// dnsmasq, which ends with the lab.
struct NameServer<'l>(&'l Lab);

impl<'l> NameServer<'l> {
    fn start(lab: &'l Lab) -> Self {
        let this = Self(lab);
        fs::write(lab.state().join("resolv.conf"), format!("nameserver {SERVER}\noptions timeout:1 attempts:1\n"))
            .unwrap();
        fs::write(this.hosts(), "").unwrap();
        let options = format!(
            "--conf-file=/dev/null --user=root --no-resolv --no-hosts --bind-interfaces --listen-address={SERVER} \
             --addn-hosts={} --pid-file={}",
            this.hosts().display(),
            lab.state().join("dnsmasq.pid").display()
        );
        lab.sh("lb", &format!("dnsmasq {options}"));
        this
    }

    fn hosts(&self) -> std::path::PathBuf {
        self.0.state().join("hosts")
    }

    /// From now on the name has these addresses.
    fn says(&self, addresses: &[IpAddr]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
        fs::write(self.hosts(), lines).unwrap();
        let pid = fs::read_to_string(self.0.state().join("dnsmasq.pid")).unwrap();
        signal_to(pid.trim().parse().unwrap(), Signal::SIGHUP);
        let wanted: BTreeSet<_> = addresses.iter().copied().collect();
        let known = || {
            let said = self.by_it(&format!("getent ahosts {NAME} | cut -d' ' -f1"));
            said.out.lines().map(|line| line.parse().unwrap()).collect::<BTreeSet<IpAddr>>()
        };
        assert!(eventually(Duration::from_secs(5), || known() == wanted), "{:?} instead of {wanted:?}", known());
    }

    /// Runs a shell script that asks this name server.
    fn by_it(&self, script: &str) -> Said {
        let resolv = self.0.state().join("resolv.conf");
        let script = format!("mount --bind {} \"$(realpath /etc/resolv.conf)\" && {script}", resolv.display());
        self.0.exec("lb", &["unshare", "--mount", "sh", "-c", &script])
    }
}

impl Drop for NameServer<'_> {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.0.state().join("dnsmasq.pid")).unwrap();
        signal_to(pid.trim().parse().unwrap(), Signal::SIGTERM);
    }
}

fn of(numbers: &[u16]) -> Vec<IpAddr> {
    numbers.iter().flat_map(|n| Family::BOTH.map(|family| family.backend(*n))).collect()
}

#[test]
fn backends_follow_a_dns_name() {
    let Some(lab) = Lab::up() else { return };
    let names = NameServer::start(&lab);
    let directory = lab.state().join("backends.d");
    fs::create_dir(&directory).unwrap();
    let service = config("1s", &[Service { backends: &[], keys: STICKY, ..Service::default() }]);
    let main = lab.file("loaded.toml", &format!("include = [\"backends.d/*.toml\"]\n{service}"));
    let script = |reload: &str| {
        let words = [
            format!("DIRECTORY={} CONFIG={main} RELOAD={reload:?}", directory.display()),
            format!("LOADED={}", binary().display()),
            root().join("scripts/membership/backends-from-dns").display().to_string(),
        ];
        names.by_it(&format!("env {} web {NAME}", words.join(" ")))
    };
    // At first the file is written, and nothing runs that could be reloaded.
    names.says(&of(&[1]));
    let said = script("true");
    assert_eq!(said.code, Some(0), "{said:?}");
    let loaded = Loaded::start(&lab, &["-c".to_owned(), main.clone()]);
    let serve = |numbers: &[u16]| {
        for family in Family::BOTH {
            let wanted: BTreeSet<_> = numbers.iter().map(|n| format!("b{n}")).collect();
            let one = |n| backend_of(&get(family.client(n), family.vip(), 80).unwrap(), family.client(n));
            let found = || lab.within("client", || (10..40).map(one).collect::<BTreeSet<_>>());
            assert!(eventually(Duration::from_secs(5), || found() == wanted), "{family:?}: {:?}", found());
        }
    };
    serve(&[1]);
    let reload = format!("kill -HUP {}", loaded.pid());
    names.says(&of(&[2, 3]));
    let said = script(&reload);
    assert!(said.code == Some(0) && said.err.contains("web has the backends"), "{said:?}");
    let generation = || loaded.status()["generation"].as_u64().unwrap();
    assert!(eventually(Duration::from_secs(10), || generation() == 2), "no reload");
    serve(&[2, 3]);
    // The same again is no change, and no reload.
    assert_eq!((script("false").code, generation()), (Some(0), 2));
    let written = fs::read_to_string(directory.join("web.toml")).unwrap();
    let stays = |why: &str| {
        let said = script(&reload);
        assert!(said.code == Some(1) && said.err.contains(why), "{said:?}");
        assert_eq!(fs::read_to_string(directory.join("web.toml")).unwrap(), written);
        let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((files, generation()), (vec!["web.toml".into()], 2));
    };
    names.says(&[]);
    stays("has no address");
    names.says(&[Family::V4.vip(), Family::V6.vip()]);
    stays("do not fit");
    // A broken file, whoever wrote it, changes nothing either.
    fs::write(directory.join("other.toml"), "[[backend]]\nservice = \"wbe\"\naddress = \"198.51.100.11\"\n").unwrap();
    let (ok, said) = loaded.reload();
    assert!(!ok && said.contains("other.toml:2:11: there is no service \"wbe\"; did you mean web?"), "{said}");
    serve(&[2, 3]);
    drop(names);
    loaded.stop();
}
