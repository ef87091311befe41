//! Drives the shards: reads the tap log, gives each owned partition to a task of its own, commits what is settled.
//!
//! The one task that owns the log never waits for a shard, a lane or the ledger: a shard that is full has its partition
//! paused, and the others go on. Each partition has a task that [decides](super::shard_task) and may wait, with nobody but
//! its own partition; beside it another one settles the partition's receipts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;
use super::pending::LaneIntakes;
use super::receipts::{self, ReceiptContext};
use super::recovery::{self, KnownNotices};
use super::rejecting::Rejection;
use super::shard_task::ShardTask;
use super::status::Status;
use super::tasks::{TaskWrap, Tasks};
use super::tenure::Tenure;
use super::vitals::Vitals;
use super::{EngineError, PORT_RETRY};
use crate::index::RegistryIndex;
use crate::ledger::OwnerToken;
use crate::ports::clock::Clock;
use crate::ports::ledger::Ledger;
use crate::ports::tap_log::{TapLog, TapLogEvent, TapRecord};
use crate::shard::{NamingRoom, Shard};
use crate::term::Term;
use crate::time::Timestamp;

/// Batches that wait for one shard; then its partition pauses.
const SHARD_QUEUE_BATCHES: usize = 4;
/// How often what is settled is committed, in real time.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Wait before a partition that could not be taken over is tried again, in real time.
const TAKE_OVER_RETRY: Duration = Duration::from_secs(2);
/// How long requests of revoked partitions may take to land before these are handed over.
const REVOKE_DRAIN: Duration = Duration::from_secs(1);

/// What a shard's task needs.
pub(crate) struct ShardContext {
    pub(crate) term: Arc<Term>,
    pub(crate) index: Arc<RegistryIndex>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) status: Arc<Status>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) receipts: Arc<ReceiptContext>,
    pub(crate) lanes: LaneIntakes,
    pub(crate) rejections: mpsc::Sender<Rejection>,
    /// A shard has taken a batch: there is room again.
    pub(crate) room: Notify,
}

/// One owned partition, as the log's task sees it.
struct OwnedPartition {
    tenure: Arc<Tenure>,
    batches: mpsc::Sender<Vec<TapRecord>>,
    /// Batches handed out before the pause took effect.
    stash: VecDeque<Vec<TapRecord>>,
    /// The offset that the log has as committed, or the one that this tenure began at.
    committed: u64,
    end: u64,
}

impl OwnedPartition {
    /// What is settled and not committed yet.
    fn uncommitted(&self) -> Option<(u32, u64)> {
        let settled = self.tenure.settled_prefix();
        let is_news = settled != self.committed && self.tenure.may_commit(settled);
        is_news.then(|| (self.tenure.partition(), settled))
    }

    /// For how long the first record waits, by `now`, that the full shard has no room for. How much the log has by then is
    /// not known: the partition is paused.
    fn held_for(&self, now: Timestamp) -> Duration {
        let first = self.stash.front().and_then(|batch| batch.first());
        // What comes before is folded once more, and was decided in its time.
        let undecided = first.filter(|record| record.offset >= self.tenure.next_undecided());
        undecided.map_or(Duration::ZERO, |record| now.since(record.received))
    }
}

/// The task that owns the log. See the module.
pub(crate) struct Dispatcher {
    log: Box<dyn TapLog>,
    context: Arc<ShardContext>,
    partitions: BTreeMap<u32, OwnedPartition>,
    /// Assigned, but the log could not be put where to read from yet; with the committed offset. Those that failed wait
    /// behind the others.
    assigned: VecDeque<(u32, Option<u64>)>,
    /// When those that failed are tried again, on the monotonic clock.
    next_try: Duration,
    /// Partitions whose log is damaged where they are to be read next, and what is wrong.
    damaged: BTreeMap<u32, String>,
    /// Former tenures of this process by partition, of which the ledger may not have everything yet.
    former: BTreeMap<u32, Vec<Arc<Tenure>>>,
    /// There is no seat for this process: the log is not asked for anything.
    stands_aside: bool,
    shards: Tasks,
    settlers: Tasks,
    /// Who claims in the next tenure.
    next_owner: OwnerToken,
}

