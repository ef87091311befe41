//! What one key of the registry held, as of any instant that a tap may still ask about.
//!
//! A value counts for taps received at or after the instant it was applied, until a later change
//! supersedes it. Of several changes that had been applied when a tap was received, the last one in the
//! feed's order counts, whatever its stamp: so a change stamped at or before an earlier one (the clock
//! was set back) hides it for good, and the hidden value is dropped at once.

use smallvec::{SmallVec, smallvec};

use crate::time::Timestamp;

/// A value and since when it counts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known<T> {
    applied: Timestamp,
    value: T,
}

/// The values of one key, by rising instants of application; the last one is the current one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct History<T> {
    values: SmallVec<[Known<T>; 1]>,
}

impl<T> History<T> {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { values: SmallVec::new() }
    }

    /// One value since ever.
    pub(super) fn since_ever(value: T) -> Self {
        Self { values: smallvec![Known { applied: Timestamp::MIN, value }] }
    }

    /// The next change in the feed's order.
    pub(super) fn set(&mut self, applied: Timestamp, value: T) {
        while self.values.last().is_some_and(|last| last.applied >= applied) {
            self.values.pop();
        }
        self.values.push(Known { applied, value });
    }

    /// What counts for a tap received at `received`.
    pub(super) fn as_of(&self, received: Timestamp) -> Option<&T> {
        self.values.iter().rev().find(|known| known.applied <= received).map(|known| &known.value)
    }

    /// The only value, if it counts since ever.
    pub(super) fn settled(&self) -> Option<&T> {
        match self.values.as_slice() {
            [Known { applied: Timestamp::MIN, value }] => Some(value),
            _ => None,
        }
    }

    /// Forgets what no tap received at or after `horizon` can need.
    pub(super) fn forget_before(&mut self, horizon: Timestamp) {
        let newer = self.values.iter().rev().take_while(|known| known.applied > horizon).count();
        let needless = self.values.len().saturating_sub(newer + 1);
        self.values.drain(..needless);
        if let Some(first) = self.values.first_mut()
            && first.applied <= horizon
        {
            first.applied = Timestamp::MIN;
        }
        self.values.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instant(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    proptest! {
        #[test]
        fn the_last_change_applied_by_then_counts(
            changes in prop::collection::vec((0..8_i64, any::<u8>()), 0..12),
            horizon in 0..9_i64,
            received in 0..9_i64,
        ) {
            let mut history = History::new();
            for (applied, value) in &changes {
                history.set(instant(*applied), *value);
            }
            let naive = |received: i64| {
                changes.iter().rev().find(|(applied, _)| *applied <= received).map(|(_, value)| *value)
            };
            prop_assert_eq!(history.as_of(instant(received)).copied(), naive(received));

            history.forget_before(instant(horizon));
            let asked = received.max(horizon);
            prop_assert_eq!(history.as_of(instant(asked)).copied(), naive(asked), "after forgetting");
        }
    }

    #[test]
    fn what_is_old_enough_counts_since_ever() {
        let mut history = History::new();
        history.set(instant(1), 'a');
        history.set(instant(5), 'b');
        assert_eq!(history.settled(), None);
        history.forget_before(instant(5));
        assert_eq!(history.settled(), Some(&'b'));
    }
}
