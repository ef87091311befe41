//! Card → pupil.
//!
//! Nearly every card has belonged to one pupil since ever and for ever: such a card costs one small
//! entry of a presized map. Every other card says so in that entry and keeps its stretches and its
//! history in a second map.

use std::hint::black_box;

use dashmap::DashMap;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::batch::{Asked, CardQuestion, Groups};
use super::history::History;
use super::names::{PupilRef, SEGMENTS};
use crate::ids::CardNumber;
use crate::time::{Stretch, Timestamp};

/// One stretch in which a card belonged to a pupil.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holding {
    pub(super) pupil: PupilRef,
    pub(super) stretch: Stretch,
}

type Holdings = SmallVec<[Holding; 1]>;

/// Every card of the registry.
#[derive(Debug)]
pub(super) struct Cards {
    /// `None`: look in the second map.
    usual: DashMap<CardNumber, Option<PupilRef>, FixedState>,
    unusual: DashMap<CardNumber, History<Holdings>, FixedState>,
}

impl Cards {
    /// A map with room for `expected` cards.
    pub(super) fn with_capacity(expected: usize) -> Self {
        Self {
            usual: DashMap::with_capacity_and_hasher_and_shard_amount(
                expected,
                FixedState::default(),
                SEGMENTS,
            ),
            unusual: DashMap::with_hasher(FixedState::default()),
        }
    }

    /// Whose card each of `asked` is; `found` gets an answer each, in their order.
    pub(super) fn pupils(
        &self,
        asked: &[CardQuestion],
        groups: &mut Groups<u64>,
        found: &mut Vec<Option<PupilRef>>,
    ) {
        groups.arrange(asked.iter().map(|question| {
            let hash = self.usual.hash_usize(&question.card);
            (self.usual.determine_shard(hash), hash as u64)
        }));
        found.clear();
        found.resize(asked.len(), None);
        let mut unusual = false;
        for (segment, group) in groups.iter() {
            let cards = self.usual.shards()[segment].read();
            // The first walk fetches the table's tags, the second the entries.
            black_box(group.iter().filter(|asked| cards.get(asked.key, |_| false).is_some()).count());
            for &Asked { position, key: hash } in group {
                let card = asked[position].card;
                if let Some((_, pupil)) = cards.get(hash, |(known, _)| *known == card) {
                    found[position] = *pupil.get();
                    unusual |= pupil.get().is_none();
                }
            }
        }
        if unusual {
            let open = asked.iter().zip(found).filter(|(_, found)| found.is_none());
            open.for_each(|(question, found)| *found = self.pupil(question));
        }
    }

    /// Whose card it is, whether usual or not.
    fn pupil(&self, question: &CardQuestion) -> Option<PupilRef> {
        loop {
            let usual = *self.usual.get(&question.card)?;
            if usual.is_some() {
                return usual;
            }
            if let Some(history) = self.unusual.get(&question.card) {
                let holdings = history.as_of(question.received)?;
                let holding = holdings.iter().find(|holding| holding.stretch.contains(question.at));
                return holding.map(|holding| holding.pupil);
            }
            // The card has become a usual one between the two look-ups.
        }
    }

    /// The card's next value in the feed's order. One writer at a time.
    pub(super) fn set(&self, card: CardNumber, applied: Timestamp, holdings: Holdings) {
        let known = self.usual.get(&card).map(|pupil| *pupil);
        let mut history = match known {
            None => History::new(),
            Some(None) => self.unusual.get(&card).map_or_else(History::new, |history| history.clone()),
            Some(Some(pupil)) => {
                History::since_ever(Holdings::from_elem(Holding { pupil, stretch: Stretch::ALWAYS }, 1))
            }
        };
        history.set(applied, holdings);
        self.keep(card, history);
    }

    /// Forgets what no tap received at or after `horizon` can need.
    pub(super) fn forget_before(&self, card: CardNumber, horizon: Timestamp) {
        let unusual = self.unusual.get(&card).map(|history| history.clone());
        if let Some(mut history) = unusual {
            history.forget_before(horizon);
            self.keep(card, history);
        }
    }

    fn keep(&self, card: CardNumber, history: History<Holdings>) {
        let settled = history.settled().map(SmallVec::as_slice);
        if let Some([Holding { pupil, stretch: Stretch::ALWAYS }]) = settled {
            self.usual.insert(card, Some(*pupil));
            self.unusual.remove(&card);
            return;
        }
        // First the history, so that whoever is sent to it finds it.
        self.unusual.insert(card, history);
        self.usual.insert(card, None);
    }
}

#[cfg(test)]
impl Cards {
    /// How many cards have a history or stretches.
    pub(super) fn unusual_len(&self) -> usize {
        self.unusual.len()
    }
}
