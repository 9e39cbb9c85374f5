//! Metrics and the status page by HTTP, from a process of its own: scraped by Debian's Prometheus, through reload, upgrade and
//! kills.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, Said, eventually};
use crate::rig::loaded::{Loaded, children, lives, signal_to};
use crate::rig::net::Family;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(15);
const ADDRESS: &str = "127.0.0.1:9273";

const PROMETHEUS: &str = "
global: {scrape_interval: 500ms, scrape_timeout: 500ms}
scrape_configs:
  - job_name: loaded
    static_configs: [{targets: ['127.0.0.1:9273']}]
";

fn text(top: &str) -> String {
    let service = Service { keys: FREE, backends: &[(1, 1)], ..Service::default() };
    format!("{top}\n{}", config("5s", &[Service { keys: &format!("{FREE}\ncheck = {{ kind = \"tcp\" }}"), ..service }]))
}

fn metrics_at(address: &str) -> String {
    text(&format!("metrics = {address:?}"))
}

/// What curl gets: the status, and the content.
fn curl(lab: &Lab, words: &[&str]) -> (String, String) {
    let fixed = ["curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}"];
    let Said { out, .. } = lab.exec("lb", &[&fixed[..], words].concat());
    let (content, status) = out.rsplit_once('\n').unwrap_or(("", &out));
    (status.to_owned(), content.to_owned())
}

fn get(lab: &Lab, path: &str) -> (String, String) {
    curl(lab, &[&format!("http://{ADDRESS}{path}")])
}

fn serves(lab: &Lab) -> bool {
    get(lab, "/health") == ("200".to_owned(), "serving\n".to_owned())
}

fn exporter(loaded: &Loaded) -> Option<u32> {
    let is_one =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "loaded-exporter\n");
    children(loaded.pid()).into_iter().find(is_one)
}

/// A program in the balancer's namespace until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prometheus(lab: &Lab) -> Running {
    lab.file("prometheus.yml", PROMETHEUS);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("lb"), "prometheus", "--config.file=prometheus.yml"]);
    command.args(["--storage.tsdb.path=tsdb", "--log.level=error", "--web.listen-address=127.0.0.1:9090"]);
    command.current_dir(lab.state()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running(command.spawn().unwrap())
}

/// What Prometheus answers; `None`: it does not yet.
fn asked(lab: &Lab, path: &str) -> Option<Value> {
    let (_, text) = curl(lab, &[&format!("http://127.0.0.1:9090/api/v1/{path}")]);
    let answer: Value = serde_json::from_str(&text).ok()?;
    (answer["status"] == "success").then(|| answer["data"].clone())
}

#[test]
fn prometheus_scrapes_it_and_browsers_see_the_status() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &metrics_at(ADDRESS));
    assert!(eventually(WAIT, || serves(&lab)), "{:?}: {}", get(&lab, "/health"), loaded.log());
    let _prometheus = prometheus(&lab);

    let (status, metrics) = get(&lab, "/metrics");
    assert!(status == "200" && metrics.ends_with("\n# EOF\n"), "{metrics}");
    let head = curl(&lab, &["-I", &format!("http://{ADDRESS}/metrics")]).1.to_lowercase();
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let (status, page) = get(&lab, "/");
    assert_eq!(status, "200");
    for shown in ["serving</span>", "<h2>web</h2>", &Family::V6.backend(1).to_string(), "<td>exporter</td>"] {
        assert!(page.contains(shown), "no {shown}: {page}");
    }
    let head = curl(&lab, &["-I", &format!("http://{ADDRESS}/")]).1.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'; style-src 'self'"), "{head}");
    assert!(get(&lab, "/style.css").1.contains("prefers-color-scheme"));
    assert_eq!(get(&lab, "/control").0, "404");
    assert_eq!(curl(&lab, &["-d", "x", &format!("http://{ADDRESS}/")]).0, "405");
    let long = format!("a: {}", "b".repeat(5000));
    assert_eq!(curl(&lab, &["-H", &long, &format!("http://{ADDRESS}/")]).0, "431");

    let up = || asked(&lab, "query?query=up").is_some_and(|data| data["result"][0]["value"][1] == "1");
    assert!(eventually(WAIT, up), "{:?}", asked(&lab, "targets"));
    let found = |metric: &str| asked(&lab, &format!("metadata?metric={metric}")).unwrap_or_default()[metric][0].clone();
    let kind = |metric: &str| found(metric)["type"].as_str().unwrap_or_default().to_owned();
    assert!(eventually(WAIT, || kind("loaded_check_duration_seconds") == "histogram"));
    let serving = || asked(&lab, "query?query=loaded_verdict%7Bverdict=%22serving%22%7D==1");
    assert!(eventually(WAIT, || serving().is_some_and(|data| !data["result"].as_array().unwrap().is_empty())));

    for family in Family::BOTH {
        loaded.ask(&["backend", "disable", &family.backend(1).to_string()]);
    }
    let refuses = || get(&lab, "/health").0 == "503";
    assert!(eventually(WAIT, refuses), "{:?}", get(&lab, "/health"));
    assert!(get(&lab, "/health").1.starts_with("not serving\n"));
    loaded.stop();
    assert_eq!(get(&lab, "/health").0, "000");
}

