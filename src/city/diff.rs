//! The difference between a city directory and what a registry holds: which entries an import writes, and how to tell
//! people about them.
//!
//! The directory is the whole truth about everything but protections, which no import touches, and days that single
//! commands set: what else it does not name any more is removed. Changes of single commands that the directory
//! contradicts are part of the difference like anything else, and are told apart.

use std::collections::HashMap;

use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::time::Timestamp;

use super::commanded::{CommandChange, Commanded, Fate, Undoing};
use super::removal::{is_withdrawn, removed};
use super::wording::{named, what_changes};

/// The kinds of a city directory, in the order in which they refer to each other.
pub(crate) const KINDS: [&str; 9] =
    ["school", "reader", "pupil", "card", "guardian", "binding", "subscription", "order", "day"];

/// Examples that are kept of each kind and what happens to it.
const EXAMPLES_MAX: usize = 5;

/// An import that removes more of a kind than one in so many is probably a mistake.
const REMOVED_ONE_IN: usize = 100;

/// What an import would do.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// The entries to write, in an order in which none refers to a later one.
    pub(crate) entries: Vec<Entry>,
    /// By kind, in the order of [`KINDS`].
    pub(crate) kinds: Vec<KindDifference>,
    /// Changes of single commands that it would undo.
    pub(crate) undoings: Vec<Undoing>,
    /// Days, in words, that single commands set and the directory does not name.
    pub(crate) kept_days: Vec<String>,
}

/// What an import would do to one kind of entry.
#[derive(Debug)]
pub(crate) struct KindDifference {
    /// The kind's word.
    pub(crate) kind: &'static str,
    /// Entries that stand now.
    pub(crate) standing: usize,
    /// New ones, and removed ones that come back.
    pub(crate) added: Happening,
    /// Those with another value than before, where nothing goes away.
    pub(crate) changed: Happening,
    /// Those that go away, as a whole or because the rows that were still to run are left out.
    pub(crate) removed: Happening,
    /// Of those, the ones that only a single command had brought.
    removed_of_commands: usize,
}

/// How often something happens, with some examples.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Happening {
    /// How often.
    pub(crate) count: usize,
    /// A few of them, in words, with nothing personal.
    pub(crate) examples: Vec<String>,
}

impl Happening {
    fn note(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

impl KindDifference {
    /// Whether more than one in a hundred of what stands goes away, apart from what single commands brought.
    pub(crate) fn removes_too_much(&self) -> bool {
        (self.removed.count - self.removed_of_commands) * REMOVED_ONE_IN > self.standing
    }

    /// Whether nothing happens.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.count + self.changed.count + self.removed.count == 0
    }
}

impl Difference {
    /// Compares `wanted`, a directory's entries, with what `stands`: it is called with each kind and hands over every entry
    /// of that kind. Removals happen at `now`; `commanded` tells what of it single commands changed.
    pub(crate) fn between<E>(
        wanted: Vec<Entry>,
        now: Timestamp,
        commanded: &Commanded,
        mut stands: impl FnMut(&'static str, &mut dyn FnMut(Entry)) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut wanted_by_kind: HashMap<&'static str, Vec<Entry>> = HashMap::new();
        for entry in wanted {
            wanted_by_kind.entry(entry.kind()).or_default().push(entry);
        }
        let mut difference = Self::default();
        for kind in KINDS {
            let mut comparison =
                Comparison::new(kind, wanted_by_kind.remove(kind).unwrap_or_default(), now, commanded);
            stands(kind, &mut |entry| comparison.take(&entry))?;
            comparison.finish(&mut difference);
        }
        Ok(difference)
    }

    /// The kinds of which too much would go away.
    pub(crate) fn removing_too_much(&self) -> impl Iterator<Item = &KindDifference> {
        self.kinds.iter().filter(|kind| kind.removes_too_much())
    }
}

/// One kind, while what stands is handed over.
struct Comparison<'c> {
    /// In the order of the directory; taken out once they are known to stand.
    wanted: Vec<Option<Entry>>,
    places: HashMap<EntryKey, usize>,
    now: Timestamp,
    commanded: &'c Commanded,
    kind: KindDifference,
    /// Entries to write over those that stand.
    written_over: Vec<Entry>,
    undoings: Vec<Undoing>,
    kept_days: Vec<String>,
}

impl<'c> Comparison<'c> {
    fn new(kind: &'static str, wanted: Vec<Entry>, now: Timestamp, commanded: &'c Commanded) -> Self {
        let places = wanted.iter().enumerate().map(|(place, entry)| (entry.key(), place)).collect();
        let (added, changed, removed) = Default::default();
        Self {
            wanted: wanted.into_iter().map(Some).collect(),
            places,
            now,
            commanded,
            kind: KindDifference { kind, standing: 0, added, changed, removed, removed_of_commands: 0 },
            written_over: Vec::new(),
            undoings: Vec::new(),
            kept_days: Vec::new(),
        }
    }

