//! What the registry says about one pupil, packed: the school, who is bound, which channels they
//! subscribed to, which orders they placed, who is protected from learning.
//!
//! A fact is one 64-bit word, and one more for each thing out of the usual (an order's reference, a
//! first or last instant, when it was applied or superseded). So a pupil with a school, one guardian and
//! one subscription needs three words, which lie in place. Facts about guardians are kept sorted by
//! guardian, then channel, then order, all by name, so that notices come out sorted; sorting is the
//! writer's work.

use smallvec::SmallVec;

use super::names::{GuardianRef, OrderRef, Reference};
use super::places::SchoolRef;
use crate::notice::{Channel, Passages};
use crate::time::{Stretch, Timestamp};

/// What a fact claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// The pupil goes to this school.
    AtSchool(SchoolRef),
    /// The guardian is bound to the pupil.
    Bound(GuardianRef),
    /// The guardian subscribed to these passages through a free channel.
    Subscribed(GuardianRef, Channel, Passages),
    /// The guardian ordered SMS about these passages.
    Ordered(GuardianRef, OrderRef, Passages),
    /// The guardian must not learn. Always of now: no bounds.
    Protected(GuardianRef),
}

/// A claim, the stretch of time that it is about, and for taps received when it is to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fact {
    pub(super) claim: Claim,
    /// Compared with a tap's `at`.
    pub(super) stretch: Stretch,
    /// From when it was applied until it was superseded; compared with a tap's `received`.
    pub(super) believed: Stretch,
}

impl Fact {
    /// Whether it counts for a tap received at `received` and read at `at`.
    #[inline]
    pub(super) fn counts(&self, received: Timestamp, at: Timestamp) -> bool {
        self.believed.contains(received) && self.stretch.contains(at)
    }

    /// Whether it is the newest word of its key, and about `now`.
    pub(super) fn counts_now(&self, now: Timestamp) -> bool {
        self.believed.until == Timestamp::MAX && self.stretch.contains(now)
    }
}

/// The facts about one pupil. Aligned so that no row lies across two lines of the processor's cache.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
#[repr(align(32))]
pub(super) struct Facts(SmallVec<[u64; 3]>);

// A header word, from its lowest bit: subject (32), tag (4), passages (2), flags (5).
const TAG_SHIFT: u32 = 32;
const PASSAGES_SHIFT: u32 = 36;
const FLAGS_SHIFT: u32 = 38;

const HAS_FROM: u64 = 1;
const HAS_UNTIL: u64 = 1 << 1;
const HAS_APPLIED: u64 = 1 << 2;
const HAS_SUPERSEDED: u64 = 1 << 3;

const TAG_SCHOOL: u64 = 0;
const TAG_BOUND: u64 = 1;
const TAG_ORDERED: u64 = 2;
const TAG_PROTECTED: u64 = 3;
const TAG_SUBSCRIBED: u64 = 4;

impl Facts {
    /// Packs `facts` in the order given.
    pub(super) fn pack(facts: &[Fact]) -> Self {
        let mut words = SmallVec::new();
        for fact in facts {
            fact.pack_into(&mut words);
        }
        words.shrink_to_fit();
        Self(words)
    }

    /// Whether they need more room than lies in place.
    #[inline]
    pub(super) fn is_spilled(&self) -> bool {
        self.0.spilled()
    }

    /// The first word, wherever it lies.
    #[inline]
    pub(super) fn first_word(&self) -> Option<u64> {
        self.0.first().copied()
    }

    /// The facts in their order.
    #[inline]
    pub(super) fn iter(&self) -> FactIter<'_> {
        FactIter { words: &self.0 }
    }
}

impl Fact {
    fn pack_into(&self, words: &mut SmallVec<[u64; 3]>) {
        let (tag, subject, passages, order) = match self.claim {
            Claim::AtSchool(school) => (TAG_SCHOOL, school.as_u32(), None, None),
            Claim::Bound(guardian) => (TAG_BOUND, guardian.number(), None, None),
            Claim::Protected(guardian) => (TAG_PROTECTED, guardian.number(), None, None),
            Claim::Subscribed(guardian, channel, passages) => {
                (TAG_SUBSCRIBED + channel_code(channel), guardian.number(), Some(passages), None)
            }
            Claim::Ordered(guardian, order, passages) => {
                (TAG_ORDERED, guardian.number(), Some(passages), Some(order))
            }
        };
        let bounds = [
            (HAS_FROM, self.stretch.from, Timestamp::MIN),
            (HAS_UNTIL, self.stretch.until, Timestamp::MAX),
            (HAS_APPLIED, self.believed.from, Timestamp::MIN),
            (HAS_SUPERSEDED, self.believed.until, Timestamp::MAX),
        ];
        let flags =
            bounds.iter().filter(|(_, bound, usual)| bound != usual).fold(0, |all, (flag, ..)| all | flag);
        words.push(
            u64::from(subject)
                | tag << TAG_SHIFT
                | passages.map_or(0, passages_code) << PASSAGES_SHIFT
                | flags << FLAGS_SHIFT,
        );
        words.extend(order.map(|order| u64::from(order.number())));
        words.extend(
            bounds
                .iter()
                .filter(|(flag, ..)| flags & flag != 0)
                .map(|(_, bound, _)| bound.as_millis().cast_unsigned()),
        );
    }
}

