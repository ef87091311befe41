//! The rules of the public format, told once more in the plainest way: every change of the registry and
//! every passage in a list, looked through from its beginning for each tap. Slow, and meant to be
//! obviously right: the shard's tests and the simulation hold the engine against it. It shares no rule
//! with the engine, only words.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ids::{CardNumber, GuardianId, OrderId, PupilId, ReaderId, SchoolId};
use crate::notice::{Channel, Passage};
use crate::registry::{DayKind, Entry, EntryKey, ReaderDirection, RegistryChange};
use crate::tap::{Direction, Outcome, RejectReason, TAP_LEN_MAX};
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// One tap, decoded.
#[derive(Clone, Debug)]
pub struct NaiveTap {
    /// The card.
    pub card: CardNumber,
    /// The reader.
    pub reader: ReaderId,
    /// When the card was read, by the reader's clock.
    pub at: Timestamp,
    /// The direction that the tap itself names.
    pub direction: Option<Direction>,
    /// When the log took it.
    pub received: Timestamp,
}

impl NaiveTap {
    /// Decodes a record.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(value: &[u8], received: Timestamp) -> Result<Self, RejectReason> {
        if value.len() > TAP_LEN_MAX {
            return Err(RejectReason::Oversize);
        }
        Self::of_json(value, received).ok_or(RejectReason::Malformed)
    }

    fn of_json(value: &[u8], received: Timestamp) -> Option<Self> {
        let tap: Value = serde_json::from_slice(value).ok()?;
        let at = match tap.get("at")? {
            Value::String(text) => text.parse::<jiff::Timestamp>().ok()?.as_millisecond(),
            number => number.as_i64()?,
        };
        let direction = match tap.get("dir") {
            None | Some(Value::Null) => None,
            Some(Value::String(word)) if word == "in" => Some(Direction::In),
            Some(Value::String(word)) if word == "out" => Some(Direction::Out),
            Some(_) => return None,
        };
        Some(Self {
            card: CardNumber::new(tap.get("card")?.as_str()?).ok()?,
            reader: ReaderId::new(tap.get("reader")?.as_str()?).ok()?,
            at: Timestamp::from_millis(at),
            direction,
            received,
        })
    }
}

/// What becomes of a tap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NaiveDecision {
    /// In the words of the public format.
    pub outcome: Outcome,
    /// When the card was read; the time of receipt where the record could not be decoded.
    pub at: Timestamp,
    /// Whose tap it is; there from the test for school days on.
    pub pupil: Option<PupilId>,
    /// Where the card was read; there from the test for school days on.
    pub place: Option<SchoolId>,
    /// What it makes, sorted by guardian, then channel, by name.
    pub notices: Vec<NaiveNotice>,
}

impl NaiveDecision {
    fn without_pupil(outcome: Outcome, at: Timestamp) -> Self {
        Self { outcome, at, pupil: None, place: None, notices: Vec::new() }
    }
}

/// One notice that a passage makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NaiveNotice {
    /// To whom.
    pub guardian: GuardianId,
    /// How.
    pub channel: Channel,
    /// Who pays; on SMS only.
    pub order: Option<OrderId>,
    /// Whether its deadline was over when the tap was received.
    pub is_expired: bool,
}

struct AdmittedPassage {
    pupil: PupilId,
    at: Timestamp,
    day: Day,
    passage: Passage,
}

/// Every change of the registry, by its key, in the feed's order.
#[derive(Clone, Default)]
pub struct NaiveRegistry {
    changes: BTreeMap<EntryKey, Vec<RegistryChange>>,
}

impl NaiveRegistry {
    /// The next change of the feed.
    pub fn apply(&mut self, change: RegistryChange) {
        self.changes.entry(change.entry.key()).or_default().push(change);
    }

    /// What `key` held by the changes that had been applied at `received`.
    pub fn value(&self, key: &EntryKey, received: Timestamp) -> Option<&Entry> {
        let changes = self.changes.get(key)?.iter();
        changes.filter(|change| change.applied <= received).map(|change| &change.entry).next_back()
    }

