//! Which packets the kernel gives to which worker.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn the_kernel_steers_as_the_function_says() {
    in_namespace("steering::the_kernel_steers_as_the_function_says", || {
        everybody_lives_here();
        let plan = both_families(40);
        let steering = steering(&plan);
        let _installed = install(&plan);
        let mut seen = [[0; 3]; 2];
        for (v4, v6) in clients() {
            for (family, client, vip, backend) in
                [(Family::V4, v4, ip(VIP4), ip(BACKENDS[0])), (Family::V6, v6, ip(VIP6), ip(BACKENDS[2]))]
            {
                let worker = steering.worker_of(client, 3);
                seen[family as usize][usize::from(worker)] += 1;
                let worker = Some(worker);
                // The first rule of Q untracks, that of R is for what is sent to this host.
                let asked = taken(family, "LOADED-40-Q", 1, || udp(client, vip, 100));
                let answered = taken(family, "LOADED-40-R", 1, || udp(backend, client, 100));
                let error = taken(family, "LOADED-40-Q", 1, || icmp_error(vip, vip, client));
                assert_eq!((asked, answered, error), (worker, worker, worker), "{client}");
                let own = if family == Family::V4 { ip(ROUTER4) } else { ip(ROUTER6) };
                assert_eq!(taken(family, "LOADED-40-R", 1, || udp(backend, own, 100)), None, "the prober's");
                // About a request, from a router: to the client's worker too.
                let error = taken(family, "LOADED-40-R", 1, || icmp_error(client, client, backend));
                assert_eq!(error, worker, "{client}");
                let other = taken(family, "LOADED-40-R", 1, || icmp_error(client, client, vip));
                assert_eq!(other, None, "an error about something else is not ours");
            }
        }
        assert!(seen.iter().flatten().all(|count| *count > 0), "{seen:?}");
        println!("30 clients over 3 workers, IPv4 and IPv6: {seen:?}");
    });
}

/// Reads the queues with the `nfq` crate, which shares no code with ours: the packet itself is there, not only counted.
#[test]
fn an_independent_reader_finds_each_packet_in_its_workers_queue() {
    in_namespace("steering::an_independent_reader_finds_each_packet_in_its_workers_queue", || {
        everybody_lives_here();
        let plan = both_families(40);
        let steering = steering(&plan);
        let mut readers = QUEUES.map(|queue| {
            let mut reader = nfq::Queue::open().unwrap();
            reader.bind(queue).unwrap();
            reader.set_nonblocking(true);
            reader
        });
        let _installed = install(&plan);
        for (v4, v6) in clients() {
            for (client, vip, backend, own) in [(v4, VIP4, BACKENDS[0], ROUTER4), (v6, VIP6, BACKENDS[2], ROUTER6)]
                .map(|(client, vip, backend, own)| (client, ip(vip), ip(backend), ip(own)))
            {
                let queue = QUEUES[usize::from(steering.worker_of(client, 3))];
                // Not ours, so in no queue: the prober's answer from a backend.
                udp(backend, own, 100);
                udp(client, vip, 100);
                assert_eq!(read(&mut readers, 1), [(queue, client, vip)], "a request");
                udp(backend, client, 100);
                assert_eq!(read(&mut readers, 1), [(queue, backend, client)], "a reply");
                icmp_error(vip, vip, client);
                assert_eq!(read(&mut readers, 1), [(queue, own, vip)], "an error about a reply");
            }
        }
        assert_eq!(read(&mut readers, 0), [], "nothing else is in any queue");
    });
}

/// Drops and describes what waits in the queues, and waits at most a second for `wanted` packets: queue, source and
/// destination of each.
fn read(readers: &mut [nfq::Queue], wanted: usize) -> Vec<(u16, IpAddr, IpAddr)> {
    let end = Instant::now() + Duration::from_secs(1);
    let mut found = Vec::new();
    loop {
        for reader in &mut *readers {
            while let Ok(mut message) = reader.recv() {
                let (source, destination) = addresses(message.get_payload());
                found.push((message.get_queue_num(), source, destination));
                message.set_verdict(nfq::Verdict::Drop);
                reader.verdict(message).unwrap();
            }
        }
        if found.len() >= wanted || Instant::now() > end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Source and destination in an IP header.
fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap()).into();
    let v6 = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap()).into();
    if packet[0] >> 4 == 4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

#[test]
fn a_worker_s_own_reply_and_name_servers_are_not_queued() {
    in_namespace("steering::a_worker_s_own_reply_and_name_servers_are_not_queued", || {
        everybody_lives_here();
        let _installed = install(&both_families(40));
        let (client, _) = clients().next().unwrap();
        // NF_REPEAT brings a rewritten reply by again with the VIP as its source.
        assert_eq!(taken(Family::V4, "LOADED-40-S", 0, || udp(ip(VIP4), client, 10)), Some(0));
        let (backend, server) = (ip(BACKENDS[0]), ip("9.9.9.9"));
        assert_eq!(taken(Family::V4, "LOADED-40-R", 1, || udp_between(backend, 5353, server, 53)), None);
        assert_eq!(taken(Family::V4, "LOADED-40-Q", 1, || udp_between(server, 53, ip(VIP4), 5353)), None);
        assert!(taken(Family::V4, "LOADED-40-R", 1, || udp_between(backend, 5353, server, 54)).is_some());
    });
}

