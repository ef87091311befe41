//! What is owed to whom about each pupil: the facts of [`super::fact`], kept by pupil and changed one
//! key at a time.
//!
//! The table is split like the table of the pupils' names, with a lock a segment that is held for one
//! look-up or one edit.

use std::cmp::Ordering;
use std::hint::black_box;
use std::sync::{PoisonError, RwLock};

use super::batch::{Asked, Enrolled, Groups, PupilQuestion};
use super::fact::{Claim, Fact, Facts};
use super::names::{GuardianRef, OrderRef, PupilRef, Reference, SEGMENTS, room_per_segment};
use super::places::SchoolRef;
use crate::notice::{Channel, Passage, Passages};
use crate::time::{Stretch, Timestamp};

/// What one guardian is owed for a tap, whichever passage it turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owed {
    /// To whom.
    pub(crate) guardian: GuardianRef,
    /// Free channels by passage; a bit of [`free_bit`] each.
    free: u8,
    orders: [Option<OrderRef>; 2],
}

/// The free channels, sorted by name.
const FREE: [Channel; 3] = [Channel::App, Channel::Email, Channel::Line];

const fn free_bits(channel: Channel, passages: Passages) -> u8 {
    let kinds = match passages {
        Passages::Arrival => 0b01,
        Passages::Departure => 0b10,
        Passages::Both => 0b11,
    };
    match channel {
        Channel::App => kinds,
        Channel::Email => kinds << 2,
        Channel::Line => kinds << 4,
        Channel::Sms => 0,
    }
}

const fn only(passage: Passage) -> Passages {
    match passage {
        Passage::Arrival => Passages::Arrival,
        Passage::Departure => Passages::Departure,
    }
}

const fn position(passage: Passage) -> usize {
    match passage {
        Passage::Arrival => 0,
        Passage::Departure => 1,
    }
}

impl Owed {
    const fn nothing(guardian: GuardianRef) -> Self {
        Self { guardian, free: 0, orders: [None; 2] }
    }

    fn is_something(&self) -> bool {
        self.free != 0 || self.orders != [None; 2]
    }

    /// The free channels that carry `passage`, sorted by name.
    pub(crate) fn free_channels(&self, passage: Passage) -> impl Iterator<Item = Channel> + use<> {
        let free = self.free;
        FREE.into_iter().filter(move |channel| free & free_bits(*channel, only(passage)) != 0)
    }

    /// The order under which an SMS about `passage` is due.
    pub(crate) fn order(&self, passage: Passage) -> Option<OrderRef> {
        self.orders[position(passage)]
    }
}

/// The channels that a term offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    free: u8,
    sms: bool,
}

impl Offer {
    /// Of `channels`.
    pub(super) fn of(channels: &[Channel]) -> Self {
        Self {
            free: channels.iter().fold(0, |all, channel| all | free_bits(*channel, Passages::Both)),
            sms: channels.contains(&Channel::Sms),
        }
    }
}

/// The key within a pupil's facts that a change of the registry replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FactKey {
    School,
    Binding(GuardianRef),
    Subscription(GuardianRef, Channel),
    Order(OrderRef),
    Protection(GuardianRef),
}

impl FactKey {
    fn of(claim: Claim) -> Self {
        match claim {
            Claim::AtSchool(_) => Self::School,
            Claim::Bound(guardian) => Self::Binding(guardian),
            Claim::Subscribed(guardian, channel, _) => Self::Subscription(guardian, channel),
            Claim::Ordered(_, order, _) => Self::Order(order),
            Claim::Protected(guardian) => Self::Protection(guardian),
        }
    }
}

/// The facts about every pupil.
#[derive(Debug)]
pub(super) struct Pupils {
    segments: Box<[RwLock<Vec<Facts>>]>,
}