#[test]
fn it_outlives_kills_reloads_and_upgrades() {
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &metrics_at(ADDRESS));
    assert!(eventually(WAIT, || serves(&lab)), "{}", loaded.log());
    let killed = exporter(&loaded).unwrap();
    signal_to(killed, Signal::SIGKILL);
    assert!(
        eventually(WAIT, || exporter(&loaded).is_some_and(|pid| pid != killed) && serves(&lab)),
        "{}",
        loaded.log()
    );

    // By the socket that is handed over: nobody is refused meanwhile.
    let begun = loaded.begin_upgrade();
    let mut asked = 0;
    let mut refused = Vec::new();
    while loaded.pid() != begun && !loaded.log().contains(&format!("pid {begun} serves now")) {
        let answer = get(&lab, "/health");
        asked += 1;
        refused.extend(Some(answer).filter(|(status, _)| status == "000"));
        assert!(asked < 3000, "{}", loaded.log());
    }
    loaded.is_followed_by(begun);
    assert!(refused.is_empty(), "{refused:?} of {asked}");
    assert!(eventually(WAIT, || serves(&lab)), "{}", loaded.log());

    // Another address, for a group; then none.
    let path = lab.state().join("metrics.sock");
    let unix = format!("metrics = \"unix:{}\"\nmonitor_group = \"adm\"", path.display());
    lab.file("loaded.toml", &text(&unix));
    assert!(loaded.reload().0, "{}", loaded.log());
    let at_path = || curl(&lab, &["--unix-socket", path.to_str().unwrap(), "http://loaded/health"]).0 == "200";
    assert!(eventually(WAIT, at_path), "{}", loaded.log());
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_ne!(metadata.gid(), 0, "it belongs to the group");
    assert_eq!(get(&lab, "/health").0, "000");
    lab.file("loaded.toml", &text(""));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert!(eventually(WAIT, || !path.exists() && exporter(&loaded).is_none()), "{}", loaded.log());

    // An address that somebody else has: the reload is refused, and nothing changes.
    lab.file("loaded.toml", &metrics_at(ADDRESS));
    assert!(loaded.reload().0, "{}", loaded.log());
    assert!(eventually(WAIT, || serves(&lab)), "{}", loaded.log());
    let other = lab.within("lb", || std::net::TcpListener::bind("127.0.0.1:9274").unwrap());
    lab.file("loaded.toml", &metrics_at("127.0.0.1:9274"));
    let (ok, why) = loaded.reload();
    assert!(!ok && why.contains("listen on 127.0.0.1:9274") && serves(&lab), "{why}");
    drop(other);
    // A port that only a start has the right to.
    lab.file("loaded.toml", &metrics_at("127.0.0.1:974"));
    let (ok, why) = loaded.reload();
    assert!(!ok && why.contains("listen on 127.0.0.1:974") && why.contains("start anew") && serves(&lab), "{why}");

    lab.file("loaded.toml", &metrics_at(ADDRESS));
    let orphan = exporter(&loaded).unwrap();
    loaded.end(Signal::SIGKILL);
    assert!(eventually(WAIT, || !lives(orphan)), "it dies with its supervisor");
    let loaded = Loaded::toml(&lab, &metrics_at(ADDRESS));
    assert!(eventually(WAIT, || serves(&lab)), "{}", loaded.log());
    loaded.stop();
}

#[test]
fn those_who_do_not_finish_keep_nobody_out() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &metrics_at(ADDRESS));
    assert!(eventually(WAIT, || serves(&lab)), "{}", loaded.log());
    // More than there is room for, each with the beginning of a request.
    let connect = || {
        let mut stream = TcpStream::connect(ADDRESS).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
        stream
    };
    let mut slow: Vec<_> = lab.within("lb", || (0..100).map(|_| connect()).collect());
    let begin = Instant::now();
    assert!(serves(&lab), "{:?}", get(&lab, "/health"));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = Vec::new();
        // Ended, or reset: nobody is kept.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let exporters = loaded.status()["processes"].as_array().unwrap().clone();
    let exporter = exporters.iter().find(|process| process["role"] == "exporter").unwrap();
    assert_eq!((&exporter["restarts"], &exporter["sandbox_kills"]), (&0.into(), &0.into()));
    loaded.stop();
}
