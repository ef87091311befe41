//! The order in which a lane sends: priority first, then deadline, then arrival.
//!
//! Deadlines follow the taps, so serving the earliest deadline first serves every school in the order in which its pupils
//! passed: none can starve another. The queue says what has expired; it drops nothing by itself.

use std::collections::BTreeMap;

use crate::notice::Priority;
use crate::time::Timestamp;

/// Where an item stands in the queue.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank {
    /// Lower is served first.
    pub priority: Priority,
    /// Earlier is served first; the item is of no use from then on.
    pub deadline: Timestamp,
}

const PRIORITIES: [Priority; 4] =
    [Priority::Emergency, Priority::Correction, Priority::Passage, Priority::Absence];

/// A lane's queue: one tree a priority, by deadline and arrival.
///
/// Deadlines come almost in order, so what is added and what is taken is near the ends of a tree, which are in the
/// processor's cache, however much waits between; a heap's steps lead all over it.
#[derive(Debug)]
pub struct LaneQueue<T> {
    waiting: [BTreeMap<Place, T>; PRIORITIES.len()],
    next_sequence: u64,
}

/// Where an item stands among those of its priority: its deadline, then how many were added before it.
type Place = (Timestamp, u64);

impl<T> Default for LaneQueue<T> {
    fn default() -> Self {
        Self { waiting: std::array::from_fn(|_| BTreeMap::new()), next_sequence: 0 }
    }
}

impl<T> LaneQueue<T> {
    fn of(&mut self, priority: Priority) -> &mut BTreeMap<Place, T> {
        let place = PRIORITIES.iter().position(|known| *known == priority).unwrap_or(PRIORITIES.len() - 1);
        &mut self.waiting[place]
    }

    /// Adds `item`; of equals the earlier added is served first.
    pub fn push(&mut self, rank: Rank, item: T) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.of(rank.priority).insert((rank.deadline, sequence), item);
    }

    /// Takes the item to be served next.
    pub fn pop(&mut self) -> Option<T> {
        self.waiting.iter_mut().find_map(BTreeMap::pop_first).map(|(_, item)| item)
    }

    /// The rank of the item to be served next.
    pub fn peek(&self) -> Option<Rank> {
        PRIORITIES.into_iter().zip(&self.waiting).find_map(|(priority, waiting)| {
            let ((deadline, _), _) = waiting.first_key_value()?;
            Some(Rank { priority, deadline: *deadline })
        })
    }

    /// Takes an item whose deadline is not after `now`, of whatever priority.
    pub fn pop_expired(&mut self, now: Timestamp) -> Option<T> {
        let is_expired = |waiting: &BTreeMap<Place, T>| {
            waiting.first_key_value().is_some_and(|((deadline, _), _)| *deadline <= now)
        };
        let expired = self.waiting.iter_mut().find(|waiting| is_expired(waiting))?;
        expired.pop_first().map(|(_, item)| item)
    }

    /// Takes out every item for which `goes` holds, in the order in which they would be served. Looks at all of them.
    pub fn extract(&mut self, mut goes: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut extracted = Vec::new();
        for waiting in &mut self.waiting {
            extracted.extend(waiting.extract_if(.., |_, item| goes(item)).map(|(_, item)| item));
        }
        extracted
    }

    /// The earliest deadline of all items.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        let first =
            |waiting: &BTreeMap<Place, T>| waiting.first_key_value().map(|((deadline, _), _)| *deadline);
        self.waiting.iter().filter_map(first).min()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.waiting.iter().map(BTreeMap::len).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.iter().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rank(priority: Priority, deadline_ms: i64) -> Rank {
        Rank { priority, deadline: Timestamp::from_millis(deadline_ms) }
    }

    #[test]
    fn an_emergency_overtakes_everything_that_waits() {
        let mut queue = LaneQueue::default();
        queue.push(rank(Priority::Passage, 10), "passage");
        queue.push(rank(Priority::Absence, 1), "absence");
        queue.push(rank(Priority::Emergency, 99), "emergency");
        assert_eq!(queue.pop(), Some("emergency"));
        assert_eq!(queue.pop(), Some("passage"));
        assert_eq!(queue.pop(), Some("absence"));
    }

    #[test]
    fn what_has_expired_is_found_behind_a_higher_priority() {
        let mut queue = LaneQueue::default();
        queue.push(rank(Priority::Emergency, 99), "emergency");
        queue.push(rank(Priority::Passage, 10), "passage");
        assert_eq!(queue.pop_expired(Timestamp::from_millis(9)), None);
        assert_eq!(queue.pop_expired(Timestamp::from_millis(10)), Some("passage"));
    }

    #[test]
    fn what_is_left_after_extracting_keeps_its_order() {
        let mut queue = LaneQueue::default();
        for (priority, deadline_ms, partition) in [
            (Priority::Passage, 10, 0),
            (Priority::Passage, 10, 1),
            (Priority::Emergency, 99, 0),
            (Priority::Passage, 10, 2),
            (Priority::Passage, 5, 1),
        ] {
            queue.push(rank(priority, deadline_ms), partition);
        }
        assert_eq!(queue.extract(|partition| *partition == 0), [0, 0]);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(queue.extract(|_| true).is_empty());
    }

    proptest! {
        #[test]
        fn items_leave_by_priority_then_deadline_then_arrival(
            items in proptest::collection::vec((0usize..4, 0i64..20), 0..60),
        ) {
            let mut queue = LaneQueue::default();
            let mut expected = Vec::new();
            for (arrival, (priority, deadline_ms)) in items.iter().enumerate() {
                queue.push(rank(PRIORITIES[*priority], *deadline_ms), arrival);
                expected.push((rank(PRIORITIES[*priority], *deadline_ms), arrival));
            }
            expected.sort();
            prop_assert_eq!(queue.len(), expected.len());
            for (next_rank, arrival) in expected {
                prop_assert_eq!(queue.peek(), Some(next_rank));
                prop_assert_eq!(queue.pop(), Some(arrival));
            }
            prop_assert!(queue.is_empty());
        }
    }
}