impl Dispatcher {
    pub(crate) fn new(
        log: Box<dyn TapLog>,
        context: Arc<ShardContext>,
        owner: OwnerToken,
        wrap: Option<&TaskWrap>,
    ) -> Self {
        // Said from the start: a process without a seat owns none for as long as it waits.
        context.status.set_partitions_owned(0);
        Self {
            log,
            context,
            partitions: BTreeMap::new(),
            assigned: VecDeque::new(),
            next_try: Duration::ZERO,
            damaged: BTreeMap::new(),
            former: BTreeMap::new(),
            stands_aside: false,
            shards: Tasks::inside(wrap.cloned()),
            settlers: Tasks::inside(wrap.cloned()),
            next_owner: owner,
        }
    }

    /// Reads until `stop`. Shards stop with it; what they decided stays with the lanes.
    pub(crate) async fn run(&mut self, stop: &CancellationToken) -> Result<(), EngineError> {
        let mut commits = tokio::time::interval(COMMIT_EVERY);
        commits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.shards.join_next(), if !self.shards.is_empty() => {
                    ended.map_err(|cause| EngineError::TaskFailed { task: "shard", cause: cause.to_string() })?;
                }
                Some(ended) = self.settlers.join_next(), if !self.settlers.is_empty() => {
                    ended.map_err(|cause| EngineError::TaskFailed { task: "receipts", cause: cause.to_string() })?;
                }
                _ = commits.tick() => {
                    self.commit_settled().await;
                    self.take_over_assigned(stop).await;
                    self.follow_seat().await;
                }
                () = self.context.room.notified() => self.unstash(),
                event = self.log.next(), if !self.stands_aside => match event {
                    Ok(event) => {
                        self.context.status.recovered("tap log");
                        self.handle(event, stop).await;
                    }
                    Err(cause) => {
                        self.context.status.trouble("tap log", &cause);
                        tokio::time::sleep(PORT_RETRY).await;
                    }
                },
            }
        }
        for owned in self.partitions.values_mut() {
            owned.stash.clear();
        }
        Ok(())
    }

    /// Ends the shards after [`run`](Self::run) has ended: each finishes the batch it is at.
    pub(crate) async fn stop_shards(&mut self) -> Result<(), EngineError> {
        for owned in self.partitions.values_mut() {
            let (closed, _) = mpsc::channel(1);
            owned.batches = closed;
        }
        while let Some(ended) = self.shards.join_next().await {
            ended.map_err(|cause| EngineError::TaskFailed { task: "shard", cause: cause.to_string() })?;
        }
        Ok(())
    }

    async fn handle(&mut self, event: TapLogEvent, stop: &CancellationToken) {
        match event {
            TapLogEvent::Confirmed { asked_at } => self.context.vitals.assignment_confirmed(asked_at),
            TapLogEvent::Assigned { partition, committed } => {
                self.assigned.push_front((partition, committed));
                self.take_over_assigned(stop).await;
            }
            TapLogEvent::Batch { partition, records, end } => {
                self.forget_damage(partition);
                self.hand_on(partition, records, end);
            }
            TapLogEvent::Damaged { partition, cause } => {
                self.damaged.insert(partition, cause.to_string());
                self.tell_damage();
            }
            TapLogEvent::Revoked { partitions } => self.give_up(&partitions).await,
            TapLogEvent::Lost { partitions } => {
                self.end_tenures(&partitions);
                tracing::warn!(?partitions, "lost the partitions, perhaps to another owner");
            }
        }
    }

    fn tell_damage(&self) {
        let causes: Vec<&str> = self.damaged.values().map(String::as_str).collect();
        self.context.status.trouble("tap log damage", &causes.join("; "));
    }

    fn forget_damage(&mut self, partition: u32) {
        if self.damaged.remove(&partition).is_some() && self.damaged.is_empty() {
            self.context.status.recovered("tap log damage");
        }
    }

    /// Begins the tenures of what was assigned, as far as the log can be put where each must be read from. After a failure
    /// the others' turn comes first, and some time: the partitions that are owned must be read meanwhile.
    async fn take_over_assigned(&mut self, stop: &CancellationToken) {
        if self.context.clock.monotonic() < self.next_try {
            return;
        }
        while let Some((partition, committed)) = self.assigned.pop_front() {
            match recovery::seek(&mut *self.log, &self.context, partition, committed).await {
                Ok(live_from) => self.take_over(partition, live_from, stop),
                Err(cause) => {
                    self.context.status.trouble("take-over", &cause);
                    self.assigned.push_back((partition, committed));
                    self.next_try = self.context.clock.monotonic() + TAKE_OVER_RETRY;
                    return;
                }
            }
        }
        self.context.status.recovered("take-over");
    }

    fn take_over(&mut self, partition: u32, live_from: u64, stop: &CancellationToken) {
        let owner = self.next_owner;
        self.next_owner = OwnerToken(owner.0.wrapping_add(1));
        let began_at = self.context.clock.monotonic();
        let watch = Arc::clone(self.context.status.watch());
        let tenure = Arc::new(Tenure::beginning_with(live_from, partition, owner, began_at, watch));
        self.context.holdings.add(&tenure);
        let (batches, inbox) = mpsc::channel(SHARD_QUEUE_BATCHES);
        let shard = Shard::new(
            self.log.name(),
            partition,
            Arc::clone(&self.context.term),
            Arc::clone(&self.context.index),
        );
        let task = ShardTask {
            context: Arc::clone(&self.context),
            tenure: Arc::clone(&tenure),
            shard,
            live_from,
            former: self.still_draining(partition),
            known: KnownNotices::default(),
            naming: NamingRoom::default(),
            stop: stop.clone(),
        };
        self.shards.spawn(task.run(inbox));
        self.settlers.spawn(receipts::run(Arc::clone(&self.context.receipts), Arc::clone(&tenure)));
        let owned = OwnedPartition { tenure, batches, stash: VecDeque::new(), committed: live_from, end: 0 };
        self.partitions.insert(partition, owned);
        self.context.status.set_partitions_owned(self.partitions.len());
        tracing::info!(partition, live_from, "took the partition over");
    }

    fn still_draining(&mut self, partition: u32) -> Vec<Arc<Tenure>> {
        self.forget_drained();
        self.former.get(&partition).cloned().unwrap_or_default()
    }

    fn forget_drained(&mut self) {
        self.former.retain(|_, tenures| {
            tenures.retain(|tenure| !tenure.is_drained());
            !tenures.is_empty()
        });
    }

    fn hand_on(&mut self, partition: u32, records: Vec<TapRecord>, end: u64) {
        let Some(owned) = self.partitions.get_mut(&partition) else {
            // A batch read before the partition went away; its next owner reads it again.
            return;
        };
        owned.end = end;
        if !owned.stash.is_empty() {
            owned.stash.push_back(records);
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(records)) = owned.batches.try_send(records) {
            owned.stash.push_back(records);
            self.log.pause(partition);
        }
    }

    /// Hands on what waited for room, and goes on with partitions that have none left waiting.
    fn unstash(&mut self) {
        for (partition, owned) in &mut self.partitions {
            if owned.stash.is_empty() {
                continue;
            }
            while let Some(records) = owned.stash.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(records)) = owned.batches.try_send(records) {
                    owned.stash.push_front(records);
                    break;
                }
            }
            if owned.stash.is_empty() {
                self.log.resume(*partition);
            }
        }
    }

    /// Takes the partitions away from shards, lanes and receipts; what they were.
    fn end_tenures(&mut self, partitions: &[u32]) -> Vec<OwnedPartition> {
        self.context.holdings.end(partitions);
        for partition in partitions {
            self.forget_damage(*partition);
            self.assigned.retain(|(assigned, _)| assigned != partition);
            self.context.status.forget_partition(*partition);
        }
        let ended: Vec<OwnedPartition> =
            partitions.iter().filter_map(|partition| self.partitions.remove(partition)).collect();
        for owned in &ended {
            self.former.entry(owned.tenure.partition()).or_default().push(Arc::clone(&owned.tenure));
        }
        self.context.status.set_partitions_owned(self.partitions.len());
        ended
    }

    /// Lets what is on the wire land, and commits what is settled, before the partitions are handed over.
    async fn give_up(&mut self, partitions: &[u32]) {
        let ended = self.end_tenures(partitions);
        let drained = join_all(ended.iter().map(|owned| owned.tenure.drained()));
        if tokio::time::timeout(REVOKE_DRAIN, drained).await.is_err() {
            tracing::warn!("requests were still on the wire when their partitions were handed over");
        }
        let settled: Vec<(u32, u64)> = ended.iter().filter_map(OwnedPartition::uncommitted).collect();
        if !settled.is_empty()
            && let Err(cause) = self.log.commit(&settled).await
        {
            tracing::warn!(%cause, "the last commit failed; the next owner reads a little more");
        }
        tracing::info!(?partitions, "handed the partitions over");
    }

    /// Gives everything up when there is no seat for this process, and comes back with the next seat: partitions of a process
    /// that may not send would wait there until their notices are of no use.
    async fn follow_seat(&mut self) {
        if self.stands_aside {
            self.stands_aside = !self.context.vitals.seat_is_fresh();
        } else if self.context.vitals.has_no_seat() {
            tracing::warn!("no seat for this process: giving the partitions up until there is one");
            self.assigned.clear();
            self.give_up(&self.partitions.keys().copied().collect::<Vec<_>>()).await;
            self.log.leave().await;
            self.stands_aside = true;
        }
    }

    /// Commits the settled prefix of each partition, and tells how far each has come; a commit that fails is made again with
    /// the next.
    pub(crate) async fn commit_settled(&mut self) {
        let settled: Vec<(u32, u64)> =
            self.partitions.values().filter_map(OwnedPartition::uncommitted).collect();
        if !settled.is_empty() {
            self.commit(settled).await;
        }
        self.forget_drained();
        let now = self.context.clock.now();
        for (partition, owned) in &self.partitions {
            self.context.status.set_held(*partition, owned.held_for(now));
            let undecided = owned.tenure.next_undecided();
            self.context.status.set_lag(*partition, owned.end.saturating_sub(undecided));
            self.context
                .status
                .set_unsettled(*partition, owned.end.max(undecided).saturating_sub(owned.committed));
        }
    }

    async fn commit(&mut self, settled: Vec<(u32, u64)>) {
        match self.log.commit(&settled).await {
            Ok(()) => {
                for (partition, offset) in settled {
                    if let Some(owned) = self.partitions.get_mut(&partition) {
                        owned.committed = offset;
                    }
                }
                self.context.status.recovered("commit");
            }
            Err(cause) => self.context.status.trouble("commit", &cause),
        }
    }

    /// Ends the settling of receipts and all tenures: the engine stops.
    pub(crate) async fn end_all(&mut self) {
        let partitions: Vec<u32> = self.partitions.keys().copied().collect();
        self.end_tenures(&partitions);
        while self.settlers.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::invariants::Watch;

    #[test]
    fn a_record_that_has_no_room_is_told_by_its_age_unless_it_was_decided_before() {
        let second = |second: i64| Timestamp::from_millis(second * 1_000);
        let record = |offset, received| TapRecord { offset, received: second(received), value: Bytes::new() };
        let (watch, (batches, _)) = (Arc::new(Watch::new()), mpsc::channel(1));
        let tenure = Tenure::beginning_with(7, 0, OwnerToken(1), Duration::ZERO, watch);
        let mut owned = OwnedPartition {
            tenure: Arc::new(tenure),
            batches,
            stash: VecDeque::new(),
            committed: 7,
            end: 9,
        };
        assert_eq!(owned.held_for(second(100)), Duration::ZERO, "everything has room");
        owned.stash.push_back(vec![record(7, 40), record(8, 90)]);
        assert_eq!(owned.held_for(second(100)), Duration::from_secs(60));
        owned.tenure.decided(8, []);
        assert_eq!(owned.held_for(second(100)), Duration::ZERO, "the day is folded once more");
    }
}
