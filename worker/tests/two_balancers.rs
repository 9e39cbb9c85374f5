//! What maglev moves while two balancers differ for a moment: the clients that one of them places otherwise than the other. Prints what
//! docs/figures.md has: `cargo test -p loaded-worker --test two_balancers -- --nocapture`.

use loaded_ipc::{BackendIndex, Policy, Strategy};
use loaded_worker::balance::{Balancer, FULL_SHARE, MemberSpec, Standing};

const CLIENTS: u32 = 100_000;
const SIZES: [u16; 3] = [3, 10, 100];
const WELL: Standing = Standing { enabled: true, confirmed: true, up: true, ejected: false };
const DOWN: Standing = Standing { up: false, ..WELL };
const DRAINS: Standing = Standing { enabled: false, ..WELL };
/// The backend that they see differently.
const CHANGED: u16 = 0;

/// What differs, how one balancer sees it, how the other one, and on how many backends they differ: the first ones.
type Row = (&'static str, fn(u16) -> Balancer, fn(u16) -> Balancer, u16);

/// Where only standing or share differ, no client moves between two backends of which both hold the same.
const ROWS: [Row; 7] = [
    ("nothing: one is down, or drains, by both", |n| with(n, DOWN), |n| with(n, DRAINS), 0),
    ("one is down by one of them", well, |n| with(n, DOWN), 1),
    ("one drains at one of them", well, |n| with(n, DRAINS), 1),
    ("each holds another one for down", |n| with(n, DOWN), second_down, 2),
    ("slow start, 10 and 20 % of it", |n| starting(n, 10), |n| starting(n, 20), 1),
    ("slow start, 80 and 81 % of it", |n| starting(n, 80), |n| starting(n, 81), 1),
    ("one has ended its slow start, the other one has just begun it", well, |n| starting(n, 10), 1),
];
/// Where the configurations differ, the tables do.
const CONFIGURATIONS: [Row; 3] = [
    ("weight 2 at one of them, 1 at the other", well, |n| of((0..n).map(|m| (m, 1 + u16::from(m == CHANGED)))), 1),
    ("one of them does not have one yet", well, |n| of((0..n).filter(|m| *m != CHANGED).map(|m| (m, 1))), 1),
    ("weight 0 at one of them", well, |n| of((0..n).map(|m| (m, u16::from(m != CHANGED)))), 1),
];

#[test]
fn only_the_clients_of_a_backend_on_which_they_differ_move() {
    println!("| they differ in | {} |", SIZES.map(|n| format!("of {n} backends")).join(" | "));
    for (name, one, other, differ) in ROWS {
        let moved = SIZES.map(|n| moved(&one(n), &other(n), differ));
        print_row(name, &moved);
        assert!(moved.iter().all(|moved| moved.between_others == 0), "{name}: {moved:?}");
        assert!(differ > 0 || moved.iter().all(|moved| moved.all == 0), "what both know moves nobody: {moved:?}");
    }
}

#[test]
fn configurations_that_differ_move_few_of_the_others() {
    for (name, one, other, differ) in CONFIGURATIONS {
        let moved = SIZES.map(|n| moved(&one(n), &other(n), differ));
        print_row(name, &moved);
        // Maglev's table is filled anew (Eisenbud et al., §5.3: a few percent are disrupted).
        assert!(moved.iter().all(|moved| moved.between_others * 20 < CLIENTS), "{name}: {moved:?}");
    }
}

/// How many clients the two place otherwise, and how many of these neither of them places at a backend on which they differ.
#[derive(Debug)]
struct Moved {
    all: u32,
    between_others: u32,
}

fn moved(one: &Balancer, other: &Balancer, differ: u16) -> Moved {
    let (mut all, mut between_others) = (0, 0);
    for client in 0..CLIENTS {
        // As addresses are given.
        let client = (0xffff_0a00_0000_u128 + u128::from(client)).to_be_bytes();
        let (one, other) = (one.would_choose(&client), other.would_choose(&client));
        all += u32::from(one != other);
        let is_other = |backend: Option<BackendIndex>| backend.is_some_and(|backend| backend.0 >= differ);
        between_others += u32::from(one != other && is_other(one) && is_other(other));
    }
    Moved { all, between_others }
}

fn print_row(name: &str, moved: &[Moved]) {
    let percent = |count: u32| format!("{:.1} %", 100.0 * f64::from(count) / f64::from(CLIENTS));
    let cell = |moved: &Moved| match moved.between_others {
        0 => percent(moved.all),
        others => format!("{} ({} between others)", percent(moved.all), percent(others)),
    };
    println!("| {name} | {} |", moved.iter().map(cell).collect::<Vec<_>>().join(" | "));
}

fn well(n: u16) -> Balancer {
    of((0..n).map(|m| (m, 1)))
}

fn with(n: u16, standing: Standing) -> Balancer {
    let mut balancer = well(n);
    balancer.set_standing(BackendIndex(CHANGED), standing);
    balancer
}

fn second_down(n: u16) -> Balancer {
    let mut balancer = well(n);
    balancer.set_standing(BackendIndex(CHANGED + 1), DOWN);
    balancer
}

fn starting(n: u16, percent: u16) -> Balancer {
    let mut balancer = well(n);
    balancer.set_share(BackendIndex(CHANGED), FULL_SHARE / 100 * percent);
    balancer
}

/// Backends by number and weight.
fn of(members: impl Iterator<Item = (u16, u16)>) -> Balancer {
    let members: Vec<_> = members
        .map(|(n, weight)| MemberSpec {
            backend: BackendIndex(n),
            address: (0xffff_c633_6400_u128 + u128::from(n)).to_be_bytes(),
            port: None,
            weight,
            backup: false,
        })
        .collect();
    Balancer::new(&members, Strategy::Maglev { seed: 0 }, 0, Policy::STANDARD).expect("pool")
}
