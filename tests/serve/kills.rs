//! How many processes a test kills and when: random moments from a seed that is told, so that a failure can be played again.

use std::ops::Range;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::tell;

/// Says how often, when and whom.
pub(crate) struct Kills {
    pub(crate) count: usize,
    random: ChaCha8Rng,
}

impl Kills {
    /// As many as `GATEBELL_KILLS` says, else `count`, but not more than `count_max`; moments from the seed
    /// `GATEBELL_KILL_SEED`, else a new one. `of_what` is told with both.
    pub(crate) fn asked(of_what: &str, count: usize, count_max: usize) -> Self {
        let count =
            number("GATEBELL_KILLS").map_or(count, |asked| usize::try_from(asked).unwrap()).min(count_max);
        let seed = number("GATEBELL_KILL_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
        tell(format_args!("kills of {of_what}: GATEBELL_KILLS={count} GATEBELL_KILL_SEED={seed}"));
        Self { count, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Any time within `bounds`.
    pub(crate) fn time(&mut self, bounds: Range<Duration>) -> Duration {
        self.random.random_range(bounds)
    }

    /// One of so many.
    pub(crate) fn one_of(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    /// True in a `share` of all cases.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}
