//! What a real web server writes into its logs about checks.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::servers::{backends, becomes, service};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Port of the server's own pages, and of the slow one behind it.
const PORT: u16 = 8301;
const BEHIND: u16 = 8302;
/// Paths that are checked, each with what nginx may say of it at the level `info`: nothing where the answer was taken
/// to its end.
const PAGES: [(&str, bool); 5] =
    [("/empty", false), ("/small", false), ("/slow", false), ("/endless", true), ("/large", true)];

/// An nginx beside the lab's, with logs of its own at the level `info`. It is killed when dropped.
struct Nginx(Child);

impl Nginx {
    fn start(lab: &Lab) -> Self {
        let dir = lab.state().join("checked");
        std::fs::create_dir_all(dir.join("tmp")).unwrap();
        // `/slow`, some 850 bytes with its head, takes a second; `/endless` has 4 KB a second of a gibibyte.
        let conf = format!(
            "daemon off; master_process off; pid {d}/pid; error_log {d}/error.log info;\n\
             events {{ worker_connections 512; }}\n\
             http {{ client_body_temp_path {d}/tmp/b; proxy_temp_path {d}/tmp/p; fastcgi_temp_path {d}/tmp/f;\n\
             uwsgi_temp_path {d}/tmp/u; scgi_temp_path {d}/tmp/s; sendfile on;\n\
             log_format l '$request_uri $status'; access_log {d}/access.log l;\n\
             server {{ listen [::]:{PORT} ipv6only=off; root /var/cache/loaded-lab;\n\
             location = /empty {{ return 204; }}\n\
             location = /slow {{ limit_rate 600; rewrite ^ /small break; }}\n\
             location = /endless {{ limit_rate 4k; proxy_pass http://127.0.0.1:{BEHIND}/big; }}\n\
             location = /large {{ rewrite ^ /big break; }} }}\n\
             server {{ listen 127.0.0.1:{BEHIND}; root /var/cache/loaded-lab; access_log off; limit_rate 8k; }} }}\n",
            d = dir.display()
        );
        std::fs::write(dir.join("nginx.conf"), conf).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lab.namespace("b1"), "nginx", "-e", "stderr", "-p"]).arg(&dir);
        command.arg("-c").arg(dir.join("nginx.conf")).stdin(Stdio::null()).stdout(Stdio::null());
        let this = Self(command.spawn().unwrap());
        let listens = || !lab.sh("b1", &format!("ss -Hnlt 'sport = :{PORT}'")).is_empty();
        assert!(eventually(Duration::from_secs(5), listens), "nginx does not listen");
        this
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn nginx_has_nothing_to_complain_of() {
    let Some(lab) = Lab::up() else { return };
    let _nginx = Nginx::start(&lab);
    let one = |(number, (path, _)): (u16, (&str, bool))| {
        let check =
            format!("kind = \"http\", port = {PORT}, path = \"{path}\", interval = \"2500ms\", timeout = \"2s\"");
        service(&path[1..], "tcp", 1000 + number, &format!("check = {{ {check} }}")) + &backends(&[1], "")
    };
    let services: String = (0..).zip(PAGES).map(one).collect();
    let loaded = Loaded::toml(&lab, &format!("cores = \"0-1\"\n{services}"));
    PAGES.iter().for_each(|(path, _)| becomes(&loaded, &path[1..], 1, "up"));
    std::thread::sleep(Duration::from_secs(6));
    // Before the end: a check that is under way then is cut off.
    let (access, errors) =
        (lines(&lab.state().join("checked/access.log")), lines(&lab.state().join("checked/error.log")));
    for (path, may_speak) in PAGES {
        let found: Vec<_> = access.iter().filter(|line| line.starts_with(&format!("{path} "))).collect();
        let status = if path == "/empty" { 204 } else { 200 };
        assert!(found.len() >= 4, "{path}: two checks in each family: {access:?}");
        assert!(found.iter().all(|line| line.ends_with(&format!(" {status}"))), "{path}: {found:?}");
        let said: Vec<_> = errors.iter().filter(|line| line.contains(&format!("GET {path} "))).collect();
        println!("{path}: {} answers, {} lines in the error log: {:?}", found.len(), said.len(), said.first());
        assert!(said.is_empty() || may_speak, "{path}: {said:?}");
    }
    let bad: Vec<_> = errors.iter().filter(|line| !line.contains("[info]") && !line.contains("[notice]")).collect();
    assert!(bad.is_empty(), "{bad:?}");
    loaded.stop();
}
