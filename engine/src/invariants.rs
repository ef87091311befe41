//! What must hold, numbered.
//!
//! In the simulation a breach is a failure. In production it counts `gatebell_invariant_violations_total`, is logged with
//! its position, and the engine goes on: a parent who waits is worse served by an engine that stopped.

use crate::ids::LogPosition;

/// A promise of the engine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// Every record read ends in exactly one outcome.
    T1,
    /// Reading a record again changes nothing.
    T2,
    /// A committed offset has nothing unsettled below it.
    T3,
    /// Every notice ends in exactly one end; only proof of delivery overturns *failed* or *expired*.
    N1,
    /// At most one arrival and one departure SMS per pupil, guardian and day.
    N2,
    /// Nothing is sent without a binding and a subscription or order in force, nor to whom it may not be.
    N3,
    /// Nothing is sent at or after its deadline.
    N4,
    /// In no window does a gateway get more than its rate and burst, nor hold more than its window in flight.
    L1,
    /// An emergency waits for at most what is already in flight; no school starves.
    L2,
    /// At most one charge a notice, and only for a final proof of success.
    B1,
    /// Counters equal the recount of the ledger.
    B2,
    /// Receipts in any order, repeated or late, give the same totals.
    B3,
    /// Absence, correction and emergency are never charged to a parent.
    B4,
    /// A crash at any point, followed by a restart, ends in the same ledger as no crash, attempts in doubt aside.
    R1,
    /// Nothing personal and no secret in a log line, a metric label or an error.
    P1,
}

impl Invariant {
    /// Its number, as labels and documents have it.
    pub const fn number(self) -> &'static str {
        match self {
            Self::T1 => "T1",
            Self::T2 => "T2",
            Self::T3 => "T3",
            Self::N1 => "N1",
            Self::N2 => "N2",
            Self::N3 => "N3",
            Self::N4 => "N4",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::B1 => "B1",
            Self::B2 => "B2",
            Self::B3 => "B3",
            Self::B4 => "B4",
            Self::R1 => "R1",
            Self::P1 => "P1",
        }
    }

    /// Counts and logs a breach at `position` when `holds` is false. Returns `holds`.
    pub fn check(self, holds: bool, position: LogPosition) -> bool {
        if !holds {
            metrics::counter!("gatebell_invariant_violations_total", "invariant" => self.number())
                .increment(1);
            tracing::error!(invariant = self.number(), %position, "an invariant does not hold");
        }
        holds
    }
}
