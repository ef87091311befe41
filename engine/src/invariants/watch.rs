//! Counts what does not hold, and says so in the log.
//!
//! One watch a run of the engine. It shows every invariant in the metrics from the start, at zero, so that an alert has
//! something to compare with; counts every breach; and logs each with its position, but of one invariant at one place no more
//! than [`LOGGED_MAX`]: what breaks at every tap must not fill the disk too. It decides nothing: the caller is told whether
//! the promise is kept, and knows what must not be done where it is not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Invariant;
use super::predicates::{self, Owners};
use crate::ids::{LaneName, LogPosition};
use crate::ledger::Event;

/// Breaches of one invariant at one place that are logged; further ones are only counted.
const LOGGED_MAX: u64 = 16;

/// Where something does not hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// In a partition.
    Partition(u32),
    /// In a lane.
    Lane(LaneName),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(partition) => write!(f, "partition {partition}"),
            Self::Lane(lane) => write!(f, "lane {lane}"),
        }
    }
}

/// What did not hold at one place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// Where.
    pub place: Place,
    /// The tap at which it was seen first.
    pub first: LogPosition,
    /// How often it was seen.
    pub count: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, place, first, count } = self;
        write!(f, "{}: does not hold in {place}, first at {first}, times seen: {count}", invariant.number())
    }
}

#[derive(Debug)]
struct Seen {
    first: LogPosition,
    count: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    counters: [metrics::Counter; Invariant::ALL.len()],
    /// As many as invariants times partitions and lanes, at most.
    seen: Mutex<BTreeMap<(Invariant, Place), Seen>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// Nothing was seen yet: every invariant counts zero.
    pub fn new() -> Self {
        let counter = |invariant: Invariant| {
            let counter =
                metrics::counter!("gatebell_invariant_violations_total", "invariant" => invariant.number());
            counter.increment(0);
            counter
        };
        Self { counters: Invariant::ALL.map(counter), seen: Mutex::default() }
    }

    /// Counts and logs a breach of `invariant` by the tap at `position` when it does not hold. Returns `holds`.
    pub fn check(&self, invariant: Invariant, holds: bool, position: LogPosition) -> bool {
        if !holds {
            self.breach(invariant, Place::Partition(position.partition), position);
        }
        holds
    }

    /// As [`check`](Self::check), of what a lane does with the notice of the tap at `position`.
    pub fn check_lane(
        &self,
        invariant: Invariant,
        holds: bool,
        lane: &LaneName,
        position: LogPosition,
    ) -> bool {
        if !holds {
            self.breach(invariant, Place::Lane(lane.clone()), position);
        }
        holds
    }

    /// What must hold of the `events` of one notice, whenever they are read: at most one end (N1), one charge, on proof
    /// (B1), and one delivery (B3). Whose they are nobody can tell, so the answers of former owners are allowed for.
    pub fn check_history(
        &self,
        position: LogPosition,
        events: impl IntoIterator<Item = Event, IntoIter: Clone>,
    ) {
        let events = events.into_iter();
        let ends_once = predicates::at_most_one_end(events.clone(), Owners::Several);
        self.check(Invariant::N1, ends_once, position);
        self.check(Invariant::B1, predicates::charged_once_on_proof(events.clone()), position);
        self.check(Invariant::B3, predicates::delivered_once(events), position);
    }

    /// What did not hold since the start, by invariant and place.
    pub fn violations(&self) -> Vec<Violation> {
        let seen = self.seen();
        let violation = |((invariant, place), seen): (&(Invariant, Place), &Seen)| Violation {
            invariant: *invariant,
            place: place.clone(),
            first: seen.first,
            count: seen.count,
        };
        seen.iter().map(violation).collect()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<(Invariant, Place), Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breach(&self, invariant: Invariant, place: Place, position: LogPosition) {
        for (known, counter) in Invariant::ALL.iter().zip(&self.counters) {
            if *known == invariant {
                counter.increment(1);
            }
        }
        let where_seen = place.to_string();
        let mut seen = self.seen();
        let here = seen.entry((invariant, place)).or_insert(Seen { first: position, count: 0 });
        here.count += 1;
        let count = here.count;
        drop(seen);
        if count <= LOGGED_MAX {
            tracing::error!(
                invariant = invariant.number(),
                %position,
                place = where_seen,
                count,
                on_breach = invariant.on_breach(),
                "an invariant does not hold"
            );
        }
        if count == LOGGED_MAX {
            tracing::error!(
                invariant = invariant.number(),
                place = where_seen,
                "further breaches of this invariant here are only counted"
            );
        }
    }
}
