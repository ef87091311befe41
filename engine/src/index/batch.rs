//! Questions that a batch of taps asks all at once.
//!
//! What a look-up costs in a city of a million pupils is the wait for memory. The questions of a batch
//! are grouped by the segment of the table that answers them: its lock is taken once a group, and the
//! look-ups under it depend on nothing but themselves, so that the processor waits for several of them
//! at a time. Where it helps, a group is walked through more than once: first only to touch what the
//! next walk needs.

use std::ops::Range;

use super::names::{PupilRef, SEGMENTS};
use super::places::SchoolRef;
use crate::ids::CardNumber;
use crate::time::Timestamp;

/// Whose card is it, for a tap received at `received` and read at `at`?
#[derive(Clone, Copy, Debug)]
pub(crate) struct CardQuestion {
    pub(crate) card: CardNumber,
    pub(crate) received: Timestamp,
    pub(crate) at: Timestamp,
}

/// Where does the pupil go, and what are their guardians owed, for a tap received at `received` and read
/// at `at`?
#[derive(Clone, Copy, Debug)]
pub(crate) struct PupilQuestion {
    pub(crate) pupil: PupilRef,
    pub(crate) received: Timestamp,
    pub(crate) at: Timestamp,
}

/// What the registry has on a pupil of the roster.
#[derive(Clone, Debug)]
pub(crate) struct Enrolled {
    /// The pupil's school.
    pub(crate) school: SchoolRef,
    /// What bound guardians are owed, as positions in the list that was filled; sorted by guardian.
    pub(crate) owed: Range<usize>,
}

/// One question of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<K> {
    /// Where it stands in the batch.
    pub(super) position: usize,
    /// By what the segment finds the answer: a hash, a row. Reckoned once, so that the walks are short.
    pub(super) key: K,
}

/// The questions of a batch by the segment that answers them; kept for its room.
#[derive(Debug)]
pub(crate) struct Groups<K> {
    by_segment: [Vec<Asked<K>>; SEGMENTS],
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self { by_segment: std::array::from_fn(|_| Vec::new()) }
    }
}

impl<K> Groups<K> {
    /// Groups `questions`, each with its segment and its key, in the order of the batch.
    pub(super) fn arrange(&mut self, questions: impl Iterator<Item = (usize, K)>) {
        self.by_segment.iter_mut().for_each(Vec::clear);
        for (position, (segment, key)) in questions.enumerate() {
            self.by_segment[segment % SEGMENTS].push(Asked { position, key });
        }
    }

    /// The segments that anybody asks, each with its questions, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[Asked<K>])> {
        self.by_segment.iter().map(Vec::as_slice).enumerate().filter(|(_, asked)| !asked.is_empty())
    }
}
