//! Packets that wait outlive every change of rules, and every removal.

use super::*;

#[test]
fn packets_that_wait_outlive_changes_and_removal() {
    in_namespace("waiting::packets_that_wait_outlive_changes_and_removal", || {
        everybody_lives_here();
        let queues: Vec<_> = QUEUES.iter().map(|queue| bind_queue(*queue)).collect();
        let waiting = || queue_owners().unwrap().iter().map(|queue| queue.waiting).sum::<u32>();
        let mut installed = install(&both_families(40));
        udp(clients().next().unwrap().0, ip(VIP4), 10);
        assert_eq!(waiting(), 1);
        installed.update(&rules(&plan(40, &[VIP4], &BACKENDS[1..2], Protocol::Any))).unwrap();
        assert_eq!(waiting(), 1, "after a change that drops IPv6");
        installed.remove().unwrap();
        assert_eq!(waiting(), 1, "after the removal");
        assert!(!saved().contains("-j LOADED"));
        let notes = installed.tidy();
        assert!(notes.len() == 2 && notes[0].contains("LOADED-40-D LOADED-40-T stay"), "{notes:?}");
        assert_eq!(waiting(), 1, "after tidying");

        // The queues end, and with them the packets. The next start finds what had to stay.
        drop(queues);
        clean_stale(&Tools::find().unwrap(), |_| false).unwrap();
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}
