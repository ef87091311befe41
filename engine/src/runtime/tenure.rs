//! One process's time as the owner of one partition: what has been decided and what is settled.
//!
//! Owns the answer to "up to where may be committed" (T3). Shared by the shard that decides and the lanes that settle; its
//! lock is held for a few instructions and never across an await.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ids::LogPosition;
use crate::invariants::Invariant;
use crate::ledger::OwnerToken;

#[derive(Debug)]
struct Progress {
    /// The first offset that is not decided yet.
    decided: u64,
    /// Offsets with notices that are not settled, and how many.
    unsettled: BTreeMap<u64, u32>,
    /// Requests of this partition on the wire.
    in_flight: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tenure {
    partition: u32,
    owner: OwnerToken,
    /// On the monotonic clock.
    began_at: Duration,
    over: CancellationToken,
    progress: Mutex<Progress>,
    landed: Notify,
}

impl Tenure {
    /// Of `owner`, since `began_at`: begins with `next`, the first offset to be decided; everything below is settled.
    pub(crate) fn beginning_with(next: u64, partition: u32, owner: OwnerToken, began_at: Duration) -> Self {
        Self {
            partition,
            owner,
            began_at,
            over: CancellationToken::new(),
            progress: Mutex::new(Progress { decided: next, unsettled: BTreeMap::new(), in_flight: 0 }),
            landed: Notify::new(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partition.
    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    /// Who claims in this tenure: nobody else ever does, not even this process when the partition comes back to it.
    pub(crate) fn owner(&self) -> OwnerToken {
        self.owner
    }

    /// When it began, on the monotonic clock.
    pub(crate) fn began_at(&self) -> Duration {
        self.began_at
    }

    /// Everything below `next` is decided; of these, each offset in `unsettled` waits for so many notices. Called before
    /// any of those notices goes to a lane.
    pub(crate) fn decided(&self, next: u64, unsettled: impl IntoIterator<Item = (u64, u32)>) {
        let mut progress = self.progress();
        for (offset, notices) in unsettled.into_iter().filter(|(_, notices)| *notices > 0) {
            progress.unsettled.insert(offset, notices);
        }
        progress.decided = progress.decided.max(next);
    }

    /// One notice of the record at `offset` is settled.
    pub(crate) fn settle(&self, offset: u64) {
        let mut progress = self.progress();
        let known = match progress.unsettled.get_mut(&offset) {
            Some(1) => {
                progress.unsettled.remove(&offset);
                true
            }
            Some(notices) => {
                *notices -= 1;
                true
            }
            None => false,
        };
        drop(progress);
        Invariant::N1.check(known, LogPosition { partition: self.partition, offset });
    }

    /// Everything below this offset is settled: what may be committed.
    pub(crate) fn settled_prefix(&self) -> u64 {
        let progress = self.progress();
        progress.unsettled.first_key_value().map_or(progress.decided, |(offset, _)| *offset)
    }

    /// The first offset that is not decided yet.
    pub(crate) fn next_undecided(&self) -> u64 {
        self.progress().decided
    }

    /// The partition is no longer ours: what is queued for it must not be sent.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Whether the partition is no longer ours.
    pub(crate) fn has_ended(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits until the partition is no longer ours.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// A request leaves.
    pub(crate) fn take_off(&self) {
        self.progress().in_flight += 1;
    }

    /// A request is answered and recorded.
    pub(crate) fn land(&self) {
        let mut progress = self.progress();
        progress.in_flight = progress.in_flight.saturating_sub(1);
        drop(progress);
        self.landed.notify_waiters();
    }

    /// Waits until nothing of this partition is on the wire.
    pub(crate) async fn drained(&self) {
        loop {
            let landed = self.landed.notified();
            if self.progress().in_flight == 0 {
                return;
            }
            landed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenure(next: u64) -> Tenure {
        Tenure::beginning_with(next, 0, OwnerToken(1), Duration::ZERO)
    }

    #[test]
    fn only_the_contiguous_prefix_of_settled_records_may_be_committed() {
        let tenure = tenure(10);
        assert_eq!(tenure.settled_prefix(), 10);
        tenure.decided(15, [(11, 2), (13, 1)]);
        assert_eq!(tenure.settled_prefix(), 11);
        tenure.settle(13);
        assert_eq!(tenure.settled_prefix(), 11);
        tenure.settle(11);
        assert_eq!(tenure.settled_prefix(), 11);
        tenure.settle(11);
        assert_eq!(tenure.settled_prefix(), 15);
    }

    #[tokio::test]
    async fn draining_waits_for_what_is_on_the_wire() {
        let tenure = tenure(0);
        tenure.take_off();
        assert!(futures::poll!(std::pin::pin!(tenure.drained())).is_pending());
        tenure.land();
        tenure.drained().await;
    }
}