/// Unpacks facts one by one.
pub(super) struct FactIter<'a> {
    words: &'a [u64],
}

impl FactIter<'_> {
    #[inline]
    fn next_word(&mut self) -> Option<u64> {
        let (word, rest) = self.words.split_first()?;
        self.words = rest;
        Some(*word)
    }

    #[inline]
    fn bound(&mut self, flags: u64, flag: u64, usual: Timestamp) -> Timestamp {
        if flags & flag == 0 {
            return usual;
        }
        self.next_word().map_or(usual, |word| Timestamp::from_millis(word.cast_signed()))
    }
}

impl Iterator for FactIter<'_> {
    type Item = Fact;

    #[inline]
    fn next(&mut self) -> Option<Fact> {
        let header = self.next_word()?;
        // The lowest 32 bits are the subject.
        let subject = header as u32;
        let passages = passages_of(header >> PASSAGES_SHIFT & 0b11);
        let claim = match header >> TAG_SHIFT & 0xf {
            TAG_SCHOOL => Claim::AtSchool(SchoolRef::from_u32(subject)),
            TAG_BOUND => Claim::Bound(GuardianRef::from_number(subject)),
            TAG_PROTECTED => Claim::Protected(GuardianRef::from_number(subject)),
            TAG_ORDERED => {
                let order = OrderRef::from_number(self.next_word()? as u32);
                Claim::Ordered(GuardianRef::from_number(subject), order, passages)
            }
            tag => {
                let channel = channel_of(tag.wrapping_sub(TAG_SUBSCRIBED));
                Claim::Subscribed(GuardianRef::from_number(subject), channel, passages)
            }
        };
        let flags = header >> FLAGS_SHIFT;
        if flags == 0 {
            return Some(Fact { claim, stretch: Stretch::ALWAYS, believed: Stretch::ALWAYS });
        }
        let from = self.bound(flags, HAS_FROM, Timestamp::MIN);
        let until = self.bound(flags, HAS_UNTIL, Timestamp::MAX);
        let applied = self.bound(flags, HAS_APPLIED, Timestamp::MIN);
        let superseded = self.bound(flags, HAS_SUPERSEDED, Timestamp::MAX);
        Some(Fact {
            claim,
            stretch: Stretch { from, until },
            believed: Stretch { from: applied, until: superseded },
        })
    }
}

const fn channel_code(channel: Channel) -> u64 {
    match channel {
        Channel::App => 0,
        Channel::Email => 1,
        Channel::Line => 2,
        Channel::Sms => 3,
    }
}

const fn channel_of(code: u64) -> Channel {
    match code {
        0 => Channel::App,
        1 => Channel::Email,
        2 => Channel::Line,
        _ => Channel::Sms,
    }
}

const fn passages_code(passages: Passages) -> u64 {
    match passages {
        Passages::Arrival => 1,
        Passages::Departure => 2,
        Passages::Both => 3,
    }
}

const fn passages_of(code: u64) -> Passages {
    match code {
        1 => Passages::Arrival,
        2 => Passages::Departure,
        _ => Passages::Both,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instant() -> impl Strategy<Value = Timestamp> {
        prop_oneof![Just(Timestamp::MIN), Just(Timestamp::MAX), any::<i64>().prop_map(Timestamp::from_millis)]
    }

    fn stretch() -> impl Strategy<Value = Stretch> {
        (instant(), instant()).prop_map(|(from, until)| Stretch { from, until })
    }

    fn claim() -> impl Strategy<Value = Claim> {
        let passages = prop::sample::select(vec![Passages::Arrival, Passages::Departure, Passages::Both]);
        let channel = prop::sample::select(Channel::ALL.to_vec());
        (0..5, 0..u32::MAX, 0..u32::MAX, channel, passages).prop_map(
            |(kind, subject, order, channel, passages)| {
                let guardian = GuardianRef::from_number(subject);
                match kind {
                    0 => Claim::AtSchool(SchoolRef::from_u32(subject)),
                    1 => Claim::Bound(guardian),
                    2 => Claim::Subscribed(guardian, channel, passages),
                    3 => Claim::Ordered(guardian, OrderRef::from_number(order), passages),
                    _ => Claim::Protected(guardian),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn facts_unpack_to_what_was_packed(
            facts in prop::collection::vec(
                (claim(), stretch(), stretch())
                    .prop_map(|(claim, stretch, believed)| Fact { claim, stretch, believed }),
                0..12,
            ),
        ) {
            let unpacked: Vec<Fact> = Facts::pack(&facts).iter().collect();
            prop_assert_eq!(unpacked, facts);
        }
    }

    #[test]
    fn a_school_a_binding_and_a_subscription_since_ever_lie_in_place() {
        let guardian = GuardianRef::from_number(7);
        let claims = [
            Claim::AtSchool(SchoolRef::from_u32(1)),
            Claim::Bound(guardian),
            Claim::Subscribed(guardian, Channel::App, Passages::Both),
        ];
        let facts = claims.map(|claim| Fact { claim, stretch: Stretch::ALWAYS, believed: Stretch::ALWAYS });
        assert!(!Facts::pack(&facts).is_spilled());
        assert_eq!(size_of::<Facts>(), 32);
    }
}
