//! One process's time as the owner of one partition: what has been decided and what is settled.
//!
//! Owns the answer to "up to where may be committed" (T3). Shared by the shard that decides and the lanes that settle; its
//! lock is held for a few instructions and never across an await.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::unsettled::Unsettled;
use crate::ids::LogPosition;
use crate::invariants::{Invariant, Watch, predicates};
use crate::ledger::OwnerToken;

#[derive(Debug)]
struct Progress {
    /// The first offset that is not decided yet.
    decided: u64,
    /// Offsets with notices that are not settled.
    unsettled: Unsettled,
    /// Notices ever opened, and how many of them are settled: an account that `unsettled` must agree with.
    opened: u64,
    settled: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tenure {
    partition: u32,
    owner: OwnerToken,
    /// On the monotonic clock.
    began_at: Duration,
    over: CancellationToken,
    watch: Arc<Watch>,
    progress: Mutex<Progress>,
    /// Requests of this partition on the wire, and ends of its notices that the ledger does not have yet.
    in_flight: AtomicUsize,
    landed: Notify,
}

impl Tenure {
    /// Of `owner`, since `began_at`: begins with `next`, the first offset to be decided; everything below is settled.
    pub(crate) fn beginning_with(
        next: u64,
        partition: u32,
        owner: OwnerToken,
        began_at: Duration,
        watch: Arc<Watch>,
    ) -> Self {
        Self {
            partition,
            owner,
            began_at,
            over: CancellationToken::new(),
            watch,
            progress: Mutex::new(Progress {
                decided: next,
                unsettled: Unsettled::default(),
                opened: 0,
                settled: 0,
            }),
            in_flight: AtomicUsize::new(0),
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
            progress.opened += u64::from(notices);
            progress.unsettled.open(offset, notices);
        }
        progress.decided = progress.decided.max(next);
    }

    /// One notice of the record at `offset` is settled.
    pub(crate) fn settle(&self, offset: u64) {
        let mut progress = self.progress();
        let known = progress.unsettled.settle(offset);
        progress.settled += u64::from(known);
        drop(progress);
        self.watch.check(Invariant::N1, known, LogPosition { partition: self.partition, offset });
    }

    /// Everything below this offset is settled: what may be committed.
    pub(crate) fn settled_prefix(&self) -> u64 {
        let progress = self.progress();
        progress.unsettled.first().unwrap_or(progress.decided)
    }

    /// Whether everything below `offset` is settled for all that this tenure knows, asked before it is committed (T3).
    pub(crate) fn may_commit(&self, offset: u64) -> bool {
        let progress = self.progress();
        // In the order of the offsets: the first says it for all.
        let first_unsettled = progress.unsettled.first();
        let is_settled = offset <= progress.decided
            && predicates::nothing_unsettled_below(offset, first_unsettled)
            && predicates::accounts_agree(progress.opened, progress.settled, progress.unsettled.offsets());
        drop(progress);
        self.watch.check(Invariant::T3, is_settled, LogPosition { partition: self.partition, offset })
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

    /// A request leaves, or an end waits for the ledger.
    pub(crate) fn take_off(&self) {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// A request is answered and recorded, and what that settles is settled.
    pub(crate) fn land(&self) {
        let lands = |in_flight: usize| in_flight.checked_sub(1);
        let before = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lands);
        if before.is_ok_and(|before| before == 1) {
            self.landed.notify_waiters();
        }
    }

    /// Whether nothing of this partition is on the wire, and the ledger has what came of it.
    pub(crate) fn is_drained(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Waits until it [is drained](Self::is_drained).
    pub(crate) async fn drained(&self) {
        loop {
            let landed = self.landed.notified();
            if self.is_drained() {
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
        Tenure::beginning_with(next, 0, OwnerToken(1), Duration::ZERO, Arc::new(Watch::new()))
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

    #[test]
    fn an_offset_is_not_committed_above_what_is_open_and_the_breach_is_counted() {
        let tenure = tenure(10);
        tenure.decided(15, [(11, 2)]);
        assert!(tenure.may_commit(11) && tenure.watch.violations().is_empty());
        assert!(!tenure.may_commit(12), "a notice at 11 is open");
        assert!(!tenure.may_commit(16), "15 is not decided");
        tenure.settle(11);
        tenure.settle(11);
        assert!(tenure.may_commit(15));
        // A notice that was opened and is listed nowhere.
        tenure.progress().opened += 1;
        assert!(!tenure.may_commit(15));
        let [seen] = tenure.watch.violations().try_into().expect("one invariant at one place");
        assert_eq!((seen.invariant, seen.first.offset, seen.count), (Invariant::T3, 12, 3));
    }

    #[test]
    fn a_notice_that_is_settled_twice_is_counted() {
        let tenure = tenure(10);
        tenure.decided(12, [(11, 1)]);
        tenure.settle(11);
        assert!(tenure.watch.violations().is_empty());
        tenure.settle(11);
        let [seen] = tenure.watch.violations().try_into().expect("one invariant at one place");
        assert_eq!((seen.invariant, seen.first.offset, seen.count), (Invariant::N1, 11, 1));
        assert!(tenure.may_commit(12), "the second time changes nothing");
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