    /// Compares an entry that is on record with the directory's.
    fn take(&mut self, recorded: &Entry) {
        let key = recorded.key();
        let place = self.places.get(&key);
        let wanted = place.and_then(|place| self.wanted.get_mut(*place)).and_then(Option::take);
        let by_command = self.commanded.changes.get(&key);
        let is_kept = by_command.is_some_and(|change| self.judge(change, recorded, wanted.as_ref()));
        if is_kept {
            self.kind.standing += 1;
            return;
        }
        let (written_before, removed_before) = (self.written_over.len(), self.kind.removed.count);
        self.compare(recorded, wanted);
        if by_command.is_some() {
            self.kind.removed_of_commands += self.kind.removed.count - removed_before;
            if self.written_over.len() == written_before {
                // The directory says so too: written again, it is the directory's from now on.
                self.written_over.push(recorded.clone());
            }
        }
    }

    /// Notes what becomes of a command's change; whether the entry stays as it is.
    fn judge(&mut self, change: &CommandChange, recorded: &Entry, wanted: Option<&Entry>) -> bool {
        match change.fate(recorded, wanted, self.now) {
            Fate::Kept if !self.commanded.is_undone => {
                self.kept_days.push(named(recorded));
                return true;
            }
            Fate::Kept => self.undoings.push(change.undoing(recorded, "nothing of it".to_owned())),
            Fate::Undone(directory_says) => self.undoings.push(change.undoing(recorded, directory_says)),
            Fate::TakenOver => {}
        }
        false
    }

    fn compare(&mut self, recorded: &Entry, wanted: Option<Entry>) {
        let removal = removed(recorded, self.now);
        self.kind.standing += usize::from(removal.is_some());
        let Some(wanted) = wanted else {
            if let Some(removal) = removal {
                self.kind.removed.note(|| named(recorded));
                self.written_over.push(removal);
            }
            return;
        };
        if wanted == *recorded {
            return;
        }
        if removal.is_none() && removed(&wanted, self.now).is_some() {
            self.kind.added.note(|| format!("{} again", named(&wanted)));
        } else if is_withdrawn(recorded, &wanted, self.now) {
            self.kind.removed.note(|| named(recorded));
        } else {
            self.kind.changed.note(|| format!("{}: {}", named(&wanted), what_changes(recorded, &wanted)));
        }
        self.written_over.push(wanted);
    }

