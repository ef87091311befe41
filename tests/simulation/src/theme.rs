//! What there is more of on a day than on others. As rare as each misfortune is on most days, two that belong together, a message
//! in doubt and a partition that moves just then, would hardly ever meet; where a day has much of both, they do.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Of four days one has each theme, whatever else it has.
const ONE_IN: u32 = 4;

/// The themes of a day, by whether it has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Themes {
    /// Many messages are in doubt, and what is known of them comes about when they are of no use any more.
    pub(crate) doubt: bool,
    /// Partitions move all the time, and processes fall asleep or hear nothing of each other.
    pub(crate) unrest: bool,
    /// Processes live for a short while.
    pub(crate) short_lives: bool,
    /// Ports fail often.
    pub(crate) failing_ports: bool,
}

impl Themes {
    /// Drawn apart from everything else that `seed` has.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x7e3e);
        let mut is_drawn = || random.random_range(0..ONE_IN) == 0;
        Self { doubt: is_drawn(), unrest: is_drawn(), short_lives: is_drawn(), failing_ports: is_drawn() }
    }
}
