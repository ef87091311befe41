//! The ordinary run of the simulation. A failing seed is printed; `GATEBELL_SEEDS=17..18 cargo test -p gatebell-simulation`
//! plays it again.

use std::ops::Range;

use gatebell_simulation::{Coverage, Played};

/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("GATEBELL_SEEDS") else { return SEEDS };
    let (from, until) = asked.split_once("..").expect("GATEBELL_SEEDS is FROM..UNTIL");
    from.parse().expect("FROM is a number")..until.parse().expect("UNTIL is a number")
}

#[test]
fn invariants_hold_through_crashes_and_bad_gateways() {
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    for seed in seeds() {
        let played = Played::of(seed);
        let breaches = played.breaches();
        if !breaches.is_empty() {
            failures.push(format!("seed {seed}:\n  {}", breaches.join("\n  ")));
        }
        coverage.add(&played);
    }
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), failures.join("\n"));
    println!("{coverage}");
    if seeds() == SEEDS {
        assert_eq!(coverage.never_reached(), [""; 0], "an ordinary run must reach all of this");
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in [3, 11] {
        assert_eq!(Played::of(seed).ledger(), Played::of(seed).ledger(), "seed {seed}");
    }
}
