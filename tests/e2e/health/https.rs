//! Checks over TLS, by checkers of the operator's that the prober asks.

use crate::rig::lab::{Lab, eventually, shipped};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::servers::{backends, becomes, service};
use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);
/// A check starts python, curl and TLS: a busy machine needs more than a moment.
const PACE: &str = "interval = \"1s\", timeout = \"1s\", rise = 1, fall = 2";
/// Runs a program for each connection to a port, as a socket unit of systemd with Accept=yes does.
const ACCEPT: &str = r#"
import socketserver, subprocess, sys
class Check(socketserver.BaseRequestHandler):
    def handle(self): subprocess.run(sys.argv[2:], stdin=self.request, stdout=self.request)
class Server(socketserver.ThreadingTCPServer): allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[1])), Check).serve_forever()
"#;

/// A program in a namespace until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(lab: &Lab, who: &str, words: &[&str]) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(who)]).args(words).current_dir(lab.state());
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// An nginx with these lines within `http`.
fn nginx(lab: &Lab, who: &str, name: &str, http: &str) -> Running {
    let dir = lab.state().join(name);
    fs::create_dir_all(&dir).unwrap();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path temp;\n"));
    let text = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{}{http}\n}}\n",
        paths.concat()
    );
    fs::write(dir.join("nginx.conf"), text).unwrap();
    run(
        lab,
        who,
        &["nginx", "-e", "stderr", "-p", dir.to_str().unwrap(), "-c", dir.join("nginx.conf").to_str().unwrap()],
    )
}

/// A backend that speaks TLS, and is well where `path` says.
fn backend(lab: &Lab, who: &str, status: u16) -> Running {
    let state = lab.state();
    let http = format!(
        "server {{ listen 443 ssl; listen [::]:443 ssl; ssl_certificate {0}/cert.pem; ssl_certificate_key {0}/key.pem;\n\
         location = /health {{ return {status}; }} location / {{ return 404; }} }}",
        state.display()
    );
    nginx(lab, who, &format!("{who}-tls"), &http)
}

fn certificate(lab: &Lab, name: &str) {
    let words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout key.pem -out cert.pem";
    let state = lab.state();
    lab.sh("lb", &format!("cd {} && {words} -subj /CN={name} -addext subjectAltName=DNS:{name} 2>&1", state.display()));
}

/// Whoever connects to a checker can ask of `backend` by GET and HEAD, and of no other address.
fn asks_nobody_else(lab: &Lab, backend: &str) {
    let stranger = SocketAddr::new(Family::V4.backend(3), 443).to_string();
    for port in [974, 975] {
        let ask = |backend: &str, words: &str| {
            let curl = "curl -s -m 5 -o /dev/null -w '%{http_code}' -H 'Host: www.example.com'";
            lab.sh("lb", &format!("{curl} -H 'Loaded-Backend: {backend}' {words} http://127.0.0.1:{port}/health || :"))
        };
        for (backend, words, status) in
            [(backend, "", ["204"; 2]), (backend, "--head", ["204"; 2]), (backend, "-X POST", ["400", "403"])]
        {
            assert!(status.contains(&ask(backend, words).as_str()), "{port}: {words}: {}", ask(backend, words));
        }
        assert_eq!(ask(&stranger, ""), "403", "{port}");
    }
}

#[test]
fn backends_are_checked_over_tls_by_curl_and_by_nginx() {
    let Some(lab) = Lab::up() else { return };
    certificate(&lab, "www.example.com");
    let cert = lab.state().join("cert.pem").display().to_string();
    let checker = shipped("scripts/checks/https-by-curl");
    let all = Family::BOTH.into_iter().flat_map(|family| (1..=2).map(move |n| SocketAddr::new(family.backend(n), 443)));
    let all: Vec<_> = all.map(|backend| backend.to_string()).collect();
    let allowed = format!("BACKENDS={}", all.join(" "));
    let curl = || run(&lab, "lb", &["env", &allowed, "python3", "-c", ACCEPT, "974", &checker, "--cacert", &cert]);
    let by_nginx = fs::read_to_string(shipped("scripts/checks/https-by-nginx.conf")).unwrap();
    let map: String = all.iter().map(|backend| format!("\"{backend}\" 1;\n")).collect();
    let by_nginx = by_nginx
        .replace("/etc/ssl/certs/ca-certificates.crt", &cert)
        .replace("default 0;", &format!("default 0;\n{map}"));
    let (by_curl, _by_nginx) = (curl(), nginx(&lab, "lb", "checker", &by_nginx));
    let (first, second) = (backend(&lab, "b1", 204), backend(&lab, "b2", 204));

    let check = |port: u16, host: &str| {
        let what = format!("port = 443, host = \"{host}\", path = \"/health\", status = 204");
        format!("check = {{ kind = \"http\", via = \"127.0.0.1:{port}\", {what}, {PACE} }}\n")
    };
    let named =
        [("curl", 974, "www.example.com"), ("nginx", 975, "www.example.com"), ("other", 974, "www.example.org")];
    let services = (443..)
        .zip(named)
        .map(|(port, (name, at, host))| service(name, "tcp", port, &check(at, host)) + &backends(&[1, 2], ""));
    let loaded = Loaded::toml(&lab, &format!("cores = \"0-1\"\n{}", services.collect::<String>()));
    for (name, state) in [("curl", "up"), ("nginx", "up"), ("other", "down")] {
        (1..=2).for_each(|n| becomes(&loaded, name, n, state));
    }
    assert_eq!(
        loaded.backend("other", Family::V4.backend(1))["cause"],
        "HTTP status 502",
        "a certificate of another name"
    );

    asks_nobody_else(&lab, &all[0]);

    // It answers, and is not well; it is gone; it is back.
    drop(first);
    let ill = backend(&lab, "b1", 503);
    for name in ["curl", "nginx"] {
        becomes(&loaded, name, 1, "down");
        assert_eq!(loaded.backend(name, Family::V6.backend(2))["state"], "up");
    }
    let cause = |name: &str| loaded.backend(name, Family::V4.backend(1))["cause"].clone();
    assert!(
        eventually(WAIT, || cause("curl") == "HTTP status 503" && cause("nginx") == "HTTP status 503"),
        "{}",
        cause("curl")
    );
    drop((ill, second));
    ["curl", "nginx"].iter().for_each(|name| becomes(&loaded, name, 2, "down"));
    let _all = [backend(&lab, "b1", 204), backend(&lab, "b2", 204)];
    ["curl", "nginx"].iter().for_each(|name| (1..=2).for_each(|n| becomes(&loaded, name, n, "up")));

    // That a checker is gone says nothing of a backend.
    drop(by_curl);
    assert!(eventually(WAIT, || cause("curl") == "check could not be made"), "{}", cause("curl"));
    std::thread::sleep(Duration::from_secs(3));
    for backend in Family::BOTH.iter().flat_map(|family| [family.backend(1), family.backend(2)]) {
        assert_eq!(loaded.backend("curl", backend)["state"], "up");
    }
    let _again = curl();
    assert!(eventually(WAIT, || cause("curl") == "check passed"), "{}", cause("curl"));
    loaded.stop();
}
