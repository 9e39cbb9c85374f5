//! What the program sends on, the worker would have sent on, to the byte; and the program changes no table. By
//! `BPF_PROG_TEST_RUN`: nothing is attached. As root.
#![allow(dead_code, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

#[path = "../../../../worker/tests/decide/packets.rs"]
mod packets;
mod world;

use loaded_ipc::Outcome;
use packets::{ACK, FIN, RST, SYN, ends, sound, tcp, udp};
use world::{MISS, REDIRECT, VIPS, World, forwarded, now};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(root || std::env::var_os("LOADED_CI").is_none(), "needs root");
    if !root {
        println!("skipped: needs root");
    }
    root
}

#[test]
fn open_flows_go_on_silently_in_both_families_and_directions() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    for (client, vip) in [("203.0.113.7", VIPS[0]), ("10.1.2.3", VIPS[2]), ("2001:db8:77::7", VIPS[1])] {
        let (client, vip) = ((client, 40_000), (vip, 443));
        let backend = world.open(client, vip, now());
        let (said, sent) = world.try_packet(&tcp(client, vip, ACK), world.outside);
        assert_eq!((said, ends(&sent).1), (REDIRECT, backend.clone()), "{client:?}");
        assert!(sound(&sent));
        let (said, sent) = world.try_packet(&tcp((&backend, 443), client, ACK), world.inside);
        assert_eq!((said, ends(&sent).0.as_str()), (REDIRECT, vip.0));
        assert!(sound(&sent));
        assert_eq!(world.try_packet(&tcp((&backend, 443), client, ACK), world.outside).0, MISS, "another interface");
        assert_eq!(world.try_packet(&tcp(client, vip, SYN), world.outside).0, MISS);
        let client = (client.0, 40_001);
        let backend = world.talk(client, vip, 3, now());
        assert_eq!(world.try_packet(&udp(client, vip), world.outside).0, REDIRECT);
        assert_eq!(world.try_packet(&udp((&backend, 443), client), world.inside).0, REDIRECT);
        assert_eq!(world.heard(), []);
        assert_eq!(world.try_packet(&tcp((client.0, 40_000), vip, FIN | ACK), world.outside).0, REDIRECT);
        assert_eq!(world.heard().len(), 1);
    }
}
