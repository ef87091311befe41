//! What single commands changed since the city's directory last said so, and whether an import would undo it.
//!
//! A school approves an order or a card is replaced in the middle of a morning; the directory that the city exports may
//! know of it or not yet. This module owns the question whether what the directory says undoes what a command did. It goes
//! by what was meant, not by equal values: who holds the card, how far the order has come, what is made of the day; the
//! directory's own stamps and names are taken over. Entries that no command touched are none of its business.

use std::collections::HashMap;

use gatebell_engine::ids::PupilId;
use gatebell_engine::registry::{Card, Entry, EntryKey, OrderState};
use gatebell_engine::time::Timestamp;
use jiff::tz::TimeZone;

use super::wording::{named, state_word};

/// A change by a single command that stands.
#[derive(Debug, Clone)]
pub(crate) struct CommandChange {
    /// From when it counts.
    pub(crate) applied: Timestamp,
    /// When it was written.
    pub(crate) written_at: Timestamp,
    /// Who made it.
    pub(crate) who: String,
}

/// The changes by single commands that stand, and what an import does about those that its directory contradicts.
#[derive(Debug, Default)]
pub(crate) struct Commanded {
    /// By the entry that was changed.
    pub(crate) changes: HashMap<EntryKey, CommandChange>,
    /// Whether the directory wins, also over days that it does not name.
    pub(crate) is_undone: bool,
}

/// What an import would make of a command's change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The directory says so too.
    TakenOver,
    /// The directory does not know of the day, and it stays.
    Kept,
    /// The directory says otherwise, as told in words that follow "the directory says".
    Undone(String),
}

/// A command's change that an import would undo, in words with nothing personal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Undoing {
    what: String,
    done: String,
    written_at: Timestamp,
    who: String,
    directory_says: String,
}

impl Undoing {
    /// One line, with the time in `zone`.
    pub(crate) fn shown(&self, zone: &TimeZone) -> String {
        let Self { what, done, written_at, who, directory_says } = self;
        let when = match jiff::Timestamp::from_millisecond(written_at.as_millis()) {
            Ok(instant) => instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => written_at.to_string(),
        };
        format!("{what}: {done} by {who} on {when}; the directory says {directory_says}")
    }
}

impl CommandChange {
    /// What an import at `now` would make of this change, which left `recorded`; `wanted` is what the directory says.
    pub(super) fn fate(&self, recorded: &Entry, wanted: Option<&Entry>, now: Timestamp) -> Fate {
        match (recorded, wanted) {
            (Entry::Order(recorded), wanted) => {
                let state = match wanted {
                    Some(Entry::Order(order)) => Some(order.state),
                    _ => None,
                };
                order_fate(recorded.state, state)
            }
            (Entry::Day(recorded), Some(Entry::Day(wanted))) if recorded.rule == wanted.rule => {
                Fate::TakenOver
            }
            (Entry::Day(_), Some(wanted)) => Fate::Undone(state_word(wanted).unwrap_or_default().to_owned()),
            (Entry::Day(_), None) => Fate::Kept,
            (Entry::Card(recorded), wanted) => {
                // The command may count from a moment that is just ahead.
                let at = now.max(self.applied);
                let wanted = match wanted {
                    Some(Entry::Card(card)) => holder(card, at),
                    _ => None,
                };
                card_fate(recorded, wanted, at)
            }
            _ => Fate::TakenOver,
        }
    }

    /// That this change, which left `recorded`, would be undone.
    pub(super) fn undoing(&self, recorded: &Entry, directory_says: String) -> Undoing {
        let done = match recorded {
            Entry::Card(card) => match holder(card, self.applied) {
                Some(pupil) => format!("given to {pupil}"),
                None => "taken back".to_owned(),
            },
            Entry::Day(_) => format!("set to {}", state_word(recorded).unwrap_or_default()),
            _ => state_word(recorded).unwrap_or("changed").to_owned(),
        };
        let name = named(recorded);
        let what = match recorded {
            Entry::Card(_) => name,
            // The state is said next.
            _ => format!("{} {}", recorded.kind(), name.split(" (").next().unwrap_or_default()),
        };
        Undoing { what, done, written_at: self.written_at, who: self.who.clone(), directory_says }
    }
}

