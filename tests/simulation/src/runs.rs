//! Many seeds, on all cores: each is played on a thread and a runtime of its own.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use crate::{Coverage, Plan, Played};

/// A seed that breached an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was breached, in words.
    pub breaches: Vec<String>,
}

/// What came of many seeds.
#[derive(Default)]
pub struct Run {
    /// How many were played to their end.
    pub seeds: u64,
    /// What they reached.
    pub coverage: Coverage,
    /// Those that failed, in the order found.
    pub failures: Vec<Failure>,
}

/// Plays `plan` with every seed of `seeds` on `threads` threads, until `stop` is set; tells `progress` of the run after each.
pub fn play_all(
    plan: &Plan,
    seeds: Range<u64>,
    threads: NonZeroUsize,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Run),
) -> Run {
    let next = AtomicU64::new(seeds.start);
    let (results, done) = mpsc::channel();
    let mut run = Run::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            let (results, next, until) = (results.clone(), &next, seeds.end);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= until || results.send(judged(Plan { seed, ..plan.clone() })).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for (coverage, failure) in done {
            run.seeds += 1;
            run.coverage.merge(&coverage);
            run.failures.extend(failure);
            progress(&run);
        }
    });
    run
}

/// Plays one plan; what it reached, and how it failed.
fn judged(plan: Plan) -> (Coverage, Option<Failure>) {
    let seed = plan.seed;
    let breaches = breaches_of(plan);
    let (coverage, breaches) = match breaches {
        Ok((coverage, breaches)) => (coverage, breaches),
        Err(panic) => (Coverage::default(), vec![panic]),
    };
    (coverage, (!breaches.is_empty()).then_some(Failure { seed, breaches }))
}

/// What a plan reached and breached; `Err` with the words of a panic.
pub(crate) fn breaches_of(plan: Plan) -> Result<(Coverage, Vec<String>), String> {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let played = Played::of(plan);
        let mut coverage = Coverage::default();
        coverage.add(&played);
        (coverage, played.breaches())
    }));
    played.map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panicked: {}", said.unwrap_or("without a word"))
    })
}
