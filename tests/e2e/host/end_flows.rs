//! `loaded flows --end`: the named flows end for both sides, by the queue and by the kernel path, and all others live on.

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial};
use crate::rig::requests::{download, small_buffers};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
/// Clients by the last number of their addresses.
const NAMED: u16 = 11;
const OTHER: u16 = 12;

fn open(lab: &Lab, client: u16) -> Vec<TcpStream> {
    let one = |family: Family| dial(family.client(client), SocketAddr::new(family.vip(), 80)).unwrap();
    lab.within("client", || Family::BOTH.map(one).into_iter().collect())
}

/// One request by a connection that stays open.
fn request(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut buffer = [0; 4096];
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: lab\r\n\r\n").map_err(|error| error.kind())?;
    let mut answer = Vec::new();
    while String::from_utf8_lossy(&answer).split_once("\r\n\r\n").is_none_or(|(_, body)| body.len() < 612) {
        match stream.read(&mut buffer).map_err(|error| error.kind())? {
            0 => return Err(ErrorKind::UnexpectedEof),
            n => answer.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(())
}

fn end(loaded: &Loaded, client: IpAddr) -> u64 {
    let ended = loaded.json(&["flows", "--end", "--client", &client.to_string()]);
    assert_eq!(ended["unsaid"].as_array().map(Vec::len), Some(0), "{ended}");
    ended["ended"].as_u64().unwrap()
}

/// A client's connections that are open in the backends' kernels.
fn open_at_backends(lab: &Lab, client: IpAddr) -> usize {
    let count = |who: &str| lab.sh(who, &format!("ss -Htn state established dst [{client}] | wc -l"));
    ["b1", "b2"].iter().map(|who| count(who).trim().parse::<usize>().unwrap()).sum()
}

#[test]
fn named_flows_end_and_others_live_on() {
    let Some(lab) = Lab::up() else { return };
    small_buffers(&lab);
    for fast in ["off", "auto"] {
        let text = format!("cores = \"0-1\"\nfast = {fast:?}\n{}", config("60s", &[Service::default()]));
        let loaded = Loaded::toml(&lab, &text);
        let (mut named, mut others) = (open(&lab, NAMED), open(&lab, OTHER));
        for stream in named.iter_mut().chain(&mut others) {
            (0..20).for_each(|_| request(stream).unwrap());
        }
        let path = if fast == "auto" { "kernel" } else { "queue" };
        let by = || loaded.json(&["flows", "--state", "established"])["flows"].clone();
        let all_by = || by().as_array().unwrap().iter().filter(|flow| flow["path"] == path).count() == 4;
        assert!(eventually(SOON, all_by), "{fast}: {}", by());
        let refused = loaded.ask(&["flows", "--end"]);
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
        let nobody = loaded.ask(&["flows", "--end", "--service", "wep"]);
        assert!(nobody.code == Some(1) && nobody.err.contains("there is no service \"wep\""), "{}", nobody.err);
        for (family, stream) in Family::BOTH.into_iter().zip(&mut named) {
            assert_eq!(end(&loaded, family.client(NAMED)), 1, "{fast}: {}", loaded.ask(&["flows"]).out);
            let listed = loaded.json(&["flows", "--state", "ended", "--client", &family.client(NAMED).to_string()]);
            assert_eq!(listed["matched"], 1, "{fast}: {listed}");
            let began = Instant::now();
            assert_eq!(request(stream), Err(ErrorKind::ConnectionReset), "{fast}: {family:?}");
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}: not at its first packet", began.elapsed());
        }
        others.iter_mut().for_each(|stream| (0..20).for_each(|_| request(stream).unwrap()));
        // A new connection is none of those that were named.
        open(&lab, NAMED).iter_mut().for_each(|stream| request(stream).unwrap());
        ends_downloads(&lab, &loaded);
        let history = loaded.json(&["history"]);
        assert!(history.to_string().contains("1 flows ended"), "{history}");
        others.iter_mut().for_each(|stream| request(stream).unwrap());
        loaded.stop();
    }
}

/// Where the backend sends, it is told first.
fn ends_downloads(lab: &Lab, loaded: &Loaded) {
    for family in Family::BOTH {
        let client = family.client(20);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| download(lab, client, SocketAddr::new(family.vip(), 80), 1 << 30, "300k"));
            assert!(eventually(SOON, || open_at_backends(lab, client) == 1), "no download");
            assert_eq!(end(loaded, client), 1);
            let said = running.join().unwrap();
            assert!(said.code == Some(56) && said.err.contains("Connection reset by peer"), "{said:?}");
        });
        assert!(eventually(SOON, || open_at_backends(lab, client) == 0), "{family:?}: the backend's side stays open");
    }
}
