//! The offsets of one partition that wait for notices, and for how many.
//!
//! Offsets are added and settled almost in their order, so both is mostly done at an end of a queue; what comes out of turn is
//! searched for.

use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Waiting {
    offset: u64,
    /// Zero once the offset is settled while an earlier one is not.
    notices: u32,
}

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Unsettled {
    /// By offset; the first one has notices.
    waiting: VecDeque<Waiting>,
    /// How many of them have notices.
    offsets: usize,
}

impl Unsettled {
    /// `offset` waits for so many `notices`, at least one.
    pub(super) fn open(&mut self, offset: u64, notices: u32) {
        let place = match self.waiting.back() {
            Some(last) if last.offset >= offset => self.waiting.partition_point(|it| it.offset < offset),
            _ => self.waiting.len(),
        };
        match self.waiting.get_mut(place) {
            Some(known) if known.offset == offset => {
                self.offsets += usize::from(known.notices == 0);
                known.notices = notices;
            }
            _ => {
                self.offsets += 1;
                self.waiting.insert(place, Waiting { offset, notices });
            }
        }
    }

    /// One notice of `offset` is settled. Whether there was one that was not.
    pub(super) fn settle(&mut self, offset: u64) -> bool {
        let place = match self.waiting.front() {
            Some(first) if first.offset == offset => 0,
            _ => self.waiting.partition_point(|it| it.offset < offset),
        };
        let known = self.waiting.get_mut(place).filter(|it| it.offset == offset && it.notices > 0);
        let Some(known) = known else { return false };
        known.notices -= 1;
        if known.notices == 0 {
            self.offsets -= 1;
            while self.waiting.front().is_some_and(|first| first.notices == 0) {
                self.waiting.pop_front();
            }
        }
        true
    }

    /// The first offset that waits.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.offset)
    }

    /// How many offsets wait.
    pub(super) fn offsets(&self) -> usize {
        self.offsets
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn offsets_wait_as_in_a_map(
            steps in proptest::collection::vec((0u64..20, prop::option::of(1u32..4)), 0..80),
        ) {
            let (mut unsettled, mut expected) = (Unsettled::default(), BTreeMap::new());
            for (offset, opened) in steps {
                if let Some(notices) = opened {
                    unsettled.open(offset, notices);
                    expected.insert(offset, notices);
                } else {
                    let known = expected.get_mut(&offset).map(|notices: &mut u32| *notices -= 1).is_some();
                    expected.retain(|_, notices| *notices > 0);
                    prop_assert_eq!(unsettled.settle(offset), known);
                }
                prop_assert_eq!(unsettled.first(), expected.keys().next().copied());
                prop_assert_eq!(unsettled.offsets(), expected.len());
            }
        }
    }
}