    fn finish(self, difference: &mut Difference) {
        let mut kind = self.kind;
        for entry in self.wanted.into_iter().flatten() {
            kind.added.note(|| named(&entry));
            difference.entries.push(entry);
        }
        difference.entries.extend(self.written_over);
        difference.kinds.push(kind);
        difference.undoings.extend(self.undoings);
        difference.kept_days.extend(self.kept_days);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use gatebell_engine::registry::{DayKind, OrderState, Protection};
    use proptest::prelude::*;

    use super::super::sample_entries::{card, day, order, pupil};
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn difference(wanted: &[Entry], recorded: &[Entry]) -> Difference {
        difference_from(wanted, recorded, &Commanded::default())
    }

    fn difference_from(wanted: &[Entry], recorded: &[Entry], commanded: &Commanded) -> Difference {
        let result: Result<Difference, Infallible> =
            Difference::between(wanted.to_vec(), NOW, commanded, |kind, each| {
                recorded.iter().filter(|entry| entry.kind() == kind).cloned().for_each(each);
                Ok(())
            });
        result.unwrap_or_else(|never| match never {})
    }

    fn counts(difference: &Difference, kind: &str) -> (usize, usize, usize) {
        let found = difference.kinds.iter().find(|it| it.kind == kind).unwrap();
        (found.added.count, found.changed.count, found.removed.count)
    }

    #[test]
    fn the_same_directory_again_makes_no_difference() {
        let entries = [
            pupil("P1", "王小明"),
            card("04AA", &[("P1", 0, i64::MAX)]),
            order(OrderState::Paid),
            day(DayKind::Off),
        ];
        let same = difference(&entries, &entries);
        assert_eq!(same.entries, []);
        assert!(same.kinds.iter().all(KindDifference::is_empty));
    }

    #[test]
    fn what_is_not_named_any_more_is_removed_once() {
        let recorded = [pupil("P1", ""), pupil("P2", "")];
        let first = difference(&[pupil("P1", "")], &recorded);
        assert_eq!(counts(&first, "pupil"), (0, 0, 1));
        let Some(Entry::Pupil(removed)) = first.entries.first() else { panic!("a pupil: {first:?}") };
        assert_eq!((removed.pupil.as_str(), removed.removed), ("P2", Some(NOW)));

        let again = difference(&[pupil("P1", "")], &[pupil("P1", ""), first.entries[0].clone()]);
        assert_eq!(again.entries, []);
        let back = difference(&recorded, &[pupil("P1", ""), first.entries[0].clone()]);
        assert_eq!(counts(&back, "pupil"), (1, 0, 0));
        assert_eq!(back.entries, [pupil("P2", "")]);
    }

    #[test]
    fn a_protection_is_never_touched() {
        let protection = Entry::Protection(Protection {
            guardian: "G1".parse().unwrap(),
            pupil: "P1".parse().unwrap(),
            protected: true,
        });
        assert_eq!(difference(&[], &[protection]).entries, []);
    }

    #[test]
    fn changes_made_by_single_commands_show_as_what_they_are() {
        let changed =
            difference(&[order(OrderState::Paid)], &[order(OrderState::Approved), day(DayKind::Off)]);
        let shown: Vec<String> = changed
            .kinds
            .iter()
            .flat_map(|kind| [&kind.added, &kind.changed, &kind.removed])
            .flat_map(|it| it.examples.clone())
            .collect();
        assert_eq!(shown, ["O1 (paid): approved before", "2025-09-29 of all schools (off)"]);
    }

    #[test]
    fn what_single_commands_did_is_kept_taken_over_or_named_as_undone() {
        let change = || CommandChange { applied: NOW, written_at: NOW, who: "lin".to_owned() };
        let recorded = [order(OrderState::Cancelled), day(DayKind::Off)];
        let commanded = |is_undone| Commanded {
            changes: recorded.iter().map(|entry| (entry.key(), change())).collect(),
            is_undone,
        };
        let told = |difference: &Difference| (difference.undoings.len(), difference.kept_days.len());

        let agreed = difference_from(&recorded, &recorded, &commanded(false));
        assert_eq!((told(&agreed), &agreed.entries[..]), ((0, 0), &recorded[..]), "taken over");
        let contrary = [order(OrderState::Approved)];
        let refused = difference_from(&contrary, &recorded, &commanded(false));
        assert_eq!((told(&refused), counts(&refused, "day")), ((1, 1), (0, 0, 0)));
        let forced = difference_from(&contrary, &recorded, &commanded(true));
        assert_eq!((told(&forced), counts(&forced, "day")), ((2, 0), (0, 0, 1)));
        assert_eq!(forced.removing_too_much().count(), 0, "what goes is named already");
    }

    #[test]
    fn removing_more_than_one_in_a_hundred_is_too_much() {
        let pupils: Vec<Entry> = (0..200).map(|number| pupil(&format!("P{number}"), "")).collect();
        assert_eq!(difference(&pupils[2..], &pupils).removing_too_much().count(), 0);
        assert_eq!(difference(&pupils[3..], &pupils).removing_too_much().count(), 1);
        // One of a handful is more than one in a hundred, too.
        assert_eq!(difference(&[], &pupils[..1]).removing_too_much().count(), 1);
        assert_eq!(difference(&pupils, &[]).removing_too_much().count(), 0);
    }

    #[test]
    fn a_key_whose_running_rows_are_left_out_counts_as_removed() {
        let recorded = [card("04AA", &[("P1", 0, 500), ("P1", 500, i64::MAX)])];
        assert_eq!(counts(&difference(&[card("04AA", &[("P1", 0, 500)])], &recorded), "card"), (0, 0, 1));
        assert_eq!(
            counts(&difference(&[card("04AA", &[("P1", 0, 500), ("P1", 500, 900)])], &recorded), "card"),
            (0, 1, 0)
        );
    }

    #[test]
    fn examples_name_nothing_personal() {
        let changed =
            difference(&[pupil("P1", "王小明"), card("04AA", &[("P1", 0, 10)])], &[pupil("P1", "林美麗")]);
        let shown = format!("{:?}", changed.kinds);
        for personal in ["王小明", "林美麗", "04AA"] {
            assert!(!shown.contains(personal), "{shown}");
        }
        assert!(shown.contains("P1: name"), "{shown}");
    }

    proptest! {
        /// After an import the same directory makes no difference, and what stands is what the directory names.
        #[test]
        fn importing_again_changes_nothing(
            before in proptest::collection::btree_map("P[0-9]", "[ab]", 0..8),
            after in proptest::collection::btree_map("P[0-9]", "[ab]", 0..8),
        ) {
            let entries = |names: &BTreeMap<String, String>| -> Vec<Entry> {
                names.iter().map(|(id, name)| pupil(id, name)).collect()
            };
            let mut store: BTreeMap<EntryKey, Entry> = entries(&before).into_iter().map(|it| (it.key(), it)).collect();
            let wanted = entries(&after);
            let recorded: Vec<Entry> = store.values().cloned().collect();
            for entry in difference(&wanted, &recorded).entries {
                store.insert(entry.key(), entry);
            }
            let recorded: Vec<Entry> = store.values().cloned().collect();
            prop_assert_eq!(difference(&wanted, &recorded).entries, []);
            let standing: Vec<Entry> = recorded.into_iter().filter(|entry| removed(entry, NOW).is_some()).collect();
            prop_assert_eq!(standing, wanted);
        }
    }
}
