//! Decides one partition's records, in order, and hands their notices on.
//!
//! A task of its own for each tenure: it reads what the ledger knows, folds today's earlier records silently, then decides
//! batch after batch as far as the registry covers them. Promises one outcome for each record (T1) and none for a record that
//! has one (T2); counts it, opens its notices in the tenure, and waits where a lane or the rejected log is full. Which
//! partitions there are, and what is committed, is its owner's business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::pending::Pending;
use super::recovery::{self, KnownNotices};
use super::rejecting::Rejection;
use super::shards::ShardContext;
use super::tenure::Tenure;
use crate::ids::LogPosition;
use crate::invariants::{Invariant, Watch, predicates};
use crate::ports::rejected::RejectedRecord;
use crate::ports::tap_log::TapRecord;
use crate::shard::{Decisions, NamingRoom, Shard};
use crate::tap::{Outcome, RejectReason};

/// How often a shard whose registry is behind looks again, in real time.
const REGISTRY_CHECK: Duration = Duration::from_millis(20);

/// See the module.
pub(crate) struct ShardTask {
    pub(crate) context: Arc<ShardContext>,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) shard: Shard,
    /// Records below this offset are folded silently, the others are decided.
    pub(crate) live_from: u64,
    /// This process's former tenures of the partition, as far as they were not drained.
    pub(crate) former: Vec<Arc<Tenure>>,
    /// What the ledger has of notices of records at or above it.
    pub(crate) known: KnownNotices,
    pub(crate) naming: NamingRoom,
    pub(crate) stop: CancellationToken,
}

impl ShardTask {
    /// Works until the tenure is over or the engine stops.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Vec<TapRecord>>) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            () = self.tenure.over() => return,
            known = self.recover() => self.known = known,
        }
        let mut decisions = Decisions::default();
        while let Some(records) = inbox.recv().await {
            self.context.room.notify_one();
            if self.tenure.has_ended() || self.stop.is_cancelled() {
                return;
            }
            if self.registry_covers(&records).await.is_err() {
                return;
            }
            let live = records.partition_point(|record| record.offset < self.live_from);
            let (folded, decided) = records.split_at(live);
            decisions.clear();
            self.shard.decide(folded, &mut decisions);
            if decided.is_empty() {
                continue;
            }
            decisions.clear();
            self.shard.decide(decided, &mut decisions);
            let (pending, rejections) = self.account_for(decided, &decisions);
            if self.reject(rejections).await.is_err() || self.send(pending).await.is_err() {
                return;
            }
        }
    }

    /// What the ledger has, once it also has what this process was still sending when it lost the partition.
    async fn recover(&self) -> KnownNotices {
        join_all(self.former.iter().map(|tenure| tenure.drained())).await;
        recovery::known_from(&self.context, self.tenure.partition(), self.live_from).await
    }

    /// Waits until the index has every change that counts for `records`. `Err` when the tenure ends or the engine stops
    /// meanwhile.
    async fn registry_covers(&self, records: &[TapRecord]) -> Result<(), ()> {
        let Some(last_received) = records.iter().map(|record| record.received).max() else { return Ok(()) };
        while !self.context.vitals.registry_covers(last_received) {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(()),
                () = self.tenure.over() => return Err(()),
                () = tokio::time::sleep(REGISTRY_CHECK) => {}
            }
        }
        Ok(())
    }

    /// Counts outcomes, opens the notices in the tenure, and returns what goes to the lanes and to the rejected log.
    #[expect(clippy::vec_box, reason = "they stay in their boxes all the way through a lane")]
    fn account_for(
        &mut self,
        records: &[TapRecord],
        decisions: &Decisions,
    ) -> (Vec<Box<Pending>>, Vec<Rejection>) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Default::default() };
        let partition = self.tenure.partition();
        let read = records.iter().map(|record| record.offset);
        let decided = decisions.taps.iter().map(|decision| decision.offset);
        let position = LogPosition { partition, offset: first.offset };
        watch_decisions(self.context.status.watch(), position, self.tenure.next_undecided(), read, decided);
        let mut counts = [0u64; Outcome::ALL.len()];
        let mut pending = Vec::with_capacity(decisions.notices.len());
        let mut rejections = Vec::new();
        let mut unsettled: Vec<(u64, u32)> = Vec::new();
        let mut notices = self.shard.notices(decisions, &mut self.naming);
        for (decision, record) in decisions.taps.iter().zip(records) {
            counts[outcome_place(decision.outcome)] += 1;
            let mut open = 0;
            for (routed, (notice, refs)) in decisions.notices_of(decision).iter().zip(notices.by_ref()) {
                if self.known.take_settled(&notice.id) {
                    continue;
                }
                open += 1;
                // Its predecessor may have sent it: until its claim is taken over, nobody knows.
                let in_doubt = self.known.take_in_doubt(&notice.id);
                let mut item = Pending::new((notice, refs), routed.start, Arc::clone(&self.tenure));
                item.in_doubt = in_doubt;
                pending.push(item);
            }
            if let Outcome::Rejected(reason) = decision.outcome {
                open += 1;
                rejections.push(rejection(record, reason, &self.tenure));
            }
            unsettled.push((decision.offset, open));
        }
        self.tenure.decided(last.offset + 1, unsettled);
        self.context.status.count_taps(&counts);
        let unregistered = decisions.taps.iter().filter(|decision| decision.unregistered_reader).count();
        self.context.status.count_unregistered_readers(unregistered as u64);
        (pending, rejections)
    }

    /// Sends records to the rejected log, waiting where its queue is full. `Err` when the tenure ends or the engine stops
    /// meanwhile: what is left is read again.
    async fn reject(&self, rejections: Vec<Rejection>) -> Result<(), ()> {
        for rejection in rejections {
            tokio::select! {
                biased;
                sent = self.context.rejections.send(rejection) => sent.map_err(|_| ())?,
                () = self.stop.cancelled() => return Err(()),
                () = self.tenure.over() => return Err(()),
            }
        }
        Ok(())
    }

    /// Hands notices to their lanes, waiting where one is full. `Err` when the tenure ends or the engine stops meanwhile:
    /// what is left is read again.
    #[expect(clippy::vec_box, reason = "they stay in their boxes all the way through a lane")]
    async fn send(&self, pending: Vec<Box<Pending>>) -> Result<(), ()> {
        for item in pending {
            let intake = self.context.lanes.of(item.notice.channel);
            match intake.try_send(item) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(item)) => {
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return Err(()),
                        () = self.tenure.over() => return Err(()),
                        sent = intake.send(item) => sent.map_err(|_| ())?,
                    }
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(()),
            }
        }
        Ok(())
    }
}

