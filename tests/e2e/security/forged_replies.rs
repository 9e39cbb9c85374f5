//! Packets in a backend's name that come from elsewhere than where the backend is, by clients that know the numbers of their
//! own connections. They are nobody's replies: they open nothing and eject nobody. A backend that really refuses is out as fast
//! as ever, and a network that answers by another way than it is asked can say so.

use crate::rig::config::{FREE, Service, change, config};
use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use crate::rig::packet::{TCP, complete, ip, port_unreachable, upper};
use crate::rig::wire::Sender;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const BACKENDS: [u16; 2] = [1, 2];
/// Openings in a row that a worker must see refused.
const FAILS: usize = 3;
const SEQUENCE: u32 = 0x1122_3344;
const PORTS: std::ops::Range<u16> = 40_000..40_020;

/// Openings that are only left unanswered are another matter.
fn text(more: &str) -> String {
    let passive = format!("passive = {{ fails = {FAILS}, timeout = \"1m\", hold = \"5m\" }}");
    let keys = format!("strategy = \"rr\"\n{FREE}\n{passive}\n{more}");
    format!("cores = \"0-1\"\n{}", config("60s", &[Service { keys: &keys, ..Service::default() }]))
}

/// A TCP segment without payload.
fn segment(from: SocketAddr, to: SocketAddr, flags: u8, (sequence, acknowledged): (u32, u32)) -> Vec<u8> {
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let numbers = [sequence.to_be_bytes(), acknowledged.to_be_bytes()].concat();
    let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    complete(ip(from.ip(), to.ip(), TCP, &[&ports[..], &numbers, &rest].concat()))
}

/// What the client sends to the VIP. Its checksum is wrong, so that no backend answers it.
fn request(family: Family, client: SocketAddr, flags: u8, numbers: (u32, u32)) -> Vec<u8> {
    let mut packet = segment(client, SocketAddr::new(family.vip(), 80), flags, numbers);
    let (at, _) = upper(&packet);
    packet[at + 16] ^= 0x5a;
    packet
}

/// What backend n would answer.
fn answer(family: Family, n: u16, client: SocketAddr, flags: u8) -> Vec<u8> {
    segment(SocketAddr::new(family.backend(n), 80), client, flags, (0, SEQUENCE + 1))
}

/// Backend n says that the client's opening cannot be delivered.
fn unreachable(family: Family, n: u16, client: SocketAddr) -> Vec<u8> {
    let backend = family.backend(n);
    let quote = segment(client, SocketAddr::new(backend, 80), SYN, (SEQUENCE, 0));
    port_unreachable(backend, client.ip(), &quote)
}

/// Sends, by many clients of both families at the balancer's `eth0`, an opening each and at once what `forge` makes of every
/// backend.
fn burst(lab: &Lab, forge: impl Fn(Family, u16, SocketAddr) -> Vec<Vec<u8>>) {
    let sender = Sender::to_balancer(lab, "client", "eth0");
    for family in Family::BOTH {
        for client in (10..20).flat_map(|n| PORTS.map(move |port| SocketAddr::new(family.client(n), port))) {
            let forged = BACKENDS.into_iter().flat_map(|n| forge(family, n, client));
            let packets: Vec<_> = [request(family, client, SYN, (SEQUENCE, 0))].into_iter().chain(forged).collect();
            sender.send_all(&packets.iter().map(|packet| sender.frame(packet)).collect::<Vec<_>>());
        }
    }
    assert!(eventually(Duration::from_secs(10), || lab.waiting() == 0), "{}", lab.queues());
}

/// Ejections, once the supervisor has seen them: it looks at what workers think every half second.
fn ejections(loaded: &Loaded) -> Vec<String> {
    std::thread::sleep(Duration::from_millis(1100));
    loaded.ejections()
}

/// The line of `loaded doctor` about replies.
fn doctor(lab: &Lab, text: &str) -> String {
    let file = lab.file("doctor.toml", text);
    let said = lab.exec("lb", &[binary().to_str().unwrap(), "doctor", "-c", &file]);
    let line = said.out.lines().find(|line| line.contains(" replies "));
    line.unwrap_or_else(|| panic!("{}{}", said.out, said.err)).to_owned()
}

/// A client forges what backends would say of its own openings. Nobody is ejected, and the rules have counted it.
fn ejects_nobody(forge: impl Fn(Family, u16, SocketAddr) -> Vec<u8>) {
    let Some(lab) = Lab::up() else { return };
    let text = text("");
    let loaded = Loaded::toml(&lab, &text);
    burst(&lab, |family, n, client| vec![forge(family, n, client)]);
    assert_eq!(ejections(&loaded), [""; 0]);
    let [returned, errors] = ["returned", "error_returned"].map(|label| loaded.count(label));
    assert_eq!((returned, errors), (0, 0), "what a client says is no backend's answer");
    let sum = BACKENDS.len() * 2 * 10 * PORTS.len();
    let counted = doctor(&lab, &text);
    assert!(counted.contains(&format!("warning  replies    {sum} packets in a backend's name")), "{counted}");
    loaded.stop();
}

