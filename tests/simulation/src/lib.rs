//! The real runtime under simulation: up to three engine processes that share the work between ports in memory, on a paused
//! clock. Each may crash at any await of any port, stop, fall asleep and go on with what it had in hand, or lose its tap log;
//! partitions move among them at any moment; the gateway throttles, hangs, accepts and times out, and sends receipts late,
//! repeated and out of order. Everything is drawn from a seed.
//!
//! [`Played::of`] plays one seed and judges it; what many of them reached is added up in [`Coverage`].

mod city;
mod coverage;
mod judge;
mod world;

pub use coverage::Coverage;
use world::{Outcome, World};

/// One morning that was played to its end.
pub struct Played {
    world: World,
    outcome: Outcome,
}

impl Played {
    /// Plays `seed` from beginning to end, on a clock that moves only when everybody waits.
    ///
    /// # Panics
    /// Where the machine gives no runtime.
    pub fn of(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O can always be built");
        runtime.block_on(async {
            let world = World::from_seed(seed);
            let outcome = world.play().await;
            Self { world, outcome }
        })
    }

    /// Every breach of an invariant, in words.
    pub fn breaches(&self) -> Vec<String> {
        judge::judge(&self.world, &self.outcome)
    }

    /// Every entry of the ledger at the end, in words and in the order written.
    pub fn ledger(&self) -> Vec<String> {
        self.world.ledger.entries().iter().map(|entry| format!("{entry:?}")).collect()
    }
}