impl Pupils {
    /// A table with room for `expected` pupils.
    pub(super) fn with_capacity(expected: usize) -> Self {
        let per_segment = room_per_segment(expected);
        Self { segments: (0..SEGMENTS).map(|_| RwLock::new(Vec::with_capacity(per_segment))).collect() }
    }

    /// Looks at the facts about `pupil`.
    fn with<T>(&self, pupil: PupilRef, look: impl FnOnce(&Facts) -> T) -> T {
        let segment = self.segments[pupil.segment()].read().unwrap_or_else(PoisonError::into_inner);
        match segment.get(pupil.row()) {
            Some(facts) => look(facts),
            None => look(&Facts::default()),
        }
    }

    fn edit(&self, pupil: PupilRef, change: impl FnOnce(&mut Vec<Fact>)) {
        let mut segment = self.segments[pupil.segment()].write().unwrap_or_else(PoisonError::into_inner);
        if segment.len() <= pupil.row() {
            segment.resize_with(pupil.row() + 1, Facts::default);
        }
        let facts = &mut segment[pupil.row()];
        let mut unpacked: Vec<Fact> = facts.iter().collect();
        change(&mut unpacked);
        *facts = Facts::pack(&unpacked);
    }

    /// The next value of `key` in the feed's order: `lines` count for taps received from `applied` on,
    /// what counted before counts for those received before. `by_name` compares claims by the names
    /// behind their references.
    pub(super) fn replace(
        &self,
        pupil: PupilRef,
        key: FactKey,
        applied: Timestamp,
        lines: impl IntoIterator<Item = (Claim, Stretch)>,
        by_name: impl Fn(&Claim, &Claim) -> Ordering,
    ) {
        self.edit(pupil, |facts| {
            facts.retain(|fact| FactKey::of(fact.claim) != key || fact.believed.from < applied);
            for fact in facts.iter_mut().filter(|fact| FactKey::of(fact.claim) == key) {
                fact.believed.until = fact.believed.until.min(applied);
            }
            let believed = Stretch { from: applied, until: Timestamp::MAX };
            facts.extend(lines.into_iter().map(|(claim, stretch)| Fact { claim, stretch, believed }));
            facts.sort_by(|a, b| by_name(&a.claim, &b.claim));
        });
    }

    /// Forgets what no tap received at or after `horizon` can need.
    pub(super) fn forget_before(&self, pupil: PupilRef, horizon: Timestamp) {
        self.edit(pupil, |facts| {
            facts.retain(|fact| fact.believed.until > horizon);
            for fact in facts.iter_mut().filter(|fact| fact.believed.from <= horizon) {
                fact.believed.from = Timestamp::MIN;
            }
        });
    }

    /// Where each of the pupils asked about goes, `None` when the roster has no such pupil; `enrolled`
    /// gets an answer each, in their order. What bound guardians are owed through the channels on offer
    /// is pushed to `owed`, a pupil's side by side and sorted by guardian.
    pub(super) fn enrolled(
        &self,
        asked: &[PupilQuestion],
        offer: Offer,
        groups: &mut Groups<usize>,
        enrolled: &mut Vec<Option<Enrolled>>,
        owed: &mut Vec<Owed>,
    ) {
        groups.arrange(asked.iter().map(|question| (question.pupil.segment(), question.pupil.row())));
        enrolled.clear();
        enrolled.resize(asked.len(), None);
        owed.clear();
        for (segment, group) in groups.iter() {
            let rows = self.segments[segment].read().unwrap_or_else(PoisonError::into_inner);
            touch(&rows, group);
            for &Asked { position, key: row } in group {
                let PupilQuestion { received, at, .. } = asked[position];
                let owed_from = owed.len();
                let school = rows.get(row).and_then(|facts| owed_by(facts, received, at, offer, owed));
                enrolled[position] = school.map(|school| Enrolled { school, owed: owed_from..owed.len() });
            }
        }
    }

