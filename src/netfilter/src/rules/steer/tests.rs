//! The programs compute what the function computes, for any address, key, prefix and number of workers.

use super::*;
use crate::rules::bpf::Program;
use loaded_ipc::Affinity;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const ROUTER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x100);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);

/// `options` are words of IPv4 options.
fn ip4(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, options: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20 + 4 * usize::from(options)];
    packet[0] = 0x45 + options;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet.extend(payload);
    packet
}

fn ip6(next: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat()
}

/// The worker whose program matches; the programs of all workers are asked, and exactly one must match.
fn matching(programs: impl Fn(u16) -> Program, workers: u16, packet: &[u8]) -> u16 {
    let matching: Vec<_> = (0..workers).filter(|worker| programs(*worker).run(packet) != 0).collect();
    assert_eq!(matching.len(), 1, "{matching:?}");
    matching[0]
}

fn steering() -> impl proptest::strategy::Strategy<Value = Steering> {
    (1_u8..=32, 1_u8..=128, any::<[u32; 6]>())
        .prop_map(|(prefix4, prefix6, random)| Steering::with_prefixes(prefix4, prefix6, HashKeys::new(random)))
}

/// A service of one family has nothing to say about the other's clients.
#[test]
fn the_shortest_prefix_of_the_services_of_a_family_counts() {
    use crate::rules::tests::plan;
    let of = |vip: &str, backend: &str, prefix4, prefix6| {
        let mut service = plan(&[vip], &[backend], loaded_ipc::Protocol::Tcp, &[(80, 80)]).services.remove(0);
        service.affinity = Some(Affinity { prefix4, prefix6, timeout: 60 });
        service
    };
    let mut all = plan(&["192.0.2.1"], &["192.0.2.2"], loaded_ipc::Protocol::Tcp, &[(80, 80)]);
    all.services = vec![
        of("192.0.2.1", "192.0.2.2", 28, 1),
        of("192.0.2.3", "192.0.2.2", 24, 1),
        of("2001:db8::1", "2001:db8::2", 1, 96),
        of("2001:db8::3", "2001:db8::2", 1, 128),
    ];
    let steering = Steering::new(&all, HashKeys::new([1, 2, 3, 4, 5, 6]));
    assert_eq!((steering.prefix4, steering.prefix6), (24, 96));

    // A reload: the same, longer and none at all are covered, a shorter one is not.
    assert!(steering.covers(&all));
    let changed = |index: usize, affinity| {
        let mut plan = all.clone();
        plan.services[index].affinity = affinity;
        plan
    };
    let by = |prefix4, prefix6| Some(Affinity { prefix4, prefix6, timeout: 60 });
    assert!(steering.covers(&changed(1, None)) && steering.covers(&changed(1, by(32, 1))));
    assert!(!steering.covers(&changed(0, by(23, 128))) && !steering.covers(&changed(3, by(32, 95))));
    let why = steering.uncovered(&changed(3, by(32, 95))).unwrap();
    assert!(why.contains("IPv6 /95") && why.contains("/96") && why.contains("restart"), "{why}");

    // An instance of IPv4 alone can get its first IPv6 service with the usual prefix.
    let v4 = |mut plan: Plan| {
        plan.services.truncate(2);
        plan
    };
    let steering = Steering::new(&v4(all.clone()), HashKeys::new([1, 2, 3, 4, 5, 6]));
    assert_eq!((steering.prefix4, steering.prefix6), (24, 64));
    assert!(
        steering.covers(&all) && steering.covers(&changed(3, by(32, 64))) && !steering.covers(&changed(3, by(32, 63)))
    );
    // Without affinity every bit counts.
    let mut free = all.clone();
    free.services.iter_mut().for_each(|service| service.affinity = None);
    let steering = Steering::new(&free, HashKeys::new([1, 2, 3, 4, 5, 6]));
    assert_eq!((steering.prefix4, steering.prefix6), (32, 128));
}

