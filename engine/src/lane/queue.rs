//! The order in which a lane sends: priority first, then deadline, then arrival.
//!
//! Deadlines follow the taps, so serving the earliest deadline first serves every school in the order in which its pupils
//! passed: none can starve another. The queue says what has expired; it drops nothing by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

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

#[derive(Debug)]
struct Ranked<T> {
    rank: Rank,
    sequence: u64,
    /// Apart, since a heap moves what it holds at every step: a notice has hundreds of bytes.
    item: Box<T>,
}

impl<T> PartialEq for Ranked<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.rank, self.sequence) == (other.rank, other.sequence)
    }
}

impl<T> Eq for Ranked<T> {}

impl<T> PartialOrd for Ranked<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ranked<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.rank, self.sequence).cmp(&(other.rank, other.sequence))
    }
}

const PRIORITIES: [Priority; 4] =
    [Priority::Emergency, Priority::Correction, Priority::Passage, Priority::Absence];

/// A lane's queue: one heap a priority, each by deadline.
#[derive(Debug)]
pub struct LaneQueue<T> {
    heaps: [BinaryHeap<Reverse<Ranked<T>>>; 4],
    next_sequence: u64,
}

impl<T> Default for LaneQueue<T> {
    fn default() -> Self {
        Self { heaps: std::array::from_fn(|_| BinaryHeap::new()), next_sequence: 0 }
    }
}

impl<T> LaneQueue<T> {
    fn heap(&mut self, priority: Priority) -> &mut BinaryHeap<Reverse<Ranked<T>>> {
        let place = PRIORITIES.iter().position(|known| *known == priority).unwrap_or(PRIORITIES.len() - 1);
        &mut self.heaps[place]
    }

    /// Adds `item`; of equals the earlier added is served first.
    pub fn push(&mut self, rank: Rank, item: T) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.heap(rank.priority).push(Reverse(Ranked { rank, sequence, item: Box::new(item) }));
    }

    /// Takes the item to be served next.
    pub fn pop(&mut self) -> Option<T> {
        self.heaps.iter_mut().find_map(BinaryHeap::pop).map(|Reverse(ranked)| *ranked.item)
    }

    /// The rank of the item to be served next.
    pub fn peek(&self) -> Option<Rank> {
        self.heaps.iter().find_map(BinaryHeap::peek).map(|Reverse(ranked)| ranked.rank)
    }

    /// Takes an item whose deadline is not after `now`, of whatever priority.
    pub fn pop_expired(&mut self, now: Timestamp) -> Option<T> {
        let heap = self
            .heaps
            .iter_mut()
            .find(|heap| heap.peek().is_some_and(|Reverse(ranked)| ranked.rank.deadline <= now))?;
        heap.pop().map(|Reverse(ranked)| *ranked.item)
    }

    /// Takes out every item for which `goes` holds, in no particular order. Looks at all of them.
    pub fn extract(&mut self, mut goes: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut extracted = Vec::new();
        for heap in &mut self.heaps {
            let (gone, kept): (Vec<_>, Vec<_>) =
                std::mem::take(heap).into_vec().into_iter().partition(|Reverse(ranked)| goes(&ranked.item));
            *heap = BinaryHeap::from(kept);
            extracted.extend(gone.into_iter().map(|Reverse(ranked)| *ranked.item));
        }
        extracted
    }

    /// The earliest deadline of all items.
    pub fn first_deadline(&self) -> Option<Timestamp> {
        self.heaps.iter().filter_map(|heap| heap.peek().map(|Reverse(ranked)| ranked.rank.deadline)).min()
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.heaps.iter().map(BinaryHeap::len).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.heaps.iter().all(BinaryHeap::is_empty)
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
