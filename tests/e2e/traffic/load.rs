//! Load: many connections, and a large download on one.

use crate::rig::lab::setting;
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::Family;

fn url(family: Family, path: &str) -> String {
    match family {
        Family::V4 => format!("http://{}/{path}", family.vip()),
        Family::V6 => format!("http://[{}]/{path}", family.vip()),
    }
}

/// Load on 64 connections: no socket error, and every answer is 200.
fn wrk(header: &str) {
    paired(|lab| {
        let loaded = Loaded::classic(lab);
        let duration = format!("-d{}s", setting("E2E_WRK_SECONDS", 5));
        for family in Family::BOTH {
            let said = lab.exec("client", &["wrk", "-t2", "-c64", &duration, "-H", header, &url(family, "small")]);
            println!("{family:?} {header}\n{}", said.out);
            assert_eq!(said.code, Some(0), "wrk: {}", said.err);
            for problem in ["Socket errors", "Non-2xx"] {
                assert!(!said.out.contains(problem), "{family:?} {header}: {}", said.out);
            }
            let line = said.out.lines().find(|line| line.contains(" requests in ")).unwrap();
            let requests: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
            assert!(requests > 1000, "{family:?}: {line}");
        }
        for worker in loaded.counters() {
            assert_eq!(worker.received, worker.outcomes(), "{worker:?}");
            assert_eq!(worker.of("dropped_table_full") + worker.of("dropped_undecided"), 0, "{worker:?}");
        }
        loaded.stop();
    });
}

#[test]
fn keep_alive_without_socket_errors() {
    wrk("Connection: keep-alive");
}

#[test]
fn new_connections_without_socket_errors() {
    wrk("Connection: close");
}

/// With segmentation offload: packets of up to 64 KiB, each rewritten as one.
#[test]
fn a_large_download_is_intact() {
    paired(|lab| {
        let loaded = Loaded::classic(lab);
        let file = std::env::var("LAB_DATA").unwrap_or("/var/cache/loaded-lab".to_owned()) + "/big";
        let bytes = setting("E2E_DOWNLOAD_BYTES", std::fs::metadata(&file).unwrap().len());
        let expected = lab.sh("client", &format!("head -c {bytes} {file} | sha256sum"));
        for family in Family::BOTH {
            let range = format!("0-{}", bytes - 1);
            let curl = format!("curl -gsSf --max-time 120 -r {range} '{}' | sha256sum", url(family, "big"));
            let began = std::time::Instant::now();
            assert_eq!(lab.sh("client", &curl), expected, "{family:?}: sha256 of {bytes} bytes");
            println!("{family:?}: {bytes} bytes in {:.1} s", began.elapsed().as_secs_f32());
        }
        let packets = loaded.count("returned");
        assert!(packets < 2 * bytes / 4000, "{packets} packets for {bytes} bytes twice: segmentation offload is off");
        loaded.stop();
    });
}
