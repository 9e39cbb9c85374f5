use super::*;
use proptest::prelude::*;

const DISPOSITION: Disposition = Disposition::Request { backend: 3 };

fn datagram(n: u32) -> Datagram {
    let mut source = [7; 16];
    source[12..].copy_from_slice(&n.to_be_bytes());
    Datagram { source, destination: [9; 16], protocol: 17, id: n }
}

fn fragment(offset: u32, length: u32, more: bool) -> Fragment {
    Fragment { id: 1, offset, length, more }
}

/// Adds a fragment as the decider does.
fn arrive(fragments: &mut FragmentTable, datagram: &Datagram, fragment: &Fragment, now: u64) -> FragmentStatus {
    let status = fragments.add(datagram, fragment, now);
    if status == FragmentStatus::First {
        fragments.remember(datagram, fragment, DISPOSITION, now);
    }
    status
}

#[test]
fn fragments_follow_the_first_one() {
    let (mut fragments, one, other) = (FragmentTable::new(), datagram(1), datagram(2));
    assert_eq!(arrive(&mut fragments, &one, &fragment(1480, 1480, true), 0), FragmentStatus::BeforeFirst);
    assert!(!fragments.knows(&one, 0));
    assert_eq!(arrive(&mut fragments, &one, &fragment(0, 1480, true), 0), FragmentStatus::First);
    assert!(fragments.knows(&one, 0) && !fragments.knows(&other, 0));
    assert_eq!(arrive(&mut fragments, &one, &fragment(1480, 1480, true), 1), FragmentStatus::Later(DISPOSITION));
    assert_eq!(arrive(&mut fragments, &other, &fragment(1480, 8, true), 1), FragmentStatus::BeforeFirst);
    assert_eq!(arrive(&mut fragments, &one, &fragment(2960, 5, false), 2), FragmentStatus::Later(DISPOSITION));
    assert!(!fragments.knows(&one, 2), "it is complete: what comes now is another datagram");
    assert_eq!(arrive(&mut fragments, &one, &fragment(0, 1480, true), 3), FragmentStatus::First);
}

#[test]
fn contradictions_poison_a_datagram_and_duplicates_do_not() {
    let good = |n| [fragment(0, 64, true), fragment(128, 64, true), fragment(n, 64, true)];
    let bad = [
        ("overlaps", fragment(184, 16, true)),
        ("covers", fragment(120, 80, true)),
        ("covers the last bytes", fragment(184, 16, false)),
        ("ends before what was seen", fragment(64, 8, false)),
        ("no whole units", fragment(512, 9, true)),
        ("empty", fragment(512, 0, false)),
        ("beyond the largest", fragment(65_528, 8, false)),
    ];
    for (name, bad) in bad {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        for fragment in good(256) {
            assert_ne!(arrive(&mut fragments, &datagram, &fragment, 0), FragmentStatus::Rejected, "{name}");
        }
        assert_eq!(
            arrive(&mut fragments, &datagram, &fragment(128, 64, true), 0),
            FragmentStatus::Rejected,
            "a duplicate is dropped"
        );
        assert_eq!(
            arrive(&mut fragments, &datagram, &fragment(64, 64, true), 0),
            FragmentStatus::Later(DISPOSITION),
            "and it alone"
        );
        assert_eq!(arrive(&mut fragments, &datagram, &bad, 0), FragmentStatus::Rejected, "{name}");
        assert_eq!(
            arrive(&mut fragments, &datagram, &fragment(400, 64, true), 0),
            FragmentStatus::Rejected,
            "after: {name}"
        );
    }
    for bad in [fragment(264, 8, true), fragment(264, 9, false), fragment(240, 8, false)] {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        arrive(&mut fragments, &datagram, &fragment(0, 64, true), 0);
        assert_eq!(arrive(&mut fragments, &datagram, &fragment(256, 8, false), 0), FragmentStatus::Later(DISPOSITION));
        assert_eq!(arrive(&mut fragments, &datagram, &bad, 0), FragmentStatus::Rejected);
        assert_eq!(arrive(&mut fragments, &datagram, &fragment(64, 64, true), 0), FragmentStatus::Rejected, "{bad:?}");
    }
}

