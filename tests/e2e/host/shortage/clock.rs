//! libfaketime sets the supervisor's wall clock forward and back by an hour; the host's is left alone. Worker and prober
//! never read the wall clock (`scripts/test shape`), and their environment is empty.

use super::{comes_back, unnoticed};
use crate::rig::lab::eventually;
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::Family;
use crate::rig::servers::{Mood, PORT, backends, becomes, service, webs};
use crate::rig::witness::ECHO;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Debian's package libfaketime puts it there, in a directory of the architecture's.
fn library() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = directories.map(|path| path.join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "libfaketime is missing: apt-get install faketime");
        println!("skipped: libfaketime is missing");
    }
    found
}

fn text() -> String {
    let check = format!(
        "check = {{ kind = \"http\", port = {PORT}, path = \"/\", interval = \"300ms\", timeout = \"200ms\", rise = 2, \
         fall = 2 }}\nslow_start = \"30s\""
    );
    let services = [("web", "tcp", 80, ""), ("echo", "udp", ECHO, ""), ("checked", "tcp", 81, &check)];
    let backends = backends(&[1, 2, 3], "");
    let each = services.map(|(name, protocol, port, keys)| service(name, protocol, port, keys) + &backends);
    format!("cores = \"0-1\"\nqueue_len = 16384\n{}", each.concat())
}

/// Removes what libfaketime leaves behind when its process is killed.
struct Traces(u32);

impl Drop for Traces {
    fn drop(&mut self) {
        for name in ["faketime_shm", "sem.faketime_sem"] {
            // After an orderly end there is none.
            let _ = fs::remove_file(format!("/dev/shm/{name}_{}", self.0));
        }
    }
}

/// Seconds since 1970, as the supervisor must see it.
fn seconds(offset: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + offset
}

#[track_caller]
fn is_about(at: &serde_json::Value, want: i64, slack: i64, what: &str) {
    let at = at.as_i64().unwrap_or_else(|| panic!("{what}: {at}"));
    assert!((want - at).abs() <= slack, "{what}: {at}, not {want}");
}

#[test]
fn a_clock_that_jumps_by_an_hour_moves_nothing_but_dates() {
    paired(|lab| {
        let Some(library) = library() else { return };
        let servers = webs(lab);
        let (config, clock) = (lab.file("loaded.toml", &text()), lab.file("clock", "+0"));
        let loaded = Loaded::spawn_with(lab, |command| {
            command.args(["-D", "-c", &config]).env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        })
        .until_it_serves();
        let _traces = Traces(loaded.pid());
        comes_back(&loaded, 4);
        (1..=3).for_each(|n| becomes(&loaded, "checked", n, "up"));
        let children: Vec<_> = loaded.workers().into_iter().chain(loaded.prober()).collect();
        for pid in &children {
            assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "environment of {pid}");
        }
        let drained = Family::V6.backend(3).to_string();
        let order = |words: &[&str]| {
            let said = loaded.ask(&[&["backend"], words, &[&drained, "--service", "checked"]].concat());
            assert_eq!(said.code, Some(0), "{}", said.err);
        };
        let admin = || loaded.backend("checked", Family::V6.backend(3))["admin"].clone();
        let mut events = 0;
        unnoticed(lab, || {
            for offset in [3600_i64, -3600, 0] {
                // The deadline of a drain begins before the jump and ends after it.
                order(&["drain", "--deadline", "2s"]);
                lab.file("clock.new", &format!("{offset:+}"));
                fs::rename(lab.state().join("clock.new"), &clock).unwrap();
                let status = loaded.status();
                is_about(&status["now"], seconds(offset), 5, "the clock has not jumped");
                assert_eq!(admin(), "draining");
                // Found down and up again in the time that checks take.
                servers[0].set(Mood::Says(500));
                becomes(&loaded, "checked", 1, "down");
                servers[0].set(Mood::Says(200));
                becomes(&loaded, "checked", 1, "up");
                assert!(eventually(Duration::from_secs(5), || admin() == "disabled"), "the deadline does not pass");
                order(&["enable"]);
                let backend = loaded.backend("checked", Family::V4.backend(1));
                let left = backend["slow_start_left"].as_u64().unwrap_or_else(|| panic!("{backend}"));
                assert!((20..=30).contains(&left), "{backend}");
                let status = loaded.status();
                is_about(&backend["since"], seconds(offset), 8, "since when it is up");
                for process in status["processes"].as_array().unwrap() {
                    is_about(&process["since"], seconds(offset), 120, "since when a process is there");
                }
                is_about(&status["since"], seconds(offset), 120, "since when the instance is there");
                // In the order in which things happened, whatever their dates.
                let history = loaded.json(&["history", "-n", "1000"]);
                let news = &history.as_array().unwrap()[events..];
                events += news.len();
                assert!(news.len() >= 6, "{news:?}");
                news.iter().for_each(|event| {
                    let at = event["at"].as_i64().unwrap() / 1000;
                    // The drain was ordered before the jump.
                    let is_drain = event["by"] == "operator" && event["what"].as_str().unwrap().contains("drain");
                    assert!(is_drain || (at - seconds(offset)).abs() <= 60, "{event}");
                });
                let said = loaded.ask(&["status"]);
                assert!(said.code == Some(0) && loaded.ask(&["metrics"]).code == Some(0), "{}", said.err);
            }
        });
        let now: Vec<_> = loaded.workers().into_iter().chain(loaded.prober()).collect();
        assert_eq!(now, children, "a process was replaced: {}", loaded.log());
        loaded.stop();
    });
}
