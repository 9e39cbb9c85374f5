//! ICMP errors. Defect 7 of the original: the quoted packet was neither matched nor rewritten, a black hole for path MTU.

use super::packets::{ACK, End, SYN, echo, ends, piece, quoted, sound, tcp, udp, unreachable};
use super::world::{SIDES, Service, World};
use loaded_ipc::Outcome;

/// What the two ends send each other.
type Exchange = fn(End<'_>, End<'_>) -> [Vec<u8>; 2];
const KINDS: [Exchange; 3] = [
    |client, service| [tcp(client, service, SYN), tcp(service, client, ACK)],
    |client, service| [udp(client, service), udp(service, client)],
    |client, service| [echo(client.0, service.0, true, client.1), echo(service.0, client.0, false, client.1)],
];

/// All of the upper layer, or the least that RFC 792 promises.
const QUOTED: [usize; 2] = [8, 100];

#[test]
fn an_error_about_a_request_goes_to_the_client_about_what_it_sent() {
    for side in SIDES {
        for exchange in KINDS {
            for length in QUOTED {
                let mut world = World::new(&[Service::default()]);
                let client = (side.client, 4001);
                let [sent, _] = exchange(client, (side.vip, 80));
                let backend = world.forward(sent.clone(), Outcome::ForwardedNew);
                let [arrived, _] = exchange(client, (&backend, 80));
                // Either backend may be a router for the other. The client must see neither its address nor that of a real router.
                for from in side.backends.into_iter().chain([side.router]) {
                    let mut bytes = unreachable(from, side.client, &arrived, length);
                    let routed = from == side.router;
                    let outcome = if routed { Outcome::ErrorRelayed } else { Outcome::ErrorReturned };
                    assert_eq!(world.send(&mut bytes), outcome);
                    // Byte for byte what the VIP would have sent about the client's own packet.
                    assert_eq!(bytes, unreachable(side.vip, side.client, &sent, length));
                    assert!(sound(&bytes));
                }
            }
        }
    }
}

#[test]
fn an_error_about_a_reply_goes_to_the_backend_about_what_it_sent() {
    for side in SIDES {
        for exchange in KINDS {
            for length in QUOTED {
                let mut world = World::new(&[Service::default()]);
                let client = (side.client, 4001);
                let backend = world.forward(exchange(client, (side.vip, 80))[0].clone(), Outcome::ForwardedNew);
                let [_, seen] = exchange(client, (side.vip, 80));
                let [_, sent] = exchange(client, (&backend, 80));
                // From the client itself, or from a router that could not pass it on.
                for from in [side.client, side.router] {
                    let mut bytes = unreachable(from, side.vip, &seen, length);
                    assert_eq!(world.send(&mut bytes), Outcome::ErrorForwarded);
                    assert_eq!(bytes, unreachable(from, &backend, &sent, length));
                    assert!(sound(&bytes));
                }
            }
        }
    }
}

#[test]
fn stray_errors_are_dropped_at_the_vip_and_pass_elsewhere() {
    for side in SIDES {
        let mut world = World::new(&[Service { vips: vec![0, 1, 2, 3], ..Service::default() }]);
        let client = (side.client, 4001);
        let backend = world.forward(udp(client, (side.vip, 80)), Outcome::ForwardedNew);
        let reply = udp((side.vip, 80), client);
        // About another port, another VIP's packet, or to another VIP than quoted.
        let other = udp((side.vip, 81), client);
        let second = udp((side.second_vip, 80), client);
        world.unchanged(unreachable(side.client, side.vip, &other, 8), Outcome::DroppedStrayError);
        world.unchanged(unreachable(side.client, side.second_vip, &second, 8), Outcome::DroppedStrayError);
        world.unchanged(unreachable(side.client, side.second_vip, &reply, 8), Outcome::DroppedStrayError);
        world.unchanged(unreachable(side.client, side.vip, &second, 8), Outcome::DroppedStrayError);
        // Errors of a backend about its own traffic, and one that does not go to the sender of the packet it quotes.
        let own = udp(client, (&backend, 9999));
        world.unchanged(unreachable(&backend, side.client, &own, 8), Outcome::PassedOwn);
        let ours = udp(client, (&backend, 80));
        world.unchanged(unreachable(&backend, side.router, &ours, 8), Outcome::PassedOwn);
        // Too short to show what it is about, or about a packet of the other family, or about none.
        world.unchanged(unreachable(side.client, side.vip, &reply, 7), Outcome::PassedUnserved);
        world.unchanged(unreachable(side.client, side.vip, &reply, 0), Outcome::PassedUnserved);
        world.unchanged(unreachable(side.client, side.router, &reply, 8), Outcome::PassedForeign);
    }
}

