//! DSR backends that fail, or are taken out.

use super::{ALL, answering, text};
use crate::rig::config::FREE;
use crate::rig::direct_return::up;
use crate::rig::lab::{BACKENDS, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, dial};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

#[test]
fn a_backend_that_dies_is_taken_out_and_its_clients_are_told() {
    let Some(lab) = up() else { return };
    let check = "check = { kind = \"http\", interval = \"300ms\", timeout = \"300ms\", fall = 2, rise = 2, port = 80 }";
    let loaded = Loaded::toml(&lab, &text(FREE, check, ALL));
    let all = || BACKENDS.map(str::to_owned).into();
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), all(), "{family:?}");
    }
    let is_up = |up: bool| {
        let both = Family::BOTH.map(|family| loaded.backend("web", family.backend(1))["state"] == "up");
        both == [up; 2]
    };
    assert!(eventually(Duration::from_secs(5), || is_up(true)));
    lab.kill_web("b1");
    assert!(eventually(Duration::from_secs(5), || is_up(false)));
    // Workers look at what the prober has said every 50 ms.
    std::thread::sleep(Duration::from_millis(300));
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), ["b2", "b3"].map(str::to_owned).into(), "{family:?}");
    }
    lab.start_web("b1");
    assert!(eventually(Duration::from_secs(5), || is_up(true)));
    std::thread::sleep(Duration::from_millis(300));
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), all(), "{family:?}");
    }
    loaded.stop();
}

#[test]
fn the_client_of_a_backend_that_is_disabled_gets_a_reset_from_the_vip() {
    let Some(lab) = up() else { return };
    let loaded = Loaded::toml(&lab, &text(FREE, "", &[(1, 1)]));
    for family in Family::BOTH {
        let client = family.client(20);
        let mut stream = lab.within("client", || dial(client, SocketAddr::new(family.vip(), 80)).unwrap());
        let request = b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n";
        stream.write_all(request).unwrap();
        assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
        let address = family.backend(1).to_string();
        assert_eq!(loaded.ask(&["backend", "disable", &address]).code, Some(0));
        std::thread::sleep(Duration::from_millis(200));
        let sent = stream.write_all(request);
        let end = sent.and_then(|()| stream.read(&mut [0; 1000]));
        assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset), "{family:?}");
        assert_eq!(loaded.ask(&["backend", "enable", &address]).code, Some(0));
    }
    loaded.stop();
}

/// The services, each with a check that does more than ping.
fn checked(web: &str) -> String {
    let pace = "interval = \"400ms\", timeout = \"400ms\", fall = 2, rise = 2";
    let web = format!("check = {{ {web}, {pace} }}");
    let text = text(FREE, &web, ALL);
    // The echo of the lab listens at the VIP alone.
    let udp = format!("ports = [7009]\ncheck = {{ kind = \"udp\", send = \"x\", expect = \"b\", {pace} }}");
    text.replace("ports = [7009]", &udp)
}

#[test]
fn checks_ask_for_the_vip_on_each_backend() {
    let Some(lab) = up() else { return };
    for web in ["kind = \"http\", port = 80", "kind = \"tcp\", port = 80", "kind = \"icmp+tcp\", port = 80"] {
        let loaded = Loaded::toml(&lab, &checked(web));
        let state = |service: &str, family: Family, n: u16| {
            let backend = loaded.backend(service, family.backend(n));
            (backend["state"].as_str().unwrap().to_owned(), backend["cause"].to_string())
        };
        let are = |wanted: &[(&str, Family, u16, &str)]| {
            let so = || wanted.iter().all(|(service, family, n, up)| state(service, *family, *n).0 == *up);
            // Longer than fall and rise: it must stay so.
            assert!(eventually(Duration::from_secs(10), so), "{web}: {wanted:?}: {}", loaded.status());
            std::thread::sleep(Duration::from_millis(1500));
            assert!(so(), "{web}: {wanted:?} does not last: {}", loaded.status());
        };
        let all = |v4: &'static str| {
            let of = |service, n| [(service, Family::V4, n, v4), (service, Family::V6, n, "up")];
            [of("web", 1), of("udp", 1)].concat()
        };
        let others = [("web", Family::V4, 2, "up"), ("web", Family::V6, 3, "up"), ("udp", Family::V4, 3, "up")];
        are(&[all("up"), others.to_vec()].concat());
        // The backend answers as before, but not at the VIP.
        lab.sh("b1", "ip address del 192.0.2.100/32 dev lo");
        are(&[all("down"), others.to_vec()].concat());
        assert_eq!(answering(&lab, Family::V4), ["b2", "b3"].map(str::to_owned).into(), "{web}");
        lab.sh("b1", "ip address add 192.0.2.100/32 dev lo");
        are(&[all("up"), others.to_vec()].concat());
        loaded.stop();
    }
}