    /// The keys of which there was ever a value, sorted.
    fn keys(&self) -> impl Iterator<Item = &EntryKey> {
        self.changes.keys()
    }
}

/// One partition.
pub struct NaiveShard {
    term: Term,
    registry: NaiveRegistry,
    latest_day_of_receipt: Option<Day>,
    passages: Vec<AdmittedPassage>,
    sms_had: Vec<(PupilId, GuardianId, Passage, Day)>,
}

impl NaiveShard {
    /// One that has read nothing yet.
    pub fn new(term: Term, registry: NaiveRegistry) -> Self {
        Self { term, registry, latest_day_of_receipt: None, passages: vec![], sms_had: vec![] }
    }

    /// The next change of the registry's feed.
    pub fn apply(&mut self, change: RegistryChange) {
        self.registry.apply(change);
    }

    fn value(&self, key: &EntryKey, received: Timestamp) -> Option<&Entry> {
        self.registry.value(key, received)
    }

    /// What becomes of the next record.
    pub fn decide_record(&mut self, value: &[u8], received: Timestamp) -> NaiveDecision {
        match NaiveTap::read(value, received) {
            Ok(tap) => self.decide(&tap),
            Err(reason) => NaiveDecision::without_pupil(Outcome::Rejected(reason), received),
        }
    }

    /// What becomes of `tap`.
    pub fn decide(&mut self, tap: &NaiveTap) -> NaiveDecision {
        let day = self.term.day_of(tap.at);
        let day_of_receipt = self.term.day_of(tap.received);
        let shard_day =
            self.latest_day_of_receipt.map_or(day_of_receipt, |latest| latest.max(day_of_receipt));
        self.latest_day_of_receipt = Some(shard_day);

        let ahead_ms = tap.at.as_millis() - tap.received.as_millis();
        if ahead_ms > 5 * 60 * 1000 || day > day_of_receipt {
            return NaiveDecision::without_pupil(Outcome::Rejected(RejectReason::ClockAhead), tap.at);
        }
        if day < shard_day {
            return NaiveDecision::without_pupil(Outcome::Stale, tap.at);
        }
        let Some(pupil) = self.pupil(tap) else {
            return NaiveDecision::without_pupil(Outcome::UnknownCard, tap.at);
        };
        let Some(school) = self.school(&pupil, tap) else {
            return NaiveDecision::without_pupil(Outcome::UnknownCard, tap.at);
        };
        let outcome = self.of_pupil(&pupil, &school, day, tap);
        let notices = match outcome {
            Outcome::Passage(passage) => self.notices(&pupil, passage, day, tap),
            _ => Vec::new(),
        };
        let gate = self.reader(tap).map(|(school, _)| school);
        NaiveDecision {
            outcome,
            at: tap.at,
            pupil: Some(pupil),
            place: Some(gate.unwrap_or(school)),
            notices,
        }
    }