proptest! {
    #[test]
    fn ipv4_programs_equal_the_function(steering in steering(), bits: u32, workers in 1_u16..=64, options in 0_u8..=10) {
        let client = Ipv4Addr::from_bits(bits);
        let expected = steering.worker_of(client.into(), workers);
        let request = |worker| steering.request(Family::V4, worker, workers);
        let reply = |worker| steering.reply(Family::V4, worker, workers);
        let quoted = ip4(6, VIP4, client, 0, &[0; 8]);
        for protocol in [6, 17, 47] {
            prop_assert_eq!(matching(request, workers, &ip4(protocol, client, VIP4, options, &[0; 8])), expected);
        }
        prop_assert_eq!(matching(request, workers, &ip4(1, client, VIP4, options, &error(8, &[0; 40]))), expected);
        for kind in [3, 4, 5, 11, 12] {
            prop_assert_eq!(matching(request, workers, &ip4(1, ROUTER4, VIP4, options, &error(kind, &quoted))), expected);
        }
        prop_assert_eq!(matching(reply, workers, &ip4(6, VIP4, client, options, &[])), expected);
    }

    #[test]
    fn ipv6_programs_equal_the_function(steering in steering(), bits: u128, workers in 1_u16..=64) {
        let client = Ipv6Addr::from_bits(bits);
        let expected = steering.worker_of(client.into(), workers);
        let request = |worker| steering.request(Family::V6, worker, workers);
        let reply = |worker| steering.reply(Family::V6, worker, workers);
        let quoted = ip6(6, VIP6, client, &[0; 8]);
        prop_assert_eq!(matching(request, workers, &ip6(6, client, VIP6, &[0; 20])), expected);
        prop_assert_eq!(matching(request, workers, &ip6(58, client, VIP6, &error(128, &quoted))), expected);
        for kind in [1, 2, 3, 4, 127] {
            prop_assert_eq!(matching(request, workers, &ip6(58, ROUTER6, VIP6, &error(kind, &quoted))), expected);
        }
        prop_assert_eq!(matching(reply, workers, &ip6(6, VIP6, client, &[])), expected);
    }

    #[test]
    fn addresses_of_one_prefix_share_a_worker(random: [u32; 6], bits: u128, other: u64, workers in 1_u16..=64) {
        let steering = Steering::with_prefixes(24, 64, HashKeys::new(random));
        let worker = |address: IpAddr| steering.worker_of(address, workers);
        let neighbour = bits & !u128::from(u64::MAX) | u128::from(other);
        prop_assert_eq!(worker(Ipv6Addr::from_bits(bits).into()), worker(Ipv6Addr::from_bits(neighbour).into()));
        let [a, b, c, d, ..] = bits.to_be_bytes();
        prop_assert_eq!(worker(Ipv4Addr::new(a, b, c, d).into()), worker(Ipv4Addr::new(a, b, c, !d).into()));
    }

    #[test]
    fn errors_about_backends_are_told_from_others(list in prop::collection::btree_set(any::<u32>(), 1..200), other: u32) {
        let v4: Vec<IpAddr> = list.iter().map(|bits| Ipv4Addr::from_bits(*bits).into()).collect();
        let wide = |bits: u32| Ipv6Addr::from_bits(u128::from(bits) << 64 | u128::from(bits));
        let v6: Vec<IpAddr> = list.iter().map(|bits| wide(*bits).into()).collect();
        let (programs4, programs6) = (errors_about(Family::V4, &v4), errors_about(Family::V6, &v6));
        for bits in list.iter().copied().chain([other]) {
            let quoted = ip4(6, ROUTER4, Ipv4Addr::from_bits(bits), 0, &[0; 8]);
            let packet = ip4(1, ROUTER4, VIP4, 3, &error(3, &quoted));
            prop_assert_eq!(programs4.iter().any(|program| program.run(&packet) != 0), list.contains(&bits));
            let packet = ip6(58, ROUTER6, VIP6, &error(1, &ip6(6, ROUTER6, wide(bits), &[0; 8])));
            prop_assert_eq!(programs6.iter().any(|program| program.run(&packet) != 0), list.contains(&bits));
        }
    }

    #[test]
    fn no_packet_upsets_a_program(steering in steering(), packet in prop::collection::vec(any::<u8>(), 0..120)) {
        for family in Family::ALL {
            for program in [steering.request(family, 0, 3), steering.reply(family, 0, 3)] {
                prop_assert!(program.run(&packet) <= 1);
            }
        }
    }
}

#[test]
fn the_longest_programs_fit() {
    for prefix6 in 1..=128 {
        let steering = Steering::with_prefixes(31, prefix6, HashKeys::new([u32::MAX; 6]));
        for family in Family::ALL {
            steering.request(family, u16::MAX - 1, u16::MAX);
            steering.reply(family, u16::MAX - 1, u16::MAX);
        }
    }
    let v4 = (0..200).map(|n| Ipv4Addr::from_bits(u32::MAX - n).into()).collect::<Vec<IpAddr>>();
    let v6 = (0..200).map(|n| Ipv6Addr::from_bits(u128::MAX - n).into()).collect::<Vec<IpAddr>>();
    assert_eq!((errors_about(Family::V4, &v4).len(), errors_about(Family::V6, &v6).len()), (4, 29));
}

#[test]
fn a_quoted_packet_that_is_cut_off_matches_no_program() {
    let steering = Steering::with_prefixes(32, 128, HashKeys::new([7; 6]));
    let packet = ip4(1, ROUTER4, VIP4, 0, &error(3, &[0x45; 19]));
    assert!((0..4).all(|worker| steering.request(Family::V4, worker, 4).run(&packet) == 0));
}

#[test]
fn neighbouring_addresses_spread() {
    let steering = Steering::with_prefixes(
        32,
        64,
        HashKeys::new([0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x1656_67b1, 0x2c1b_3c6d]),
    );
    for workers in [2_u16, 3, 4, 8, 16] {
        let mut counts = [vec![0_u32; workers.into()], vec![0; workers.into()]];
        for n in 0..16_000 {
            let v4 = IpAddr::from(Ipv4Addr::from_bits(0x0a09_0000 + n));
            let v6 = IpAddr::from(Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(n) << 64 | 1));
            counts[0][usize::from(steering.worker_of(v4, workers))] += 1;
            counts[1][usize::from(steering.worker_of(v6, workers))] += 1;
        }
        let even = 16_000 / u32::from(workers);
        let fair = |count: &u32| (even * 4 / 5..=even * 6 / 5).contains(count);
        assert!(counts.iter().flatten().all(fair), "{workers} workers: {counts:?}");
    }
}

#[test]
fn other_keys_steer_otherwise_and_are_not_shown() {
    let [one, two] = [[1; 6], [0x1234_5679; 6]].map(|random| Steering::with_prefixes(32, 128, HashKeys::new(random)));
    let differ = |n| {
        let client = IpAddr::from(Ipv4Addr::from_bits(n));
        one.worker_of(client, 16) != two.worker_of(client, 16)
    };
    assert!((0..1000).filter(|n| differ(*n)).count() > 800);
    assert!(!format!("{two:?}").contains("305419897"), "{two:?}");
}
