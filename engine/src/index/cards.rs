//! Card → pupil.
//!
//! Nearly every card has belonged to one pupil since ever and for ever: such a card costs one small entry of a presized
//! map. Every other card says so in that entry and keeps its stretches and its history in a second map.

use dashmap::DashMap;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use super::history::History;
use super::names::{PupilRef, Reference};
use crate::ids::CardNumber;
use crate::time::{Stretch, Timestamp};

/// One stretch in which a card belonged to a pupil.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holding {
    pub(super) pupil: PupilRef,
    pub(super) stretch: Stretch,
}

type Holdings = SmallVec<[Holding; 1]>;

/// In place of a pupil's reference: look in the second map.
const UNUSUAL: u32 = u32::MAX;

/// Every card of the registry.
#[derive(Debug)]
pub(super) struct Cards {
    /// The pupil's reference, or [`UNUSUAL`].
    usual: DashMap<CardNumber, u32, FixedState>,
    unusual: DashMap<CardNumber, History<Holdings>, FixedState>,
}

impl Cards {
    /// A map with room for `expected` cards.
    pub(super) fn with_capacity(expected: usize) -> Self {
        Self {
            usual: DashMap::with_capacity_and_hasher(expected, FixedState::default()),
            unusual: DashMap::with_hasher(FixedState::default()),
        }
    }

    /// Whose card it is, for a tap received at `received` and read at `at`.
    pub(super) fn pupil(&self, card: &CardNumber, received: Timestamp, at: Timestamp) -> Option<PupilRef> {
        loop {
            let pupil = *self.usual.get(card)?;
            if pupil != UNUSUAL {
                return Some(PupilRef::from_number(pupil));
            }
            if let Some(history) = self.unusual.get(card) {
                let holdings = history.as_of(received)?;
                return holdings
                    .iter()
                    .find(|holding| holding.stretch.contains(at))
                    .map(|holding| holding.pupil);
            }
            // The card has become a usual one between the two look-ups.
        }
    }

    /// The card's next value in the feed's order. One writer at a time.
    pub(super) fn set(&self, card: CardNumber, applied: Timestamp, holdings: Holdings) {
        let known = self.usual.get(&card).map(|pupil| *pupil);
        let mut history = match known {
            None => History::new(),
            Some(UNUSUAL) => self.unusual.get(&card).map_or_else(History::new, |history| history.clone()),
            Some(pupil) => History::since_ever(Holdings::from_elem(
                Holding { pupil: PupilRef::from_number(pupil), stretch: Stretch::ALWAYS },
                1,
            )),
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
            self.usual.insert(card, pupil.number());
            self.unusual.remove(&card);
            return;
        }
        // First the history, so that whoever is sent to it finds it.
        self.unusual.insert(card, history);
        self.usual.insert(card, UNUSUAL);
    }
}

#[cfg(test)]
impl Cards {
    /// How many cards have a history or stretches.
    pub(super) fn unusual_len(&self) -> usize {
        self.unusual.len()
    }
}
