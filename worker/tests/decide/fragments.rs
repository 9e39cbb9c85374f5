//! Fragments: all go where the first one goes.

use super::packets::{echo, ends, ip, piece, put, sound, udp};
use super::world::{POLICY, SIDES, Service, World};
use loaded_ipc::{Outcome, Policy, Protocol};

const UDP: u8 = 17;

/// A fragment of `whole`: `length` bytes of its upper layer from `at` on.
pub(crate) fn part(whole: &[u8], at: usize, length: usize) -> Vec<u8> {
    let header = if whole[0] >> 4 == 4 { 20 } else { 40 };
    let more = header + at + length < whole.len();
    let mut packet = [&whole[..header], &whole[header + at..(header + at + length).min(whole.len())]].concat();
    let total = u16::try_from(packet.len()).expect("short");
    if header == 20 {
        put(&mut packet, 2, total);
    } else {
        put(&mut packet, 4, total - 40);
    }
    piece(packet, more, u16::try_from(at / 8).expect("short"))
}

/// The upper layers of fragments, reassembled after the header of the first.
pub(crate) fn together(pieces: &[Vec<u8>]) -> Vec<u8> {
    let v4 = pieces[0][0] >> 4 == 4;
    let mut whole = pieces[0][..if v4 { 20 } else { 40 }].to_vec();
    pieces.iter().for_each(|piece| whole.extend(&piece[if v4 { 20 } else { 48 }..]));
    if !v4 {
        whole[6] = pieces[0][40];
    }
    whole
}

pub(crate) fn datagram(from: (&str, u16), to: (&str, u16), length: usize) -> Vec<u8> {
    let mut upper = vec![b'x'; 8 + length];
    put(&mut upper, 0, from.1);
    put(&mut upper, 2, to.1);
    put(&mut upper, 4, u16::try_from(8 + length).expect("short"));
    ip(from.0, to.0, UDP, upper)
}

#[test]
fn fragments_meet_at_one_backend_and_come_back_from_the_vip() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let request = datagram((side.client, 4001), (side.vip, 80), 3000);
        let [mut first, mut second, mut third] =
            [0, 1400, 2800].map(|at| part(&request, at, if at == 2800 { 400 } else { 1400 }));
        world.unchanged(third.clone(), Outcome::RepeatedFragment);
        assert_eq!(world.send(&mut first), Outcome::ForwardedNew);
        assert_eq!(world.send(&mut third), Outcome::Forwarded);
        assert_eq!(world.send(&mut second), Outcome::Forwarded);
        let backend = ends(&first).1;
        assert!(side.backends.contains(&backend.as_str()));
        let pieces = [first, second, third];
        assert!(pieces.iter().all(|piece| ends(piece) == (side.client.to_owned(), backend.clone())));
        assert!(sound(&sealed(together(&pieces))), "the first has the checksum of all");

        let answer = datagram((&backend, 80), (side.client, 4001), 2000);
        let mut pieces = [part(&answer, 0, 1400), part(&answer, 1400, 608)];
        for piece in &mut pieces {
            assert_eq!(world.send(piece), Outcome::Returned);
            assert_eq!(ends(piece), (side.vip.to_owned(), side.client.to_owned()));
        }
        assert!(sound(&sealed(together(&pieces))));
    }
}

/// With the lengths of a whole packet, and the IPv4 checksum that goes with them.
pub(crate) fn sealed(mut whole: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(whole.len()).expect("short");
    if whole[0] >> 4 == 4 {
        assert_eq!(super::packets::plain(&[&whole[..20]]), 0xffff, "of the first piece itself");
        put(&mut whole, 2, length);
        put(&mut whole, 6, 0);
        put(&mut whole, 10, 0);
        let sum = super::packets::plain(&[&whole[..20]]);
        put(&mut whole, 10, !sum);
    } else {
        put(&mut whole, 4, length - 40);
    }
    whole
}

#[test]
fn a_fragmented_ping_is_one_flow() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let whole = echo(side.client, side.vip, true, 7);
        let mut first = part(&whole, 0, 8);
        assert_eq!(world.send(&mut first), Outcome::ForwardedNew);
        let mut last = part(&whole, 8, 4);
        assert_eq!(world.send(&mut last), Outcome::Forwarded);
        assert_eq!(ends(&first), ends(&last));
    }
}

/// Its answer would be an orphan otherwise.
#[test]
fn a_fragmented_datagram_to_a_backends_own_address_is_noted_and_passes() {
    for side in SIDES {
        for noted in [true, false] {
            let policy = Policy { adopt: true, ..POLICY };
            let mut world =
                World::new(&[Service { protocol: Protocol::Udp, ports: vec![80], policy, ..Service::default() }]);
            let (here, there) = ((side.backends[0], 80), (side.client, 4001));
            let whole = datagram(there, here, 100);
            if noted {
                world.unchanged(part(&whole, 64, 44), Outcome::PassedForeign);
                world.unchanged(part(&whole, 0, 64), Outcome::PassedOwn);
            }
            let outcome = if noted { Outcome::PassedOwn } else { Outcome::DroppedOrphan };
            world.unchanged(udp(here, there), outcome);
            // Of no port that is served, or of no port at all.
            let mut whole = datagram(there, (side.backends[0], 81), 100);
            world.unchanged(part(&whole, 0, 64), Outcome::PassedForeign);
            whole.truncate(whole.len() - 108 + 16);
            let header = whole.len() - 16;
            whole[if header == 20 { 9 } else { 6 }] = 6;
            world.unchanged(part(&whole, 0, 8), Outcome::PassedForeign);
        }
    }
}

#[test]
fn datagrams_pass_with_all_their_fragments_and_malformed_ones_with_none() {
    for side in SIDES {
        let served = Service { protocol: Protocol::Udp, ports: vec![80], ..Service::default() };
        let mut world = World::new(&[served]);
        for (from, to, outcome) in [
            ((side.client, 4001), (side.vip, 81), Outcome::PassedUnserved),
            ((side.backends[0], 53), (side.router, 53), Outcome::PassedOwn),
            ((side.client, 1), (side.router, 2), Outcome::PassedForeign),
        ] {
            let whole = datagram(from, to, 100);
            world.unchanged(part(&whole, 0, 64), outcome);
            world.unchanged(part(&whole, 64, 44), outcome);
        }
        // The first fragment of a datagram, too short for the upper layer's header.
        let mut whole = datagram((side.client, 4001), (side.vip, 80), 100);
        whole.truncate(whole.len() - 108 + 16);
        let header = whole.len() - 16;
        whole[if header == 20 { 9 } else { 6 }] = 6;
        world.unchanged(part(&whole, 0, 8), Outcome::DroppedMalformed);
        world.unchanged(part(&whole, 8, 8), Outcome::DroppedFragment);
    }
}

#[test]
fn an_overlapping_fragment_ends_a_datagram() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let whole = datagram((side.client, 4001), (side.vip, 80), 3000);
        world.forward_piece(part(&whole, 0, 800), Outcome::ForwardedNew);
        world.unchanged(part(&whole, 792, 16), Outcome::DroppedFragment);
        world.unchanged(part(&whole, 800, 800), Outcome::DroppedFragment);
        // The client's next datagram is not affected.
        world.forward(udp((side.client, 4001), (side.vip, 80)), Outcome::Forwarded);
    }
}

impl World {
    fn forward_piece(&mut self, mut bytes: Vec<u8>, outcome: Outcome) {
        assert_eq!(self.send(&mut bytes), outcome);
    }
}
