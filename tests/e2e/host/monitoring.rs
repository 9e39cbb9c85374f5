//! The alerts and the dashboard that are shipped, in Debian's Prometheus.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually, shipped};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);

/// Serves what `loaded metrics` says as node_exporter would, and scrapes it twice a second.
const CONFIG: &str = "
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: loaded
    metrics_path: /loaded.prom
    static_configs: [{targets: ['127.0.0.1:9100']}]
";

/// A program in the balancer's namespace until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(lab: &Lab, words: &[&str]) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace("lb")]).args(words).current_dir(lab.state());
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn text_of(name: &str) -> String {
    fs::read_to_string(shipped(&format!("scripts/monitoring/{name}"))).unwrap()
}

/// What Prometheus answers; `None`: it does not yet.
fn asked(lab: &Lab, path: &str, arguments: &[&str]) -> Option<Value> {
    let url = format!("http://127.0.0.1:9090/api/v1/{path}");
    let said = lab.exec("lb", &[&["curl", "-sS", "--max-time", "5", "-G", &url], arguments].concat());
    let answer: Value = serde_json::from_str(&said.out).ok()?;
    (answer["status"] == "success").then(|| answer["data"].clone())
}

#[test]
fn alerts_and_dashboard_are_understood_and_come() {
    let Some(lab) = Lab::up() else { return };
    let service = Service { keys: FREE, backends: &[(1, 1), (2, 1)], ..Service::default() };
    let loaded = Loaded::toml(&lab, &config("5s", &[service]));
    let write = || {
        // Whole or not at all, as the shipped unit does.
        let new = lab.file("loaded.new", &loaded.ask(&["metrics"]).out);
        fs::rename(new, lab.state().join("loaded.prom")).unwrap();
    };
    write();
    lab.file("alerts.yml", &text_of("alerts.yml"));
    lab.file("prometheus.yml", CONFIG);
    let _served = run(&lab, &["python3", "-m", "http.server", "--bind", "127.0.0.1", "9100"]);
    let words = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", "--log.level=error"];
    let _prometheus = run(&lab, &[&words[..], &["--web.listen-address=127.0.0.1:9090"]].concat());

    let query = |expression: &str| asked(&lab, "query", &["--data-urlencode", &format!("query={expression}")]);
    let results = |expression: &str| query(expression).map_or(0, |data| data["result"].as_array().unwrap().len());
    let serves = || results("loaded_verdict{verdict=\"serving\"} == 1") == 1;
    assert!(eventually(WAIT, serves), "{:?}", query("loaded_verdict"));
    let rules = asked(&lab, "rules", &[]).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 15 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:#?}");

    let metrics = loaded.ask(&["metrics"]).out;
    let dashboard: Value = serde_json::from_str(&text_of("dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let filled =
                expression.replace("$instance", ".*").replace("$service", ".*").replace("$__rate_interval", "1m");
            assert!(query(&filled).is_some(), "Prometheus does not understand {filled}");
            // It is about figures that there are, whatever they are now.
            let name = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let name = name.into_iter().find(|word| word.starts_with("loaded_")).unwrap();
            assert!(metrics.contains(&format!("# TYPE {name} ")), "loaded has no {name}");
        }
    }

    let alerts = || asked(&lab, "alerts", &[]).unwrap()["alerts"].to_string();
    assert_eq!(alerts(), "[]");
    for (family, n) in Family::BOTH.into_iter().flat_map(|family| [(family, 1), (family, 2)]) {
        loaded.ask(&["backend", "disable", &family.backend(n).to_string()]);
    }
    let told = || {
        write();
        ["LoadedNotServing", "LoadedServiceDown"].iter().all(|alert| alerts().contains(alert))
    };
    assert!(eventually(WAIT, told), "{}", alerts());
    loaded.stop();
}
