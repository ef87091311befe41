//! The rules of the public format, told once more in the plainest way: every change of the registry and
//! every passage in a list, looked through from its beginning for each tap. Slow, and meant to be
//! obviously right.

use crate::ids::{CardNumber, GuardianId, OrderId, PupilId, ReaderId, SchoolId};
use crate::notice::{Channel, Passage};
use crate::registry::{DayKind, Entry, EntryKey, ReaderDirection, RegistryChange};
use crate::tap::Direction;
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// One tap, decoded.
#[derive(Clone, Debug)]
pub(super) struct NaiveTap {
    pub(super) card: CardNumber,
    pub(super) reader: ReaderId,
    pub(super) at: Timestamp,
    pub(super) direction: Option<Direction>,
    pub(super) received: Timestamp,
}

struct AdmittedPassage {
    pupil: PupilId,
    at: Timestamp,
    day: Day,
    passage: Passage,
}

pub(super) struct NaiveShard {
    term: Term,
    changes: Vec<RegistryChange>,
    days_of_receipt: Vec<Day>,
    passages: Vec<AdmittedPassage>,
    sms_had: Vec<(PupilId, GuardianId, Passage, Day)>,
}

impl NaiveShard {
    pub(super) fn new(term: Term) -> Self {
        Self { term, changes: vec![], days_of_receipt: vec![], passages: vec![], sms_had: vec![] }
    }

    pub(super) fn apply(&mut self, change: RegistryChange) {
        self.changes.push(change);
    }

    /// What `key` held by the changes that had been applied at `received`.
    fn value(&self, key: &EntryKey, received: Timestamp) -> Option<&Entry> {
        let applied = self.changes.iter().filter(|change| change.applied <= received);
        applied.map(|change| &change.entry).rfind(|entry| entry.key() == *key)
    }

