//! Drives the shards: reads the tap log, gives each owned partition to a task of its own, commits what is settled.
//!
//! The one task that owns the log never waits for a shard, a lane or the ledger: a shard that is full has its partition
//! paused, and the others go on. A partition's task reads what the ledger knows, then decides batches and hands notices to
//! the lanes; it waits where a lane is full, and with it only its own partition. Beside it a task settles the partition's
//! receipts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;
use super::pending::{LaneIntakes, Pending};
use super::receipts::{self, ReceiptContext};
use super::recovery::{self, KnownNotices};
use super::rejecting::Rejection;
use super::status::Status;
use super::tasks::{TaskWrap, Tasks};
use super::tenure::Tenure;
use super::vitals::Vitals;
use super::{EngineError, PORT_RETRY};
use crate::ids::LogPosition;
use crate::index::RegistryIndex;
use crate::invariants::{Invariant, Watch, predicates};
use crate::ledger::OwnerToken;
use crate::ports::clock::Clock;
use crate::ports::ledger::Ledger;
use crate::ports::rejected::RejectedRecord;
use crate::ports::tap_log::{TapLog, TapLogEvent, TapRecord};
use crate::shard::{Decisions, Shard};
use crate::tap::{Outcome, RejectReason};
use crate::term::Term;

/// Batches that wait for one shard; then its partition pauses.
const SHARD_QUEUE_BATCHES: usize = 4;
/// How often what is settled is committed, in real time.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// How often a shard whose registry is behind looks again, in real time.
const REGISTRY_CHECK: Duration = Duration::from_millis(20);
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
    /// Another process has this one's seat: the log is not asked for anything.
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
        let former = self.former.entry(partition).or_default();
        former.retain(|tenure| !tenure.is_drained());
        former.clone()
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

    /// Gives everything up when all seats are taken, and comes back with the next seat: partitions of a process that may not
    /// send would wait there until their notices are of no use.
    async fn follow_seat(&mut self) {
        if self.stands_aside {
            self.stands_aside = !self.context.vitals.seat_is_fresh();
        } else if self.context.vitals.has_no_seat() {
            tracing::warn!(
                "other processes have all seats: giving the partitions up until there is one again"
            );
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
        for (partition, owned) in &self.partitions {
            let undecided = owned.tenure.next_undecided();
            self.context.status.set_lag(*partition, owned.end.saturating_sub(undecided));
            self.context
                .status
                .set_uncommitted(*partition, owned.end.max(undecided).saturating_sub(owned.committed));
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

/// Decides one partition's records, in order.
struct ShardTask {
    context: Arc<ShardContext>,
    tenure: Arc<Tenure>,
    shard: Shard,
    /// Records below this offset are folded silently, the others are decided.
    live_from: u64,
    /// This process's former tenures of the partition, as far as they were not drained.
    former: Vec<Arc<Tenure>>,
    /// What the ledger has of notices of records at or above it.
    known: KnownNotices,
    stop: CancellationToken,
}

impl ShardTask {
    async fn run(mut self, mut inbox: mpsc::Receiver<Vec<TapRecord>>) {
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
    fn account_for(
        &mut self,
        records: &[TapRecord],
        decisions: &Decisions,
    ) -> (Vec<Pending>, Vec<Rejection>) {
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
        let read_at = self.context.clock.monotonic();
        for (decision, record) in decisions.taps.iter().zip(records) {
            counts[outcome_place(decision.outcome)] += 1;
            let mut open = 0;
            for routed in decisions.notices_of(decision) {
                let notice = self.shard.notice(decision, routed);
                if self.known.settled.remove(&notice.id) {
                    continue;
                }
                open += 1;
                let in_doubt = self.known.in_doubt.remove(&notice.id);
                let item = Pending::new(notice, routed.start, Arc::clone(&self.tenure), read_at);
                pending.push(if in_doubt { item.in_doubt() } else { item });
            }
            if let Outcome::Rejected(reason) = decision.outcome {
                open += 1;
                rejections.push(self.rejection(record, reason));
            }
            unsettled.push((decision.offset, open));
        }
        self.tenure.decided(last.offset + 1, unsettled);
        self.context.status.count_taps(&counts);
        let unregistered = decisions.taps.iter().filter(|decision| decision.unregistered_reader).count();
        self.context.status.count_unregistered_readers(unregistered as u64);
        (pending, rejections)
    }

    fn rejection(&self, record: &TapRecord, reason: RejectReason) -> Rejection {
        let record = RejectedRecord {
            position: LogPosition { partition: self.tenure.partition(), offset: record.offset },
            received: record.received,
            reason,
            value: record.value.clone(),
        };
        Rejection { record, tenure: Arc::clone(&self.tenure) }
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
    async fn send(&self, pending: Vec<Pending>) -> Result<(), ()> {
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