/// An order only ever goes forward, so a directory that is further than the command knows more.
fn order_fate(recorded: OrderState, wanted: Option<OrderState>) -> Fate {
    match wanted {
        Some(wanted) if wanted >= recorded => Fate::TakenOver,
        Some(wanted) => Fate::Undone(wanted.name().to_owned()),
        // To leave an order out is to cancel it.
        None if recorded == OrderState::Cancelled => Fate::TakenOver,
        None => Fate::Undone("nothing of it".to_owned()),
    }
}

/// A card that is nobody's any more may become another pupil's, but must not come back to whom it was taken from.
fn card_fate(recorded: &Card, wanted: Option<&PupilId>, at: Timestamp) -> Fate {
    let last = recorded.holders.iter().max_by_key(|holder| holder.stretch.from).map(|holder| &holder.pupil);
    let is_undone = match holder(recorded, at) {
        Some(holder) => wanted != Some(holder),
        None => wanted.is_some() && wanted == last,
    };
    match wanted {
        _ if !is_undone => Fate::TakenOver,
        Some(pupil) => Fate::Undone(format!("{pupil} holds it")),
        None => Fate::Undone("nobody holds it".to_owned()),
    }
}

fn holder(card: &Card, at: Timestamp) -> Option<&PupilId> {
    card.holders.iter().find(|holder| holder.stretch.contains(at)).map(|holder| &holder.pupil)
}

#[cfg(test)]
mod tests {
    use gatebell_engine::registry::DayKind;

    use super::super::sample_entries::{card, day, order};
    use super::*;

    const SWITCHED_MS: i64 = 500;
    const NOW: Timestamp = Timestamp::from_millis(400);

    fn change() -> CommandChange {
        CommandChange {
            applied: Timestamp::from_millis(SWITCHED_MS),
            written_at: Timestamp::from_millis(0),
            who: "lin".to_owned(),
        }
    }

    #[test]
    fn what_a_command_did_is_undone_by_a_directory_that_says_otherwise_and_by_no_other() {
        use OrderState::{Approved, Cancelled, Paid};
        let undone = |says: &str| Fate::Undone(says.to_owned());
        let taken_back = card("04AA", &[("P1", i64::MIN, SWITCHED_MS)]);
        let given = card("04CC", &[("P1", SWITCHED_MS, i64::MAX)]);
        let for_ever = |pupil| card("04AA", &[(pupil, i64::MIN, i64::MAX)]);
        for (recorded, wanted, expected) in [
            (order(Approved), Some(order(Paid)), undone("paid")),
            (order(Approved), Some(order(Approved)), Fate::TakenOver),
            (order(Approved), Some(order(Cancelled)), Fate::TakenOver),
            (order(Approved), None, undone("nothing of it")),
            (order(Cancelled), Some(order(Approved)), undone("approved")),
            (order(Cancelled), None, Fate::TakenOver),
            (day(DayKind::Off), Some(day(DayKind::School)), undone("school")),
            (day(DayKind::Off), Some(day(DayKind::Off)), Fate::TakenOver),
            (day(DayKind::Off), None, Fate::Kept),
            (taken_back.clone(), Some(for_ever("P1")), undone("P1 holds it")),
            (taken_back.clone(), Some(for_ever("P2")), Fate::TakenOver),
            (taken_back.clone(), Some(card("04AA", &[("P1", i64::MIN, 450)])), Fate::TakenOver),
            (taken_back, None, Fate::TakenOver),
            (given.clone(), Some(for_ever("P1")), Fate::TakenOver),
            (given.clone(), Some(for_ever("P2")), undone("P2 holds it")),
            (given, None, undone("nobody holds it")),
        ] {
            let fate = change().fate(&recorded, wanted.as_ref(), NOW);
            assert_eq!(fate, expected, "{recorded:?}\nand the directory says {wanted:?}");
        }
    }

    #[test]
    fn an_undoing_is_told_with_who_and_when_and_without_the_card() {
        let given = card("04CC", &[("P1", SWITCHED_MS, i64::MAX)]);
        let undoing = change().undoing(&given, "nobody holds it".to_owned());
        assert_eq!(
            undoing.shown(&TimeZone::UTC),
            "a card of P1: given to P1 by lin on 1970-01-01 00:00; the directory says nobody holds it"
        );
    }
}
