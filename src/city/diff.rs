//! The difference between a city directory and what a registry holds: which entries an import writes, and how to tell
//! people about them.
//!
//! The directory is the whole truth about everything but protections, which no import touches: what it does not name any
//! more is removed. Changes that single commands made since are part of the difference like anything else.

use std::collections::HashMap;

use gatebell_engine::registry::{Entry, EntryKey};
use gatebell_engine::time::Timestamp;

use super::removal::{is_withdrawn, removed};

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
    /// Whether more than one in a hundred of what stands goes away.
    pub(crate) fn removes_too_much(&self) -> bool {
        self.removed.count * REMOVED_ONE_IN > self.standing
    }

    /// Whether nothing happens.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.count + self.changed.count + self.removed.count == 0
    }
}

impl Difference {
    /// Compares `wanted`, a directory's entries, with what `stands`: it is called with each kind and hands over every entry
    /// of that kind. Removals happen at `now`.
    pub(crate) fn between<E>(
        wanted: Vec<Entry>,
        now: Timestamp,
        mut stands: impl FnMut(&'static str, &mut dyn FnMut(Entry)) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut wanted_by_kind: HashMap<&'static str, Vec<Entry>> = HashMap::new();
        for entry in wanted {
            wanted_by_kind.entry(entry.kind()).or_default().push(entry);
        }
        let mut difference = Self::default();
        for kind in KINDS {
            let mut comparison = Comparison::new(kind, wanted_by_kind.remove(kind).unwrap_or_default(), now);
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
struct Comparison {
    /// In the order of the directory; taken out once they are known to stand.
    wanted: Vec<Option<Entry>>,
    places: HashMap<EntryKey, usize>,
    now: Timestamp,
    kind: KindDifference,
    /// Entries to write over those that stand.
    written_over: Vec<Entry>,
}

impl Comparison {
    fn new(kind: &'static str, wanted: Vec<Entry>, now: Timestamp) -> Self {
        let places = wanted.iter().enumerate().map(|(place, entry)| (entry.key(), place)).collect();
        let (added, changed, removed) = Default::default();
        Self {
            wanted: wanted.into_iter().map(Some).collect(),
            places,
            now,
            kind: KindDifference { kind, standing: 0, added, changed, removed },
            written_over: Vec::new(),
        }
    }

    /// Compares an entry that is on record with the directory's.
    fn take(&mut self, recorded: &Entry) {
        let removal = removed(recorded, self.now);
        self.kind.standing += usize::from(removal.is_some());
        let place = self.places.get(&recorded.key());
        let wanted = place.and_then(|place| self.wanted.get_mut(*place)).and_then(Option::take);
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
    }
}

/// `entry` by its codes; a card, which identifies a child to whoever finds it, by its last holder.
fn named(entry: &Entry) -> String {
    match entry {
        Entry::Card(it) => match it.holders.iter().max_by_key(|holder| holder.stretch.from) {
            Some(holder) => format!("a card of {}", holder.pupil),
            None => "a card of nobody".to_owned(),
        },
        Entry::Binding(it) => format!("{} to {}", it.guardian, it.pupil),
        Entry::Subscription(it) => format!("{} for {} by {}", it.guardian, it.pupil, it.channel),
        Entry::Order(it) => format!("{} ({})", it.order, state_word(entry).unwrap_or_default()),
        Entry::Day(it) => {
            let schools = it.school.as_ref().map_or("all schools", |school| school.as_str());
            format!("{} of {schools} ({})", it.date, state_word(entry).unwrap_or_default())
        }
        _ => entry.key().expose().into(),
    }
}

/// What differs, by the names of the fields; of orders and days also how.
fn what_changes(before: &Entry, after: &Entry) -> String {
    if let (Some(word_before), Some(word_after)) = (state_word(before), state_word(after))
        && word_before != word_after
    {
        return format!("{word_before} before");
    }
    let fields_of = |entry: &Entry| match serde_json::to_value(entry) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (fields_of(before), fields_of(after));
    let mut names: Vec<&str> = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, _)| name.as_str())
        .collect();
    names.extend(before.keys().filter(|name| !after.contains_key(*name)).map(String::as_str));
    names.join(", ")
}

fn state_word(entry: &Entry) -> Option<&'static str> {
    use gatebell_engine::registry::{DayKind, OrderState};
    match entry {
        Entry::Order(it) => Some(match it.state {
            OrderState::Ordered => "ordered",
            OrderState::Paid => "paid",
            OrderState::Approved => "approved",
            OrderState::Cancelled => "cancelled",
        }),
        Entry::Day(it) => Some(match it.rule {
            Some(DayKind::Off) => "off",
            Some(DayKind::School) => "school",
            None => "as the term says",
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use gatebell_engine::ids::{CardNumber, Personal};
    use gatebell_engine::notice::Passages;
    use gatebell_engine::registry::{
        Card, CardHolder, DayKind, DayRule, Order, OrderState, Protection, Pupil,
    };
    use gatebell_engine::time::Stretch;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn pupil(id: &str, name: &str) -> Entry {
        Entry::Pupil(Pupil {
            pupil: id.parse().unwrap(),
            school: "S1".parse().unwrap(),
            class: "".into(),
            seat: "".into(),
            name: Personal::new(name),
            removed: None,
        })
    }

    fn card(number: &str, stretches: &[(i64, i64)]) -> Entry {
        let holders = stretches
            .iter()
            .map(|(from, until)| CardHolder {
                pupil: "P1".parse().unwrap(),
                stretch: Stretch {
                    from: Timestamp::from_millis(*from),
                    until: Timestamp::from_millis(*until),
                },
            })
            .collect();
        Entry::Card(Card { card: CardNumber::new(number).unwrap(), holders })
    }

    fn order(state: OrderState) -> Entry {
        Entry::Order(Order {
            order: "O1".parse().unwrap(),
            guardian: "G1".parse().unwrap(),
            pupil: "P1".parse().unwrap(),
            plan: Passages::Both,
            state,
            prepaid_dollars: 136,
            approved_at: (state == OrderState::Approved).then_some(Timestamp::from_millis(5)),
            cancelled_at: None,
        })
    }

    fn day(rule: DayKind) -> Entry {
        let date = "2025-09-29".parse().unwrap();
        Entry::Day(DayRule { date, school: None, rule: Some(rule), name: "颱風停課".into() })
    }

    fn difference(wanted: &[Entry], recorded: &[Entry]) -> Difference {
        let result: Result<Difference, Infallible> =
            Difference::between(wanted.to_vec(), NOW, |kind, each| {
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
            card("04AA", &[(0, i64::MAX)]),
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
        let recorded = [card("04AA", &[(0, 500), (500, i64::MAX)])];
        assert_eq!(counts(&difference(&[card("04AA", &[(0, 500)])], &recorded), "card"), (0, 0, 1));
        assert_eq!(
            counts(&difference(&[card("04AA", &[(0, 500), (500, 900)])], &recorded), "card"),
            (0, 1, 0)
        );
    }

    #[test]
    fn examples_name_nothing_personal() {
        let changed =
            difference(&[pupil("P1", "王小明"), card("04AA", &[(0, 10)])], &[pupil("P1", "林美麗")]);
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
