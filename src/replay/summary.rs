//! What a replay comes to: counts by outcome and reason, and what looks odd about the file.

use std::fmt;

use gatebell_engine::tap::Outcome;
use gatebell_engine::time::Day;

/// A single tap without a time of receipt that turns the day by more than this is probably a reader's wrong clock, and
/// makes what follows stale.
const DAYS_TURNED_MAX: i32 = 7;

/// Counts and warnings of one replay.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    counts: [u64; Outcome::ALL.len()],
    day: Option<Day>,
    /// Records that turned the day too far: how many, and the first with its days.
    turns: u64,
    first_turn: Option<(u64, Day, Day)>,
    warnings: Vec<String>,
}

impl Summary {
    /// Records decided so far.
    pub(crate) fn records(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn count(&mut self, outcome: Outcome) {
        for (known, count) in Outcome::ALL.iter().zip(&mut self.counts) {
            *count += u64::from(*known == outcome);
        }
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Takes note of the day of receipt of a record that can be decoded.
    pub(super) fn note_day(&mut self, record: u64, day: Day, says_received: bool) {
        let Some(current) = self.day else {
            self.day = Some(day);
            return;
        };
        if day <= current {
            return;
        }
        self.day = Some(day);
        let days_turned = day.epoch_days().saturating_sub(current.epoch_days());
        if !says_received && days_turned > DAYS_TURNED_MAX {
            self.turns += 1;
            self.first_turn.get_or_insert((record, current, day));
        }
    }
}

impl fmt::Display for Summary {
    /// One line a count that is not zero, in the order of the tests, then one a warning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.records();
        writeln!(f, "{records} {}", if records == 1 { "record" } else { "records" })?;
        for (outcome, count) in Outcome::ALL.iter().zip(self.counts) {
            if count == 0 {
                continue;
            }
            match outcome {
                Outcome::Rejected(reason) => writeln!(f, "  rejected: {:<15} {count}", reason.name())?,
                Outcome::Passage(passage) => writeln!(f, "  passage: {:<16} {count}", passage.name())?,
                _ => writeln!(f, "  {:<25} {count}", outcome.name())?,
            }
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some((record, from, to)) = self.first_turn {
            write!(
                f,
                "warning: record {record}, a tap without received, turned the day from {from} to {to}, \
                 more than a week: taps of earlier days are stale after it"
            )?;
            match self.turns {
                1 => writeln!(f)?,
                turns => writeln!(f, " ({turns} such records)")?,
            }
        }
        Ok(())
    }
}
