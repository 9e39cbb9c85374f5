use super::*;
use proptest::prelude::*;

const FATE: Disposition = Disposition::Request { backend: 3 };

fn datagram(n: u32) -> Datagram {
    let mut source = [7; 16];
    source[12..].copy_from_slice(&n.to_be_bytes());
    Datagram { source, destination: [9; 16], protocol: 17, id: n }
}

fn piece(offset: u32, length: u32, more: bool) -> Fragment {
    Fragment { id: 1, offset, length, more }
}

/// As the decider does it.
fn come(fragments: &mut FragmentTable, datagram: &Datagram, piece: &Fragment, now: u64) -> FragmentStatus {
    let met = fragments.add(datagram, piece, now);
    if met == FragmentStatus::First {
        fragments.remember(datagram, piece, FATE, now);
    }
    met
}

#[test]
fn pieces_go_the_way_of_the_first() {
    let (mut fragments, one, other) = (FragmentTable::new(), datagram(1), datagram(2));
    assert_eq!(come(&mut fragments, &one, &piece(1480, 1480, true), 0), FragmentStatus::BeforeFirst);
    assert!(!fragments.knows(&one, 0));
    assert_eq!(come(&mut fragments, &one, &piece(0, 1480, true), 0), FragmentStatus::First);
    assert!(fragments.knows(&one, 0) && !fragments.knows(&other, 0));
    assert_eq!(come(&mut fragments, &one, &piece(1480, 1480, true), 1), FragmentStatus::Later(FATE));
    assert_eq!(come(&mut fragments, &other, &piece(1480, 8, true), 1), FragmentStatus::BeforeFirst);
    assert_eq!(come(&mut fragments, &one, &piece(2960, 5, false), 2), FragmentStatus::Later(FATE));
    assert!(!fragments.knows(&one, 2), "it is complete: what comes now is another");
    assert_eq!(come(&mut fragments, &one, &piece(0, 1480, true), 3), FragmentStatus::First);
}

#[test]
fn what_does_not_fit_poisons_and_a_duplicate_does_not() {
    let good = |n| [piece(0, 64, true), piece(128, 64, true), piece(n, 64, true)];
    let bad = [
        ("overlaps", piece(184, 16, true)),
        ("covers", piece(120, 80, true)),
        ("covers the last bytes", piece(184, 16, false)),
        ("ends before what was seen", piece(64, 8, false)),
        ("no whole units", piece(512, 9, true)),
        ("empty", piece(512, 0, false)),
        ("beyond the largest", piece(65_528, 8, false)),
    ];
    for (name, bad) in bad {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        for piece in good(256) {
            assert_ne!(come(&mut fragments, &datagram, &piece, 0), FragmentStatus::Rejected, "{name}");
        }
        assert_eq!(
            come(&mut fragments, &datagram, &piece(128, 64, true), 0),
            FragmentStatus::Rejected,
            "a duplicate is dropped"
        );
        assert_eq!(
            come(&mut fragments, &datagram, &piece(64, 64, true), 0),
            FragmentStatus::Later(FATE),
            "and it alone"
        );
        assert_eq!(come(&mut fragments, &datagram, &bad, 0), FragmentStatus::Rejected, "{name}");
        assert_eq!(
            come(&mut fragments, &datagram, &piece(400, 64, true), 0),
            FragmentStatus::Rejected,
            "after: {name}"
        );
    }
    for bad in [piece(264, 8, true), piece(264, 9, false), piece(240, 8, false)] {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        come(&mut fragments, &datagram, &piece(0, 64, true), 0);
        assert_eq!(come(&mut fragments, &datagram, &piece(256, 8, false), 0), FragmentStatus::Later(FATE));
        assert_eq!(come(&mut fragments, &datagram, &bad, 0), FragmentStatus::Rejected);
        assert_eq!(come(&mut fragments, &datagram, &piece(64, 64, true), 0), FragmentStatus::Rejected, "{bad:?}");
    }
}