    fn of_pupil(&mut self, pupil: &PupilId, school: &SchoolId, day: Day, tap: &NaiveTap) -> Outcome {
        if !self.is_school_day(school, day, tap.received) {
            return Outcome::NoSchool;
        }
        let direction = tap.direction.or_else(|| self.reader(tap).and_then(|(_, direction)| direction));
        let of_today: Vec<&AdmittedPassage> =
            self.passages.iter().filter(|passage| passage.pupil == *pupil && passage.day == day).collect();
        let repeat_window_ms = self.term.repeat_window.as_millis();
        for earlier in &of_today {
            let apart_ms = u128::from(tap.at.as_millis().abs_diff(earlier.at.as_millis()));
            let fits = direction.is_none_or(|direction| direction.passage() == earlier.passage);
            if apart_ms < repeat_window_ms && fits {
                return Outcome::Duplicate;
            }
        }
        let previous =
            of_today.iter().filter(|earlier| earlier.at <= tap.at).max_by_key(|earlier| earlier.at);
        if let (None, Some(previous)) = (direction, previous) {
            let stay_ms = u128::from(tap.at.as_millis().abs_diff(previous.at.as_millis()));
            if previous.passage == Passage::Arrival && stay_ms < self.term.min_stay.as_millis() {
                return Outcome::Duplicate;
            }
        }
        if of_today.len() >= 32 {
            return Outcome::Rejected(RejectReason::TooMany);
        }
        let passage = match (direction, previous) {
            (Some(Direction::In), _) => Passage::Arrival,
            (Some(Direction::Out), _) => Passage::Departure,
            (None, Some(previous)) => previous.passage.opposite(),
            (None, None) if self.departures_are_open(school, tap) => Passage::Departure,
            (None, None) => Passage::Arrival,
        };
        self.passages.push(AdmittedPassage { pupil: pupil.clone(), at: tap.at, day, passage });
        Outcome::Passage(passage)
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

    /// The school and the direction of a reader that is registered.
    fn reader(&self, tap: &NaiveTap) -> Option<(SchoolId, Option<Direction>)> {
        let key = EntryKey::Reader(tap.reader.clone());
        let Entry::Reader(reader) = self.value(&key, tap.received)? else { return None };
        if reader.removed.is_some_and(|removed| tap.at >= removed) {
            return None;
        }
        let direction = match reader.direction {
            ReaderDirection::In => Some(Direction::In),
            ReaderDirection::Out => Some(Direction::Out),
            ReaderDirection::Both => None,
        };
        Some((reader.school.clone(), direction))
    }

    fn departures_are_open(&self, school: &SchoolId, tap: &NaiveTap) -> bool {
        let opens_min = match self.value(&EntryKey::School(school.clone()), tap.received) {
            Some(Entry::School(school)) => school.departure_opens_min,
            _ => 11 * 60 + 30,
        };
        self.term.local(tap.at).1 >= opens_min
    }

    fn notices(&mut self, pupil: &PupilId, passage: Passage, day: Day, tap: &NaiveTap) -> Vec<NaiveNotice> {
        let useful_for_ms = i64::try_from(self.term.useful_for.as_millis()).unwrap_or(i64::MAX);
        let is_expired = tap.at.as_millis() + useful_for_ms <= tap.received.as_millis();
        let mut notices = Vec::new();
        let mut guardians: Vec<GuardianId> = self
            .registry
            .keys()
            .filter_map(|key| match key {
                EntryKey::Binding(guardian, bound_to) if bound_to == pupil => Some(guardian.clone()),
                _ => None,
            })
            .filter(|guardian| self.is_bound(guardian, pupil, tap))
            .collect();
        guardians.sort();
        for guardian in guardians {
            for channel in [Channel::App, Channel::Email, Channel::Line] {
                if self.term.offers(channel) && self.is_subscribed(&guardian, pupil, channel, passage, tap) {
                    notices.push(NaiveNotice {
                        guardian: guardian.clone(),
                        channel,
                        order: None,
                        is_expired,
                    });
                }
            }
            let had = (pupil.clone(), guardian.clone(), passage, day);
            if let Some(order) = self.order(&guardian, pupil, passage, tap)
                && self.term.offers(Channel::Sms)
                && !self.sms_had.contains(&had)
            {
                notices.push(NaiveNotice { guardian, channel: Channel::Sms, order: Some(order), is_expired });
                self.sms_had.push(had);
            }
        }
        notices
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
        let orders = self.registry.keys().filter(|key| matches!(key, EntryKey::Order(_)));
        orders
            .filter_map(|key| {
                let Entry::Order(order) = self.value(key, tap.received)? else { return None };
                let pays = order.guardian == *guardian
                    && order.pupil == *pupil
                    && order.plan.include(passage)
                    && order.in_force()?.contains(tap.at);
                pays.then(|| order.order.clone())
            })
            .next()
    }
}
