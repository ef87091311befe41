//! The ordinary run of the simulation. A failing seed is printed with the command that plays it to be read;
//! `GATEBELL_SEEDS=17..18 cargo test -p gatebell-simulation` plays it here.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use gatebell_simulation::{Plan, Played, play_all};

/// Seeds of an ordinary run.
const SEEDS: Range<u64> = 0..200;

fn seeds() -> Range<u64> {
    let Ok(asked) = std::env::var("GATEBELL_SEEDS") else { return SEEDS };
    let (from, until) = asked.split_once("..").expect("GATEBELL_SEEDS is FROM..UNTIL");
    from.parse().expect("FROM is a number")..until.parse().expect("UNTIL is a number")
}

#[test]
fn invariants_hold_through_crashes_and_bad_gateways() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let run = play_all(&Plan::of(0), seeds.clone(), threads, &AtomicBool::new(false), |_| {});
    for failure in &run.failures {
        println!("seed {}:", failure.seed);
        failure.breaches.iter().for_each(|breach| println!("  {breach}"));
        println!("  cargo run -p gatebell-simulation --release -- {} --trace", Plan::of(failure.seed));
    }
    println!("{}", run.coverage);
    assert!(run.failures.is_empty(), "{} seeds failed, see above", run.failures.len());
    if seeds == SEEDS {
        assert_eq!(run.coverage.never_reached(run.seeds), [""; 0], "an ordinary run must reach all of this");
    }
}

#[test]
fn a_seed_plays_the_same_every_time() {
    for seed in [3, 11] {
        let ledger = || Played::of(Plan::of(seed)).ledger();
        assert_eq!(ledger(), ledger(), "seed {seed}");
    }
}
