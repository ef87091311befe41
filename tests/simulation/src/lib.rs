//! The real runtime under simulation: up to three engine processes that share the work between ports in memory, on a paused
//! clock. Each may crash at any await of any port, stop, fall asleep and go on with what it had in hand, or hear nothing of a
//! port; partitions move among them at any moment; ports fail, are slow, or do what was asked and answer a time-out; the
//! gateway throttles, hangs, answers rubbish, accepts and times out, and sends receipts late, repeated, out of order or never;
//! somebody sets the clock. Everything is drawn from a seed.
//!
//! [`Played::of`] plays one [`Plan`] and judges it; what many of them reached is added up in [`Coverage`]; [`play_all`] plays
//! many on all cores; [`minimised`] finds the least of a plan that still fails.

mod city;
mod counters;
mod coverage;
mod day;
mod eavesdropper;
mod judge;
mod lives;
mod minimise;
mod model;
mod plan;
mod readers;
mod runs;
mod theme;
mod world;

pub use coverage::{Coverage, LONG_RUN_SEEDS};
pub use minimise::minimised;
pub use plan::{Kind, Plan};
pub use runs::{Failure, Run, play_all};

use counters::Counters;
use eavesdropper::Eavesdropper;
use gatebell_engine::invariants::predicates::says_none_of;
use gatebell_engine::testing::fakes::{Journal, JournalLine};
use world::{Outcome, World};

/// Prints what had happened, where the plan asked for it, when the day ends by a panic.
struct ToldWhenPanicking(Journal);

impl Drop for ToldWhenPanicking {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lines().iter().for_each(|line| println!("{line}"));
        }
    }
}

/// One day that was played to its end.
pub struct Played {
    world: World,
    outcome: Outcome,
    counters: Counters,
    eavesdropper: Eavesdropper,
}

impl Played {
    /// Plays `plan` from beginning to end, on a clock that moves only when everybody waits.
    ///
    /// # Panics
    /// Where the machine gives no runtime.
    pub fn of(plan: Plan) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O can always be built");
        let (counters, eavesdropper) = (Counters::default(), Eavesdropper::default());
        let day = async {
            let world = World::planned(plan);
            let _told = ToldWhenPanicking(world.journal.clone());
            let outcome = world.play().await;
            (world, outcome)
        };
        let (world, outcome) =
            metrics::with_local_recorder(&counters, || eavesdropper.listen(|| runtime.block_on(day)));
        Self { world, outcome, counters, eavesdropper }
    }

    /// Every breach of an invariant, in words.
    pub fn breaches(&self) -> Vec<String> {
        let mut breaches = judge::judge(&self.world, &self.outcome, &self.counters);
        breaches.extend(self.eavesdropper.heard().into_iter().map(|line| format!("P1: logged: {line}")));
        let labels = self.counters.label_values();
        let personal = labels.into_iter().filter(|value| !says_none_of(value, city::PERSONAL));
        breaches.extend(personal.map(|value| format!("P1: a figure is labelled {value}")));
        let noticed = self.counters.by_label("gatebell_invariant_violations_total", "invariant");
        breaches.extend(
            noticed.into_iter().map(|(invariant, times)| {
                format!("{invariant}: the engine noticed it itself, {times} times")
            }),
        );
        breaches
    }

    /// Every entry of the ledger at the end, in words and in the order written.
    pub fn ledger(&self) -> Vec<String> {
        self.world.ledger.entries().iter().map(|entry| format!("{entry:?}")).collect()
    }

    /// What happened, where the plan asked for it.
    pub fn time_line(&self) -> Vec<JournalLine> {
        self.world.journal.lines()
    }
}
