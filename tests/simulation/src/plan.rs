//! What a run of a seed is to hold: everything that the seed has, or, to find out what a failure needs, less of it.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use clap::ValueEnum;

/// A kind of misfortune, or of ordinary trouble, that can be left out. All others fall as they would have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Kind {
    /// Processes that crash at an await.
    Crashes,
    /// Processes that are told to stop, and started again.
    Stops,
    /// Processes that fall asleep and go on with what they had in hand.
    Naps,
    /// Processes that do not hear of the tap log, the registry or the seats for a while.
    CutOffs,
    /// Partitions that move without a need.
    Rebalances,
    /// Calls of ports that fail and did nothing.
    Refusals,
    /// Calls of ports that did it and answer a time-out.
    TimeOuts,
    /// Calls of ports that take seconds.
    SlowPorts,
    /// Writes of which a part was made.
    TornWrites,
    /// Ports that are away for everybody for a while.
    Outages,
    /// Gateways that throttle, refuse, are down or out of reach.
    Refusers,
    /// Gateways that hang, or take their time.
    Hangs,
    /// Gateways whose answers cannot be read or are too few.
    Rubbish,
    /// Receipts that say failed, come twice, contradict each other, or come before the answer.
    OddReceipts,
    /// Receipts that must be asked for, or are not to be had.
    LostReceipts,
    /// A wall clock that is set.
    ClockJumps,
    /// Changes of the registry in mid-stream.
    Changes,
    /// Taps reported twice.
    Duplicates,
    /// Readers that were offline, and upload later.
    LateUploads,
    /// Readers whose clocks are off.
    ClockSkew,
}

impl Kind {
    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where everything is drawn from.
    pub seed: u64,
    /// What is left out.
    pub without: BTreeSet<Kind>,
    /// At most so many processes at once.
    pub processes_max: u32,
    /// Which of the day's moments are played; a moment brings taps, and perhaps a change or a misfortune.
    pub moments: Range<u32>,
    /// Whether a time line is kept.
    pub is_traced: bool,
}

impl Plan {
    /// Every moment of a day.
    pub const ALL_MOMENTS: Range<u32> = 0..u32::MAX;

    /// Everything that `seed` has.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            without: BTreeSet::new(),
            processes_max: u32::MAX,
            moments: Self::ALL_MOMENTS,
            is_traced: false,
        }
    }

    /// Whether `kind` is part of it.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        !self.without.contains(&kind)
    }

    /// `rate`, where `kind` is part of it; else nothing.
    pub(crate) fn rate(&self, kind: Kind, rate: u32) -> u32 {
        if self.has(kind) { rate } else { 0 }
    }
}

/// The arguments that play it again.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(|kind| kind.name()).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if self.processes_max != u32::MAX {
            write!(f, " --processes {}", self.processes_max)?;
        }
        if self.moments != Self::ALL_MOMENTS {
            write!(f, " --moments {}..{}", self.moments.start, self.moments.end)?;
        }
        Ok(())
    }
}