    /// Whether `guardian` is bound to `pupil` now, and whether they are protected from learning.
    pub(super) fn standing(&self, pupil: PupilRef, guardian: GuardianRef, now: Timestamp) -> Standing {
        self.with(pupil, |facts| Standing::of(facts, guardian, now))
    }

    /// How each of `guardians` stands to the pupil asked about at the same place in the batch, who was arranged by
    /// reference; `standings` gets an answer each, in their order.
    pub(super) fn standings(
        &self,
        pupils: &Groups<usize>,
        guardians: impl ExactSizeIterator<Item = GuardianRef>,
        now: Timestamp,
        standings: &mut Vec<Standing>,
    ) {
        standings.clear();
        standings.extend(guardians.map(Standing::unknown));
        for (segment, group) in pupils.iter() {
            let rows = self.segments[segment].read().unwrap_or_else(PoisonError::into_inner);
            touch(&rows, group);
            for &Asked { position, key: row } in group {
                if let Some(facts) = rows.get(row) {
                    standings[position] = Standing::of(facts, standings[position].guardian, now);
                }
            }
        }
    }
}

#[cfg(test)]
impl Pupils {
    /// How many facts are held about `pupil`.
    pub(super) fn facts_of(&self, pupil: PupilRef) -> usize {
        self.with(pupil, |facts| facts.iter().count())
    }
}

/// Walks through a group before anything is asked: the first walk fetches the pupils' rows, the second what does not lie in
/// them.
fn touch(rows: &[Facts], group: &[Asked<usize>]) {
    let facts = |row: usize| rows.get(row).filter(|facts| facts.is_spilled());
    black_box(group.iter().filter(|asked| facts(asked.key).is_some()).count());
    black_box(group.iter().filter_map(|asked| facts(asked.key)?.first_word()).fold(0, u64::wrapping_add));
}

/// How a guardian stands to a pupil now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    guardian: GuardianRef,
    pub(super) bound: bool,
    pub(super) protected: bool,
}

impl Standing {
    /// To a pupil about whom nothing is known.
    const fn unknown(guardian: GuardianRef) -> Self {
        Self { guardian, bound: false, protected: false }
    }

    fn of(facts: &Facts, guardian: GuardianRef, now: Timestamp) -> Self {
        let holds = |claim| facts.iter().any(|fact| fact.claim == claim && fact.counts_now(now));
        Self { guardian, bound: holds(Claim::Bound(guardian)), protected: holds(Claim::Protected(guardian)) }
    }
}

fn owed_by(
    facts: &Facts,
    received: Timestamp,
    at: Timestamp,
    offer: Offer,
    owed: &mut Vec<Owed>,
) -> Option<SchoolRef> {
    let mut school = None;
    // The guardian whose facts are being read, once a binding of theirs counts: bindings sort before
    // what needs them.
    let mut bound: Option<Owed> = None;
    for fact in facts.iter().filter(|fact| fact.counts(received, at)) {
        match fact.claim {
            Claim::AtSchool(of_pupil) => school = Some(of_pupil),
            Claim::Bound(guardian) => {
                if bound.is_none_or(|bound| bound.guardian != guardian) {
                    owed.extend(bound.replace(Owed::nothing(guardian)).filter(Owed::is_something));
                }
            }
            Claim::Subscribed(guardian, channel, passages) => {
                if let Some(bound) = bound.as_mut().filter(|bound| bound.guardian == guardian) {
                    bound.free |= free_bits(channel, passages) & offer.free;
                }
            }
            Claim::Ordered(guardian, order, passages) => {
                if let Some(bound) = bound.as_mut().filter(|bound| offer.sms && bound.guardian == guardian) {
                    for passage in [Passage::Arrival, Passage::Departure] {
                        // Orders sort by name: of several in force the lowest one pays.
                        if passages.include(passage) {
                            bound.orders[position(passage)].get_or_insert(order);
                        }
                    }
                }
            }
            Claim::Protected(_) => {}
        }
    }
    owed.extend(bound.filter(Owed::is_something));
    school
}
