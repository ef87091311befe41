//! The real runtime under simulation: up to three engine processes that share the work between ports in memory, on a paused
//! clock. Each may crash at any await of any port, stop, fall asleep and go on with what it had in hand, or lose its tap log;
//! partitions move among them at any moment; the gateway throttles, hangs, accepts and times out, and sends receipts late,
//! repeated and out of order. Everything is drawn from a seed; a failing one is printed, and
//! `GATEBELL_SEEDS=17..18 cargo test --test simulation` replays it.

mod city;
mod coverage;
mod judge;
mod world;

use std::ops::Range;

use world::{Outcome, World};

/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("GATEBELL_SEEDS") else { return SEEDS };
    let (from, until) = asked.split_once("..").expect("GATEBELL_SEEDS is FROM..UNTIL");
    from.parse().expect("FROM is a number")..until.parse().expect("UNTIL is a number")
}

/// Plays one seed from beginning to end, on a clock that moves only when everybody waits.
fn play(seed: u64) -> (World, Outcome) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be built");
    runtime.block_on(async {
        let world = World::from_seed(seed);
        let outcome = world.play().await;
        (world, outcome)
    })
}

#[test]
fn invariants_hold_through_crashes_and_bad_gateways() {
    let mut coverage = coverage::Coverage::default();
    let mut failures = Vec::new();
    for seed in seeds() {
        let (world, outcome) = play(seed);
        let breaches = judge::judge(&world, &outcome);
        if !breaches.is_empty() {
            failures.push(format!("seed {seed}:\n  {}", breaches.join("\n  ")));
        }
        coverage.add(&world, &outcome);
    }
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), failures.join("\n"));
    println!("{coverage}");
    if seeds() == SEEDS {
        coverage.assert_nothing_was_left_out();
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    let entries = |seed| {
        let (world, _) = play(seed);
        world.ledger.entries()
    };
    for seed in [3, 11] {
        assert_eq!(entries(seed), entries(seed), "seed {seed}");
    }
}