fn rejection(record: &TapRecord, reason: RejectReason, tenure: &Arc<Tenure>) -> Rejection {
    let record = RejectedRecord {
        position: LogPosition { partition: tenure.partition(), offset: record.offset },
        received: record.received,
        reason,
        value: kept(&record.value),
    };
    Rejection { record, tenure: Arc::clone(tenure) }
}

/// So much of a rejected record is kept, in bytes. One that is longer is oversize, of use to nobody as a whole, and could be
/// more than the rejected log takes; it stays in the tap log for as long as the taps do.
const KEPT_LEN_MAX: usize = 64 * 1024;

fn kept(value: &Bytes) -> Bytes {
    match value.get(..KEPT_LEN_MAX) {
        // A copy, so that the rest need not wait with it.
        Some(kept) => Bytes::copy_from_slice(kept),
        None => value.clone(),
    }
}

/// What must hold of a batch that was decided: one decision for each record read (T1), none of them for a record below
/// `next_undecided` (T2).
fn watch_decisions(
    watch: &Watch,
    position: LogPosition,
    next_undecided: u64,
    read: impl Iterator<Item = u64>,
    decided: impl Iterator<Item = u64> + Clone,
) {
    watch.check(Invariant::T1, predicates::one_outcome_each(read, decided.clone()), position);
    watch.check(Invariant::T2, predicates::nothing_decided_again(next_undecided, decided), position);
}

fn outcome_place(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|known| *known == outcome).expect("ALL names every outcome")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_rejected_record_no_more_is_kept_than_any_rejected_log_takes() {
        for (len, kept_len) in
            [(0, 0), (5_000, 5_000), (KEPT_LEN_MAX, KEPT_LEN_MAX), (1_048_576, KEPT_LEN_MAX)]
        {
            let value = Bytes::from_iter((0..=u8::MAX).cycle().take(len));
            assert_eq!(kept(&value), value[..kept_len], "{len} bytes");
        }
    }

    #[test]
    fn a_record_left_out_and_a_record_decided_again_are_counted() {
        let position = LogPosition { partition: 1, offset: 7 };
        for (read, decided, broken) in [
            (&[7, 8, 9][..], &[7, 8, 9][..], None),
            (&[7, 8, 9], &[7, 9], Some(Invariant::T1)),
            (&[6, 7], &[6, 7], Some(Invariant::T2)),
        ] {
            let watch = Watch::new();
            watch_decisions(&watch, position, 7, read.iter().copied(), decided.iter().copied());
            assert_eq!(watch.violations().first().map(|seen| seen.invariant), broken, "{read:?} {decided:?}");
        }
    }
}