/// Anyone can send an error, so it must not keep a flow alive, let alone begin one.
#[test]
fn an_error_does_not_keep_a_flow_alive() {
    for side in SIDES {
        for answered in [true, false] {
            let mut world = World::new(&[Service::default()]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let backend = world.forward(udp(client, vip), Outcome::ForwardedNew);
            if answered {
                world.answer(udp((&backend, 80), client));
            }
            world.now += if answered { 180 } else { 30 };
            let about = udp(vip, client);
            let mut bytes = unreachable(side.client, side.vip, &about, 8);
            assert_eq!(world.send(&mut bytes), Outcome::ErrorForwarded);
            // An error of the backend is no answer either.
            let mut bytes = unreachable(&backend, side.client, &udp(client, (&backend, 80)), 8);
            assert_eq!(world.send(&mut bytes), Outcome::ErrorReturned);
            world.now += 1;
            world.unchanged(unreachable(side.client, side.vip, &about, 8), Outcome::DroppedStrayError);
        }
    }
}

/// A router that cannot forward a fragment quotes what it saw. The first fragment has the ports; in a later one there is data
/// in their place, even if it looks like ports.
#[test]
fn an_error_about_a_first_fragment_is_translated_and_about_a_later_one_not() {
    for side in SIDES {
        for exchange in KINDS {
            // Over IPv6 the quote begins with the fragment header.
            for length in QUOTED.map(|length| if side.vip.contains(':') { length + 8 } else { length }) {
                let mut world = World::new(&[Service::default()]);
                let client = (side.client, 4001);
                let [request, seen] = exchange(client, (side.vip, 80));
                let backend = world.forward(request.clone(), Outcome::ForwardedNew);
                let [arrived, reply] = exchange(client, (&backend, 80));
                for (more, offset) in [(true, 0), (false, 0)] {
                    let part = |whole: &Vec<u8>| piece(whole.clone(), more, offset);
                    for (from, outcome) in [(side.router, Outcome::ErrorRelayed), (&*backend, Outcome::ErrorReturned)] {
                        let mut bytes = unreachable(from, side.client, &part(&arrived), length);
                        assert_eq!(world.send(&mut bytes), outcome);
                        assert_eq!(bytes, unreachable(side.vip, side.client, &part(&request), length));
                        assert!(sound(&bytes));
                    }
                    let mut bytes = unreachable(side.router, side.vip, &part(&seen), length);
                    assert_eq!(world.send(&mut bytes), Outcome::ErrorForwarded);
                    assert_eq!(bytes, unreachable(side.router, &backend, &part(&reply), length));
                    assert!(sound(&bytes));
                }
                for (more, offset) in [(false, 1), (true, 1), (true, 10), (false, 0x1fff)] {
                    let part = |whole: &Vec<u8>| piece(whole.clone(), more, offset);
                    for (from, outcome) in [(side.router, Outcome::PassedForeign), (&*backend, Outcome::PassedOwn)] {
                        world.unchanged(unreachable(from, side.client, &part(&arrived), length), outcome);
                    }
                    world.unchanged(unreachable(side.router, side.vip, &part(&seen), length), Outcome::PassedUnserved);
                }
            }
        }
    }
}

#[test]
fn the_quoted_addresses_are_those_the_receiver_knows() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let client = (side.client, 4001);
        let backend = world.forward(tcp(client, (side.vip, 80), SYN), Outcome::ForwardedNew);
        let mut bytes = unreachable(side.router, side.client, &tcp(client, (&backend, 80), SYN), 8);
        assert_eq!(world.send(&mut bytes), Outcome::ErrorRelayed);
        assert_eq!(ends(quoted(&bytes)), (side.client.to_owned(), side.vip.to_owned()));
        assert_eq!(ends(&bytes), (side.vip.to_owned(), side.client.to_owned()));
    }
}