#[test]
fn a_datagram_is_forgotten_in_time_and_the_oldest_for_a_new_one() {
    let mut fragments = FragmentTable::new();
    come(&mut fragments, &datagram(1), &piece(0, 64, true), 5);
    assert!(fragments.knows(&datagram(1), 5 + LIFETIME_MS - 1) && !fragments.knows(&datagram(1), 5 + LIFETIME_MS));

    // Of one sender: they share a set.
    let of = |id| Datagram { id, ..datagram(1) };
    for id in (10..).take(3 * WAYS) {
        come(&mut fragments, &of(id), &piece(0, 64, true), 50_000);
        let known = (10..=id).rev().take(WAYS).all(|id| fragments.knows(&of(id), 50_000));
        assert!(known && (10..=id).filter(|id| fragments.knows(&of(*id), 50_000)).count() <= WAYS);
    }
}

#[test]
fn a_flood_of_one_sender_leaves_others_alone() {
    let mut fragments = FragmentTable::new();
    let others: Vec<_> = (2..).map(datagram).filter(|d| d.set() != datagram(1).set()).take(20).collect();
    for other in &others {
        come(&mut fragments, other, &piece(0, 64, true), 0);
    }
    let before = fragments.entries.as_ptr();
    for id in 0..100_000 {
        come(&mut fragments, &Datagram { id, ..datagram(1) }, &piece(0, 64, true), 0);
        come(&mut fragments, &Datagram { id: !id, ..datagram(1) }, &piece(64, 64, true), 0);
    }
    assert!(others.iter().all(|other| fragments.knows(other, 0)));
    assert_eq!((fragments.entries.as_ptr(), fragments.entries.len()), (before, SETS * WAYS));
}

proptest! {
    /// Against a plain byte map: in any order, with duplicates and overlaps, no byte is sent on twice; and what is whole and
    /// fits is all sent on.
    #[test]
    fn no_byte_goes_twice(pieces in prop::collection::vec((0u32..40, 1u32..8, any::<bool>()), 0..40)) {
        let (mut fragments, datagram) = (FragmentTable::new(), datagram(1));
        let mut gone = vec![false; 400];
        come(&mut fragments, &datagram, &piece(0, 8, true), 0);
        gone[..8].fill(true);
        for (offset, length, more) in pieces {
            let piece = piece(offset * 8 + 8, if more { length * 8 } else { length * 8 - 3 }, more);
            if matches!(fragments.add(&datagram, &piece, 0), FragmentStatus::Later(_)) {
                let range = piece.offset as usize..(piece.offset + piece.length) as usize;
                prop_assert!(gone[range.clone()].iter().all(|gone| !gone));
                gone[range].fill(true);
            }
        }
    }

    #[test]
    fn a_sound_datagram_goes_whole_in_any_order(
        cuts in prop::collection::btree_set(1u32..8000, 1..20), tail in 1u32..8, turn: u64,
    ) {
        let mut bounds: Vec<u32> = cuts.iter().map(|cut| cut * 8).collect();
        bounds.insert(0, 0);
        let end = bounds[bounds.len() - 1] + tail;
        bounds.push(end);
        let pieces = bounds.windows(2).map(|w| piece(w[0], w[1] - w[0], w[1] != end));
        let mut pieces: Vec<_> = pieces.collect();
        let mut fragments = FragmentTable::new();
        prop_assert_eq!(come(&mut fragments, &datagram(1), &pieces.remove(0), 0), FragmentStatus::First);
        pieces.sort_by_key(|p| u64::from(p.offset).wrapping_add(turn).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for piece in &pieces {
            prop_assert_eq!(come(&mut fragments, &datagram(1), piece, 0), FragmentStatus::Later(FATE));
        }
        prop_assert!(!fragments.knows(&datagram(1), 0));
    }
}