#[test]
fn a_datagram_is_forgotten_after_its_lifetime_or_for_a_newer_one() {
    let mut fragments = FragmentTable::new();
    arrive(&mut fragments, &datagram(1), &fragment(0, 64, true), 5);
    assert!(fragments.knows(&datagram(1), 5 + LIFETIME_MS - 1) && !fragments.knows(&datagram(1), 5 + LIFETIME_MS));

    // Datagrams of one sender share a set.
    let of = |id| Datagram { id, ..datagram(1) };
    for id in (10..).take(3 * WAYS) {
        arrive(&mut fragments, &of(id), &fragment(0, 64, true), 50_000);
        let known = (10..=id).rev().take(WAYS).all(|id| fragments.knows(&of(id), 50_000));
        assert!(known && (10..=id).filter(|id| fragments.knows(&of(*id), 50_000)).count() <= WAYS);
    }
}

#[test]
fn a_flood_by_one_sender_does_not_displace_others() {
    let mut fragments = FragmentTable::new();
    let others: Vec<_> = (2..).map(datagram).filter(|d| d.set() != datagram(1).set()).take(20).collect();
    for other in &others {
        arrive(&mut fragments, other, &fragment(0, 64, true), 0);
    }
    let before = fragments.entries.as_ptr();
    for id in 0..100_000 {
        arrive(&mut fragments, &Datagram { id, ..datagram(1) }, &fragment(0, 64, true), 0);
        arrive(&mut fragments, &Datagram { id: !id, ..datagram(1) }, &fragment(64, 64, true), 0);
    }
    assert!(others.iter().all(|other| fragments.knows(other, 0)));
    assert_eq!((fragments.entries.as_ptr(), fragments.entries.len()), (before, SETS * WAYS));
}

proptest! {
    /// Against a plain byte map: in any order, with duplicates and overlaps, no byte is forwarded twice.
    #[test]
    fn no_byte_is_forwarded_twice(parts in prop::collection::vec((0u32..40, 1u32..8, any::<bool>()), 0..40)) {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        let mut forwarded = vec![false; 400];
        arrive(&mut fragments, &datagram, &fragment(0, 8, true), 0);
        forwarded[..8].fill(true);
        for (offset, length, more) in parts {
            let fragment = fragment(offset * 8 + 8, if more { length * 8 } else { length * 8 - 3 }, more);
            if matches!(fragments.add(&datagram, &fragment, 0), FragmentStatus::Later(_)) {
                let range = fragment.offset as usize..(fragment.offset + fragment.length) as usize;
                prop_assert!(forwarded[range.clone()].iter().all(|seen| !seen));
                forwarded[range].fill(true);
            }
        }
    }

    #[test]
    fn a_sound_datagram_is_forwarded_whole_in_any_order(
        cuts in prop::collection::btree_set(1u32..8000, 1..20), tail in 1u32..8, turn: u64,
    ) {
        let mut bounds: Vec<u32> = cuts.iter().map(|cut| cut * 8).collect();
        bounds.insert(0, 0);
        let end = bounds[bounds.len() - 1] + tail;
        bounds.push(end);
        let parts = bounds.windows(2).map(|w| fragment(w[0], w[1] - w[0], w[1] != end));
        let mut parts: Vec<_> = parts.collect();
        let mut fragments = FragmentTable::new();
        prop_assert_eq!(arrive(&mut fragments, &datagram(1), &parts.remove(0), 0), FragmentStatus::First);
        parts.sort_by_key(|p| u64::from(p.offset).wrapping_add(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for fragment in &parts {
            prop_assert_eq!(arrive(&mut fragments, &datagram(1), fragment, 0), FragmentStatus::Later(DISPOSITION));
        }
        prop_assert!(!fragments.knows(&datagram(1), 0));
    }
}
