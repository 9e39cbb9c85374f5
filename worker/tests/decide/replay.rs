//! Decisions about recorded packets: the same as about queued ones, by the time of the capture.

use super::packets::{ACK, SYN, ends, sound, tcp, udp, unreachable};
use super::world::{BACKENDS, SIDES, Service, messages};
use loaded_worker::replay::{Error, Outcome, Replay, Verdict};
use std::net::IpAddr;
use std::time::Duration;

fn replay(service: Service) -> Replay {
    Replay::new(messages(&[service]), 1000, 1000).expect("a configuration")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn a_packet_is_shown_with_its_flow_and_its_new_bytes() {
    for side in SIDES {
        let mut replay = replay(Service::default());
        let (client, vip) = ((side.client, 4000), (side.vip, 80));
        let syn = tcp(client, vip, SYN);
        let fate = replay.decide(&syn, 0, AT_ONCE);
        assert_eq!((fate.outcome, fate.verdict), (Outcome::ForwardedNew, Verdict::Rewrite));
        let flow = fate.flow.expect("a flow");
        assert_eq!((flow.client, flow.vip), ((ip(side.client), 4000), (ip(side.vip), 80)));
        assert_eq!((fate.service, flow.service, flow.protocol, fate.known), (Some(0), 0, 6, false));
        let backend = flow.backend.to_string();
        assert!(side.backends.contains(&backend.as_str()));
        let after = fate.after.expect("rewritten");
        assert!(sound(after));
        assert_eq!(ends(after), (side.client.to_owned(), backend.clone()));
        assert_eq!(fate.before, syn);

        let back = tcp((&backend, 80), client, SYN | ACK);
        let fate = replay.decide(&back, 0, AT_ONCE);
        assert_eq!((fate.outcome, fate.verdict, fate.known), (Outcome::Returned, Verdict::Repeat, true));
        assert_eq!(ends(fate.after.expect("rewritten")).0, side.vip);

        let about = tcp(client, (&backend, 80), ACK);
        let error = unreachable(&backend, side.client, &about, 8);
        let fate = replay.decide(&error, 0, AT_ONCE);
        assert_eq!((fate.outcome, fate.flow.map(|flow| flow.client.1)), (Outcome::ErrorReturned, Some(4000)));

        let own = udp((&backend, 5000), (side.router, 53));
        let fate = replay.decide(&own, 0, AT_ONCE);
        assert_eq!((fate.outcome, fate.verdict), (Outcome::PassedOwn, Verdict::Accept));
        assert!(fate.flow.is_none() && fate.after.is_none() && fate.service.is_none() && !fate.known);
        assert_eq!(replay.counts().map(|(_, count)| count).sum::<u64>(), 4);
    }
}

#[test]
fn an_ended_flow_is_still_shown_and_a_refused_packet_has_a_service() {
    let mut all_out = Service { down: (0..6).collect(), ..Service::default() };
    all_out.policy.all_down = loaded_ipc::AllDown::Reject;
    let mut replay = replay(all_out);
    let fate = replay.decide(&tcp(("203.0.113.7", 4000), ("192.0.2.100", 80), SYN), 0, AT_ONCE).outcome;
    assert_eq!(fate, Outcome::RefusedReset);
    let datagram = udp(("203.0.113.7", 4000), ("192.0.2.100", 80));
    let fate = replay.decide(&datagram, 0, AT_ONCE);
    assert_eq!((fate.outcome, fate.service, fate.flow), (Outcome::RefusedUnreachable, Some(0), None));
    let answer = fate.after.expect("an answer, longer than what it answers");
    assert_eq!(answer.len(), datagram.len() + 28);
    assert!(sound(answer));
}

#[test]
fn time_passes_as_recorded_and_never_goes_back() {
    let mut replay = replay(Service { affinity: None, ..Service::default() });
    let datagram = udp(("203.0.113.7", 4000), ("192.0.2.100", 80));
    let mut at = |millis| replay.decide(&datagram, 0, Duration::from_millis(millis)).outcome;
    // A datagram without an answer is remembered for 30 s.
    assert_eq!((at(0), at(20_000)), (Outcome::ForwardedNew, Outcome::Forwarded));
    assert_eq!((at(5_000), at(45_000)), (Outcome::Forwarded, Outcome::Forwarded));
    assert_eq!(at(80_000), Outcome::ForwardedNew);
    assert_eq!((at(u64::MAX), at(0)), (Outcome::ForwardedNew, Outcome::Forwarded));
}

#[test]
fn a_pause_sweeps_as_a_waiting_worker_does() {
    // With "fewest clients" the next choice shows that flows have expired, even if no packet has looked for them.
    let weighted = Service { strategy: loaded_ipc::Strategy::Weighted, affinity: None, ..Service::default() };
    let mut replay = replay(weighted);
    let mut send = |port, seconds| {
        let packet = udp(("203.0.113.7", port), ("192.0.2.100", 80));
        replay.decide(&packet, 0, Duration::from_secs(seconds)).flow.expect("a flow").backend.to_string()
    };
    let backends: Vec<_> = (1..=6).map(|port| send(port, 0)).collect();
    for (port, backend) in (1..).zip(&backends).filter(|(_, backend)| *backend != BACKENDS[0]) {
        assert_eq!(&send(port, 20), backend);
    }
    assert_eq!([send(7, 45), send(8, 45)], [BACKENDS[0], BACKENDS[0]]);
}

#[test]
fn packets_are_trimmed_and_cut_as_by_the_kernel() {
    let mut replay = replay(Service::default());
    for side in SIDES {
        let whole = tcp((side.client, 4000), (side.vip, 80), SYN);
        let padded = [&whole[..], &[0; 6]].concat();
        let fate = replay.decide(&padded, 0, AT_ONCE);
        assert_eq!((fate.outcome, fate.before.len(), fate.cut), (Outcome::ForwardedNew, whole.len(), false));
        // Only padding is missing.
        assert_eq!(replay.decide(&whole, 9, AT_ONCE).outcome, Outcome::Forwarded);
        let fate = replay.decide(&whole[..whole.len() - 2], 2, AT_ONCE);
        assert_eq!((fate.outcome, fate.cut, fate.after), (Outcome::DroppedCut, true, None));
        // The header names more bytes than there ever were: nothing is missing from the capture.
        assert_eq!(replay.decide(&whole[..whole.len() - 2], 0, AT_ONCE).outcome, Outcome::DroppedMalformed);
    }
    for length in 0..60 {
        for first in [0x45, 0x60, 0x00] {
            let mut bytes = vec![0; length];
            bytes.iter_mut().take(1).for_each(|byte| *byte = first);
            assert_eq!(replay.decide(&bytes, 0, AT_ONCE).verdict, Verdict::Drop, "{length} {first}");
        }
    }
    // Longer than a message of the kernel can be.
    let mut large = vec![0; 65_535];
    large[..20].copy_from_slice(&[0x45, 0, 255, 255, 0, 1, 0x40, 0, 64, 17, 0, 0, 203, 0, 113, 7, 192, 0, 2, 100]);
    large[20..26].copy_from_slice(&[0x0f, 0xa0, 0, 80, 255, 235]);
    let fate = replay.decide(&large, 0, AT_ONCE);
    assert_eq!((fate.outcome, fate.before.len(), fate.cut), (Outcome::DroppedCut, 65_531, true));
}

#[test]
fn a_configuration_without_commit_is_refused() {
    let mut begun = messages(&[Service::default()]);
    begun.pop();
    assert!(matches!(Replay::new(begun.clone(), 1000, 1000), Err(Error::Endless)));
    assert!(matches!(Replay::new(begun.into_iter().skip(1), 1000, 1000), Err(Error::OutOfStep(_))));
}