#[test]
fn pings_are_queued_and_neighbour_discovery_is_not() {
    in_namespace("steering::pings_are_queued_and_neighbour_discovery_is_not", || {
        everybody_lives_here();
        let plan = both_families(40);
        let _installed = install(&plan);
        let worker = |router| Some(steering(&plan).worker_of(ip(router), 3));
        assert_eq!(taken(Family::V4, "LOADED-40-Q", 1, || icmp(ip(VIP4), 8, &[0; 56])), worker(ROUTER4));
        assert_eq!(taken(Family::V6, "LOADED-40-Q", 1, || icmp(ip(VIP6), 128, &[0; 56])), worker(ROUTER6));
        for link in [131, 133, 134, 135, 136, 143] {
            assert_eq!(taken(Family::V6, "LOADED-40-Q", 1, || icmp(ip(VIP6), link, &[0; 16])), None, "type {link}");
        }
    });
}

#[test]
fn only_the_ports_of_a_service_are_taken() {
    in_namespace("steering::only_the_ports_of_a_service_are_taken", || {
        everybody_lives_here();
        let mut plan = plan(40, &[VIP4], &BACKENDS[..2], Protocol::Udp);
        plan.services[0].ports = (0..20).map(|n| PortRange { low: 100 * n + 80, high: 100 * n + 80 + n % 2 }).collect();
        let _installed = install(&plan);
        let (client, _) = clients().next().unwrap();
        let asked = |port| {
            let sent = || udp_between(client, 0, ip(VIP4), port);
            taken(Family::V4, "LOADED-40-Q", 1, sent).is_some()
        };
        assert!([80, 180, 181, 1980, 1981].into_iter().all(asked));
        assert!(![79, 81, 182, 1982, 22].into_iter().any(asked));
        let answered = |port| {
            let sent = || udp_between(ip(BACKENDS[1]), port, client, 9);
            taken(Family::V4, "LOADED-40-R", 1, sent).is_some()
        };
        assert!(answered(181) && !answered(182));
    });
}

#[test]
fn fragments_are_put_together_before_the_rules_see_them() {
    in_namespace("steering::fragments_are_put_together_before_the_rules_see_them", || {
        everybody_lives_here();
        run("ip", &["link", "set", "lo", "mtu", "1500"]);
        let plan = both_families(40);
        let (client4, client6) = clients().next().unwrap();
        for (family, program, client, vip) in
            [(Family::V4, "iptables-restore", client4, ip(VIP4)), (Family::V6, "ip6tables-restore", client6, ip(VIP6))]
        {
            // First without the chain that asks for it: the rules see every fragment.
            let text = rules(&plan).text(family).unwrap();
            let without: String =
                text.lines().filter(|line| !line.contains("-m socket")).map(|l| format!("{l}\n")).collect();
            restore(program, &without);
            udp(client, vip, 8000);
            assert_eq!(counters(family, "LOADED-40-Q")[0], 6, "{family}: fragments were expected here");
        }
        let _installed = install(&plan);
        for (family, client, vip) in [(Family::V4, client4, ip(VIP4)), (Family::V6, client6, ip(VIP6))] {
            let worker = steering(&plan).worker_of(client, 3);
            assert_eq!(taken(family, "LOADED-40-Q", 1, || udp(client, vip, 8000)), Some(worker), "{family}");
        }
    });
}

/// In a backend's name anybody can send, by any interface: what comes by another one than the route to the backend leads
/// through is no reply, and no error of the backend's.
#[test]
fn replies_come_from_where_the_backend_is() {
    in_namespace("steering::replies_come_from_where_the_backend_is", || {
        everybody_lives_here();
        let plan = both_families(40);
        let mut installed = install(&plan);
        let (client4, client6) = clients().next().unwrap();
        let families = [(Family::V4, client4, ip(BACKENDS[0])), (Family::V6, client6, ip(BACKENDS[2]))];
        let reply = |(family, client, backend)| taken(family, "LOADED-40-R", 1, || udp(backend, client, 100));
        let route = |dev: &str| {
            for (flag, backends) in [("-4", &BACKENDS[..2]), ("-6", &BACKENDS[2..])] {
                backends.iter().for_each(|b| drop(run("ip", &[flag, "route", "replace", b, "dev", dev])));
            }
        };
        assert!(families.into_iter().all(|family| reply(family).is_some()));
        route("out");
        assert!(families.into_iter().all(|family| reply(family).is_none()));
        // Any of several ways is one.
        for (flag, backend, via) in [("-4", BACKENDS[0], &[][..]), ("-6", BACKENDS[2], &["via", "fe80::1"])] {
            let ways = ["out", "in"].map(|dev| [&["nexthop"], via, &["dev", dev]].concat()).concat();
            run("ip", &[&[flag, "route", "replace", backend], &ways[..]].concat());
        }
        assert!(families.into_iter().all(|family| reply(family).is_some()));
        route("out");
        let mut open = plan.clone();
        open.services[0].policy.asymmetric = true;
        installed.update(&rules(&open)).unwrap();
        assert!(families.into_iter().all(|family| reply(family).is_some()));
    });
}
