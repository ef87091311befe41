//! How far each owned partition is settled, as last committed or to be committed.
//!
//! Every commit is of everything that is settled at that moment: so an older one never undoes a newer one, and each proves
//! that the group still knows this process.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is known of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It was assigned, and what was committed is not known yet.
    Unknown,
    /// Nothing was ever committed.
    Nothing,
    /// Everything below this offset is settled.
    Below(u64),
}

#[derive(Debug)]
struct Owned {
    assignment: u64,
    progress: Progress,
}

#[derive(Debug, Default)]
struct State {
    owned: BTreeMap<u32, Owned>,
    committing: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settled {
    state: Mutex<State>,
    landed: Condvar,
}

/// What to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// This process owns nothing.
    NothingOwned,
    /// Of no owned partition it is known yet what was committed.
    NothingKnown,
    /// By partition; `None`: nothing is settled.
    Known(Vec<(u32, Option<u64>)>),
}

impl Settled {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions are ours.
    pub(super) fn assigned(&self, partitions: &[u32], assignment: u64) {
        let mut state = self.state();
        for partition in partitions {
            state.owned.insert(*partition, Owned { assignment, progress: Progress::Unknown });
        }
    }

    /// What was found to be committed, unless the partition has gone or was settled further meanwhile.
    pub(super) fn found(&self, partition: u32, assignment: u64, committed: Option<u64>) -> bool {
        let mut state = self.state();
        let owned = state.owned.get_mut(&partition).filter(|owned| owned.assignment == assignment);
        let Some(owned) = owned else { return false };
        if owned.progress == Progress::Unknown {
            owned.progress = committed.map_or(Progress::Nothing, Progress::Below);
        }
        true
    }

    /// Everything below each offset is settled. The partitions that are not ours.
    pub(super) fn settle(&self, settled: &[(u32, u64)]) -> Vec<u32> {
        let mut state = self.state();
        let mut foreign = Vec::new();
        for (partition, offset) in settled {
            match state.owned.get_mut(partition) {
                Some(owned) => owned.progress = Progress::Below(*offset),
                None => foreign.push(*partition),
            }
        }
        foreign
    }

    pub(super) fn owns(&self, partition: u32) -> bool {
        self.state().owned.contains_key(&partition)
    }

    /// Begins a commit of what it returns.
    pub(super) fn begin_commit(&self) -> Snapshot {
        let mut state = self.state();
        if state.owned.is_empty() {
            return Snapshot::NothingOwned;
        }
        let known: Vec<(u32, Option<u64>)> = state
            .owned
            .iter()
            .filter_map(|(partition, owned)| match owned.progress {
                Progress::Unknown => None,
                Progress::Nothing => Some((*partition, None)),
                Progress::Below(offset) => Some((*partition, Some(offset))),
            })
            .collect();
        if known.is_empty() {
            return Snapshot::NothingKnown;
        }
        state.committing = true;
        Snapshot::Known(known)
    }

    /// The commit has landed, or has failed for good.
    pub(super) fn end_commit(&self) {
        self.state().committing = false;
        self.landed.notify_all();
    }

    /// The partitions are no longer ours. Waits for a commit under way, `most` at the longest: one that lands after the
    /// next owner's would take its offsets back.
    pub(super) fn release(&self, partitions: &[u32], most: Duration) {
        let state = self.state();
        let (mut state, _) = self
            .landed
            .wait_timeout_while(state, most, |state| state.committing)
            .unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            state.owned.remove(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_of_everything_that_is_known_to_be_settled() {
        let settled = Settled::default();
        assert_eq!(settled.begin_commit(), Snapshot::NothingOwned);
        settled.assigned(&[0, 1, 2], 1);
        assert_eq!(settled.begin_commit(), Snapshot::NothingKnown);
        assert!(settled.found(0, 1, Some(7)) && settled.found(1, 1, None));
        assert!(settled.settle(&[(1, 3), (9, 1)]) == [9], "partition 9 is not ours");
        assert_eq!(settled.begin_commit(), Snapshot::Known(vec![(0, Some(7)), (1, Some(3))]));
        settled.end_commit();
    }

    #[test]
    fn an_answer_of_an_earlier_assignment_counts_for_nothing() {
        let settled = Settled::default();
        settled.assigned(&[0], 1);
        settled.release(&[0], Duration::ZERO);
        settled.assigned(&[0], 2);
        assert!(!settled.found(0, 1, Some(7)));
        assert_eq!(settled.begin_commit(), Snapshot::NothingKnown);
        assert!(settled.found(0, 2, Some(9)));
    }

    #[test]
    fn an_answer_that_comes_late_takes_no_commit_back() {
        let settled = Settled::default();
        settled.assigned(&[0], 1);
        settled.settle(&[(0, 9)]);
        assert!(settled.found(0, 1, Some(7)));
        assert_eq!(settled.begin_commit(), Snapshot::Known(vec![(0, Some(9))]));
    }
}