#[test]
fn resets_of_ones_own_openings_in_a_backends_name_eject_nobody() {
    ejects_nobody(|family, n, client| answer(family, n, client, RST | ACK));
}

#[test]
fn errors_about_ones_own_openings_in_a_backends_name_eject_nobody() {
    ejects_nobody(unreachable);
}

/// The openings are answered, and the client acknowledges, all by itself.
#[test]
fn answers_in_a_backends_name_open_nothing() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(""));
    burst(&lab, |family, n, client| {
        vec![answer(family, n, client, SYN | ACK), request(family, client, ACK, (SEQUENCE + 1, 1))]
    });
    assert_eq!((loaded.count("returned"), ejections(&loaded)), (0, Vec::new()));
    loaded.stop();
}

/// Where this is turned off, such packets are what they were: that opens what `doctor` says.
#[test]
fn asymmetric_networks_believe_them() {
    let Some(lab) = Lab::up() else { return };
    let text = text("asymmetric = true");
    let loaded = Loaded::toml(&lab, &text);
    burst(&lab, |family, n, client| vec![answer(family, n, client, SYN | ACK)]);
    assert!(loaded.count("returned") > 0);
    let said = doctor(&lab, &text);
    assert!(said.contains("warning  replies    asymmetric = true in service \"web\""), "{said}");
    loaded.stop();
}

/// Both ways of refusing, each until the backend is out; how long that takes is printed.
#[test]
fn a_backend_that_really_refuses_is_out_at_once() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(""));
    let mut seen = Vec::new();
    for reject in ["tcp reset", "icmpx type port-unreachable"] {
        let rule = format!("add rule inet refuse in tcp dport 80 reject with {reject}");
        let table = "add table inet refuse; add chain inet refuse in { type filter hook input priority 0; }";
        lab.sh("b1", &format!("nft '{table}; {rule}'"));
        for family in Family::BOTH {
            let began = Instant::now();
            let ask = || lab.within("client", || get(family.client(20), family.vip(), 80));
            let answers: Vec<_> = (0..30).map(|_| (ask(), began.elapsed())).collect();
            let refused = answers.into_iter().filter_map(|(answer, at)| Some((answer.err()?, at)));
            let refused: Vec<_> =
                refused.inspect(|(e, _)| assert_eq!(e.kind(), ErrorKind::ConnectionRefused)).collect();
            assert_eq!(refused.len(), FAILS, "{family:?}, {reject}: refusals until b1 was out");
            seen.push(refused.last().map(|(_, at)| *at));
        }
        lab.sh("b1", "nft delete table inet refuse");
        for (act, family) in ["disable", "enable"].into_iter().flat_map(|act| Family::BOTH.map(|family| (act, family)))
        {
            assert_eq!(loaded.ask(&["backend", act, &family.backend(1).to_string()]).code, Some(0), "{act}");
        }
        std::thread::sleep(Duration::from_millis(700));
    }
    println!("out after {seen:?}");
    loaded.stop();
}

/// Backends answer by a second interface of the balancer, to which no route of it leads.
fn answer_by_another_way(lab: &Lab) {
    let switch = lab.namespace("sw");
    lab.sh(
        "lb",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1
             ip link add eth2 type veth peer name lb2 netns {switch} && ip link set eth2 up
             ip address add 198.51.100.253/32 dev eth2
             ip address add 2001:db8:2::fd/128 dev eth2 nodad
             sysctl -qw net.ipv4.conf.eth2.accept_local=1"
        ),
    );
    lab.sh("sw", "ip link set lb2 master br0 up");
    for backend in ["b1", "b2", "b3"] {
        lab.sh(
            backend,
            "ip route replace default via 198.51.100.253; ip -6 route replace default via 2001:db8:2::fd dev eth0",
        );
    }
}

#[test]
fn asymmetric_networks_work_when_they_say_so() {
    let Some(lab) = Lab::up() else { return };
    answer_by_another_way(&lab);
    let loaded = Loaded::toml(&lab, &text(""));
    let served =
        |n: u16| Family::BOTH.map(|family| lab.within("client", || get(family.client(n), family.vip(), 80)).is_ok());
    assert_eq!(served(10), [false; 2]);
    let said = doctor(&lab, &text(""));
    const WORDS: &str = "came by an interface that no route to the backend leads through";
    assert!(said.contains(WORDS), "{said}");
    // The supervisor tells it unasked.
    assert!(eventually(Duration::from_secs(15), || loaded.log().contains(WORDS)), "{}", loaded.log());
    let told = loaded.ask(&["history"]).out + &loaded.ask(&["status"]).out;
    assert_eq!(told.matches(WORDS).count(), 2, "{told}");
    let condition = |status: &serde_json::Value| {
        status["conditions"].as_array().unwrap().iter().any(|one| one["name"] == "replies_refused")
    };
    assert!(eventually(Duration::from_secs(2), || condition(&loaded.status())), "{}", loaded.status());
    let metrics = loaded.ask(&["metrics"]).out;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("loaded_refused_replies_total "));
    assert!(counted.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{metrics}");
    change(&lab, &loaded, &text("asymmetric = true"));
    for n in 11..21 {
        assert_eq!(served(n), [true; 2]);
    }
    loaded.stop();
}