    /// The keys of which there was ever a value, sorted.
    fn keys(&self) -> Vec<EntryKey> {
        let mut keys: Vec<EntryKey> = self.changes.iter().map(|change| change.entry.key()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What becomes of `tap`, in the words of the gate.
    pub(super) fn decide(&mut self, tap: &NaiveTap) -> String {
        let day = self.term.day_of(tap.at);
        let day_of_receipt = self.term.day_of(tap.received);
        self.days_of_receipt.push(day_of_receipt);

        let ahead_ms = tap.at.as_millis() - tap.received.as_millis();
        if ahead_ms > 5 * 60 * 1000 || day > day_of_receipt {
            return "clock_ahead".to_owned();
        }
        if self.days_of_receipt.iter().any(|shard_day| day < *shard_day) {
            return "stale".to_owned();
        }
        let Some(pupil) = self.pupil(tap) else { return "unknown_card".to_owned() };
        let Some(school) = self.school(&pupil, tap) else { return "unknown_card".to_owned() };
        if !self.is_school_day(&school, day, tap.received) {
            return "no_school".to_owned();
        }
        let direction = tap.direction.or_else(|| self.direction_of_reader(tap));
        let of_today: Vec<&AdmittedPassage> =
            self.passages.iter().filter(|passage| passage.pupil == pupil && passage.day == day).collect();
        let repeat_window_ms = self.term.repeat_window.as_millis();
        for earlier in &of_today {
            let apart_ms = u128::from(tap.at.as_millis().abs_diff(earlier.at.as_millis()));
            let fits = direction.is_none_or(|direction| direction.passage() == earlier.passage);
            if apart_ms < repeat_window_ms && fits {
                return "duplicate".to_owned();
            }
        }
        let previous =
            of_today.iter().filter(|earlier| earlier.at <= tap.at).max_by_key(|earlier| earlier.at);
        if let (None, Some(previous)) = (direction, previous) {
            let stay_ms = u128::from(tap.at.as_millis().abs_diff(previous.at.as_millis()));
            if previous.passage == Passage::Arrival && stay_ms < self.term.min_stay.as_millis() {
                return "duplicate".to_owned();
            }
        }
        if of_today.len() >= 32 {
            return "too_many".to_owned();
        }
        let passage = match (direction, previous) {
            (Some(Direction::In), _) => Passage::Arrival,
            (Some(Direction::Out), _) => Passage::Departure,
            (None, Some(previous)) => previous.passage.opposite(),
            (None, None) if self.departures_are_open(&school, tap) => Passage::Departure,
            (None, None) => Passage::Arrival,
        };
        self.passages.push(AdmittedPassage { pupil: pupil.clone(), at: tap.at, day, passage });
        format!("{}{}", passage.name(), self.notices(&pupil, passage, day, tap))
    }

    fn pupil(&self, tap: &NaiveTap) -> Option<PupilId> {
        let Entry::Card(card) = self.value(&EntryKey::Card(tap.card), tap.received)? else { return None };
        let holder = card.holders.iter().find(|holder| holder.stretch.contains(tap.at))?;
        Some(holder.pupil.clone())
    }

    fn school(&self, pupil: &PupilId, tap: &NaiveTap) -> Option<SchoolId> {
        let Entry::Pupil(pupil) = self.value(&EntryKey::Pupil(pupil.clone()), tap.received)? else {
            return None;
        };
        pupil.removed.is_none_or(|removed| tap.at < removed).then(|| pupil.school.clone())
    }

    fn is_school_day(&self, school: &SchoolId, day: Day, received: Timestamp) -> bool {
        for whose in [Some(school.clone()), None] {
            if let Some(Entry::Day(line)) = self.value(&EntryKey::Day(day, whose), received)
                && let Some(kind) = line.rule
            {
                let in_term = self.term.first_day <= day && day <= self.term.last_day;
                return kind == DayKind::School && in_term;
            }
        }
        self.term.days.is_school_day(day)
    }

    fn direction_of_reader(&self, tap: &NaiveTap) -> Option<Direction> {
        let key = EntryKey::Reader(tap.reader.clone());
        let Entry::Reader(reader) = self.value(&key, tap.received)? else { return None };
        if reader.removed.is_some_and(|removed| tap.at >= removed) {
            return None;
        }
        match reader.direction {
            ReaderDirection::In => Some(Direction::In),
            ReaderDirection::Out => Some(Direction::Out),
            ReaderDirection::Both => None,
        }
    }

    fn departures_are_open(&self, school: &SchoolId, tap: &NaiveTap) -> bool {
        let opens_min = match self.value(&EntryKey::School(school.clone()), tap.received) {
            Some(Entry::School(school)) => school.departure_opens_min,
            _ => 11 * 60 + 30,
        };
        self.term.local(tap.at).1 >= opens_min
    }

    fn notices(&mut self, pupil: &PupilId, passage: Passage, day: Day, tap: &NaiveTap) -> String {
        let deadline_ms = tap.at.as_millis() + i64::try_from(self.term.useful_for.as_millis()).unwrap();
        let end = if deadline_ms > tap.received.as_millis() { "" } else { "/expired" };
        let mut told = String::new();
        let mut guardians: Vec<GuardianId> = self
            .keys()
            .into_iter()
            .filter_map(|key| match key {
                EntryKey::Binding(guardian, bound_to) if bound_to == *pupil => Some(guardian),
                _ => None,
            })
            .filter(|guardian| self.is_bound(guardian, pupil, tap))
            .collect();
        guardians.sort();
        for guardian in guardians {
            for channel in [Channel::App, Channel::Email, Channel::Line] {
                if self.term.offers(channel) && self.is_subscribed(&guardian, pupil, channel, passage, tap) {
                    told += &format!(" {guardian}/{channel}{end}");
                }
            }
            let had = (pupil.clone(), guardian.clone(), passage, day);
            if let Some(order) = self.order(&guardian, pupil, passage, tap)
                && self.term.offers(Channel::Sms)
                && !self.sms_had.contains(&had)
            {
                told += &format!(" {guardian}/sms/{order}{end}");
                self.sms_had.push(had);
            }
        }
        told
    }

    fn is_bound(&self, guardian: &GuardianId, pupil: &PupilId, tap: &NaiveTap) -> bool {
        let key = EntryKey::Binding(guardian.clone(), pupil.clone());
        match self.value(&key, tap.received) {
            Some(Entry::Binding(binding)) => binding.bonds.iter().any(|bond| bond.stretch.contains(tap.at)),
            _ => false,
        }
    }

    fn is_subscribed(
        &self,
        guardian: &GuardianId,
        pupil: &PupilId,
        channel: Channel,
        passage: Passage,
        tap: &NaiveTap,
    ) -> bool {
        let key = EntryKey::Subscription(guardian.clone(), pupil.clone(), channel);
        match self.value(&key, tap.received) {
            Some(Entry::Subscription(subscription)) => subscription
                .lines
                .iter()
                .any(|line| line.stretch.contains(tap.at) && line.passages.include(passage)),
            _ => false,
        }
    }

    fn order(
        &self,
        guardian: &GuardianId,
        pupil: &PupilId,
        passage: Passage,
        tap: &NaiveTap,
    ) -> Option<OrderId> {
        self.keys().into_iter().find_map(|key| {
            let Entry::Order(order) = self.value(&key, tap.received)? else { return None };
            let pays = order.guardian == *guardian
                && order.pupil == *pupil
                && order.plan.include(passage)
                && order.in_force()?.contains(tap.at);
            pays.then(|| order.order.clone())
        })
    }
}
