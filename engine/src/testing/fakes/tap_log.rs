//! A tap log in memory, read by a group of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tokio::sync::Notify;

use super::group::{Group, MemberId, News, Tally};
use super::{FakeLedger, Faults, locked};
use crate::ids::CardNumber;
use crate::ports::PortError;
use crate::ports::clock::Clock;
use crate::ports::tap_log::{
    IncomingTap, IntakeError, TapIntake, TapLog, TapLogEvent, TapRecord, partition_of,
};
use crate::time::Timestamp;

/// A commit as it was made, with how long the ledger was then: whether everything below was settled can be checked later.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// The partition.
    pub partition: u32,
    /// Everything below it is said to be settled.
    pub offset: u64,
    /// Entries that the ledger had at that moment.
    pub ledger_len: usize,
}

#[derive(Default)]
struct Partition {
    records: Vec<TapRecord>,
    committed: Option<u64>,
    /// Everything below was handed out to somebody.
    handed_out: u64,
}

/// Partitions that a living owner was asked to hand over.
#[derive(Clone, Debug)]
pub struct Handover {
    /// Which process.
    pub process: Option<u64>,
    /// Which partitions.
    pub partitions: Vec<u32>,
    /// When it was told, on the monotonic clock.
    pub told_at: Duration,
    /// When it had let go; `None`: never.
    pub let_go_at: Option<Duration>,
}

struct State {
    partitions: Vec<Partition>,
    commits: Vec<Commit>,
    group: Group,
    handovers: Vec<Handover>,
    /// What must never happen, in words.
    breaches: Vec<String>,
}

/// What survives a crash.
#[derive(Clone)]
pub struct FakeTapLog {
    state: Arc<Mutex<State>>,
    appended: Arc<Notify>,
    clock: Arc<dyn Clock>,
    ledger: FakeLedger,
}

impl FakeTapLog {
    /// An empty log of `partitions`; `ledger` is what commits are checked against. A reader that has not called in for
    /// `patience` loses its partitions.
    pub fn new(partitions: u32, patience: Duration, clock: Arc<dyn Clock>, ledger: FakeLedger) -> Self {
        let group = Group::new(partitions as usize, patience);
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        let state =
            State { partitions, commits: Vec::new(), group, handovers: Vec::new(), breaches: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), appended: Arc::new(Notify::new()), clock, ledger }
    }

    /// Appends a report under `key` now.
    pub fn report(&self, key: &CardNumber, value: impl Into<Bytes>) {
        let mut state = locked(&self.state);
        let partitions = u32::try_from(state.partitions.len()).unwrap_or(u32::MAX);
        let place = partition_of(key, partitions) as usize;
        let records = &mut state.partitions[place].records;
        // A log's times of receipt never go back.
        let received = records.last().map_or(Timestamp::MIN, |last| last.received).max(self.clock.now());
        records.push(TapRecord { offset: records.len() as u64, received, value: value.into() });
        drop(state);
        self.appended.notify_waiters();
    }

    /// Every record of a partition.
    pub fn records(&self, partition: u32) -> Vec<TapRecord> {
        locked(&self.state).partitions[partition as usize].records.clone()
    }

    /// Every commit, in order.
    pub fn commits(&self) -> Vec<Commit> {
        locked(&self.state).commits.clone()
    }

    /// Whether everything is committed.
    pub fn is_settled(&self) -> bool {
        locked(&self.state)
            .partitions
            .iter()
            .all(|partition| partition.committed.unwrap_or(0) == partition.records.len() as u64)
    }

    fn commit(&self, member: MemberId, settled: &[(u32, u64)]) -> Result<(), PortError> {
        let ledger_len = self.ledger.len();
        let mut state = locked(&self.state);
        if !settled.iter().all(|(partition, _)| state.group.is_owner(member, *partition)) {
            state.group.tally.commits_refused += 1;
            return Err(PortError::new("tap log", "simulated: the partition is another member's"));
        }
        for (partition, offset) in settled {
            state.partitions[*partition as usize].committed = Some(*offset);
            state.commits.push(Commit { partition: *partition, offset: *offset, ledger_len });
        }
        Ok(())
    }

    fn join(&self) -> MemberId {
        let member = locked(&self.state).group.join(self.clock.monotonic());
        self.appended.notify_waiters();
        member
    }

    fn leave(&self, member: MemberId) {
        locked(&self.state).group.leave(member);
        self.appended.notify_waiters();
    }

    /// Partitions that no reader has.
    pub fn unowned(&self) -> usize {
        locked(&self.state).group.unowned()
    }

    /// Moves partitions among the readers, as drawn from `seed`.
    pub fn rebalance(&self, seed: u64) {
        locked(&self.state).group.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        self.appended.notify_waiters();
    }

    /// What the group of readers went through.
    pub fn tally(&self) -> Tally {
        locked(&self.state).group.tally
    }

    /// Records whose notices are not all settled, by what is committed.
    pub fn uncommitted(&self) -> u64 {
        let state = locked(&self.state);
        let open = |partition: &Partition| partition.records.len() as u64 - partition.committed.unwrap_or(0);
        state.partitions.iter().map(open).sum()
    }

    /// Every handing over by an owner that was told to, in order.
    pub fn handovers(&self) -> Vec<Handover> {
        locked(&self.state).handovers.clone()
    }

    /// What readers did and must never do, in words.
    pub fn breaches(&self) -> Vec<String> {
        locked(&self.state).breaches.clone()
    }

    /// A new process's connection: it joins the group of readers when it first asks for an event.
    pub fn connect(&self, faults: Faults) -> FakeTapLogReader {
        FakeTapLogReader {
            log: self.clone(),
            faults,
            member: None,
            owned: BTreeSet::new(),
            handing_over: Vec::new(),
            handover: None,
            learns_of_loss_at: None,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            confirmed_at: None,
        }
    }
}

#[async_trait]
impl TapIntake for FakeTapLog {
    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        for tap in taps {
            self.report(&tap.card, tap.value);
        }
        Ok(())
    }

    fn waiting_taps(&self) -> usize {
        0
    }
}

/// One process's connection to a [`FakeTapLog`]. One that is dropped leaves the group, unless its process has crashed.
pub struct FakeTapLogReader {
    log: FakeTapLog,
    faults: Faults,
    /// `None`: not in the group, or not any more.
    member: Option<MemberId>,
    /// What the process was told that it owns.
    owned: BTreeSet<u32>,
    /// What it was told to give up, until it calls in again.
    handing_over: Vec<u32>,
    /// Its place among all handovers.
    handover: Option<usize>,
    /// When the process will hear that it is no member any more; until then it is handed records as before.
    learns_of_loss_at: Option<Duration>,
    positions: BTreeMap<u32, u64>,
    paused: BTreeSet<u32>,
    confirmed_at: Option<Duration>,
}

const PORT: &str = "tap log";
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the group to hear a good-bye.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// Longest time after which a process that comes back hears that it lost its partitions.
const LOSS_HEARD_AFTER_MS: u64 = 3000;

impl Drop for FakeTapLogReader {
    fn drop(&mut self) {
        if let Some(member) = self.member
            && !self.faults.has_crashed()
        {
            self.log.leave(member);
        }
    }
}

impl FakeTapLogReader {
    /// Says that this process lives, and that it has let go of what it was told to; whether it is still a member.
    fn call_in(&mut self, member: MemberId) -> bool {
        let handed_over = std::mem::take(&mut self.handing_over);
        let now = self.log.clock.monotonic();
        let mut state = locked(&self.log.state);
        let is_member = state.group.call_in(member, now, &handed_over);
        if let Some(handover) = self.handover.take().and_then(|place| state.handovers.get_mut(place)) {
            handover.let_go_at = Some(now);
        }
        drop(state);
        if !handed_over.is_empty() {
            self.faults.note(|| format!("has handed over {handed_over:?}"));
            self.log.appended.notify_waiters();
        }
        is_member
    }

    /// What the group has to say to a member.
    fn group_news(&mut self, member: MemberId) -> Option<TapLogEvent> {
        let news = locked(&self.log.state).group.news_for(member)?;
        match news {
            News::Assigned(partition) => {
                self.owned.insert(partition);
                self.faults.note(|| format!("is assigned partition {partition}"));
                let committed = locked(&self.log.state).partitions[partition as usize].committed;
                Some(TapLogEvent::Assigned { partition, committed })
            }
            News::Revoked(partitions) => {
                for partition in &partitions {
                    self.owned.remove(partition);
                    self.forget(*partition);
                }
                self.handing_over.clone_from(&partitions);
                self.faults.note(|| format!("is asked to hand over {partitions:?}"));
                let mut state = locked(&self.log.state);
                self.handover = Some(state.handovers.len());
                state.handovers.push(Handover {
                    process: self.faults.process,
                    partitions: partitions.clone(),
                    told_at: self.log.clock.monotonic(),
                    let_go_at: None,
                });
                drop(state);
                Some(TapLogEvent::Revoked { partitions })
            }
        }
    }

    /// The process hears that it is no member any more, and joins again.
    fn lose_all(&mut self) -> TapLogEvent {
        let partitions = self.forget_all();
        if !partitions.is_empty() {
            self.faults.journal.reached("partitions lost while in hand");
        }
        self.member = Some(self.log.join());
        TapLogEvent::Lost { partitions }
    }

    /// Forgets what it owns, which it returns.
    fn forget_all(&mut self) -> Vec<u32> {
        self.learns_of_loss_at = None;
        self.confirmed_at = None;
        self.handing_over.clear();
        self.handover = None;
        let partitions: Vec<u32> = std::mem::take(&mut self.owned).into_iter().collect();
        partitions.iter().for_each(|partition| self.forget(*partition));
        self.faults.note(|| format!("no longer owns {partitions:?}"));
        partitions
    }

    fn forget(&mut self, partition: u32) {
        self.positions.remove(&partition);
        self.paused.remove(&partition);
    }

    fn next_batch(&mut self) -> Option<TapLogEvent> {
        let batch_max = self.faults.draw(1..20) as usize;
        let mut state = locked(&self.log.state);
        for (partition, position) in &mut self.positions {
            if self.paused.contains(partition) {
                continue;
            }
            let Partition { records, committed, handed_out } = &mut state.partitions[*partition as usize];
            let start = usize::try_from(*position).unwrap_or(usize::MAX);
            if start < records.len() {
                let until = (start + batch_max).min(records.len());
                if *position < *handed_out {
                    self.faults.journal.reached("records read again");
                }
                if *position < committed.unwrap_or(0) {
                    self.faults.journal.reached("records folded");
                }
                *position = until as u64;
                *handed_out = (*handed_out).max(*position);
                return Some(TapLogEvent::Batch {
                    partition: *partition,
                    records: records[start..until].to_vec(),
                    end: records.len() as u64,
                });
            }
        }
        None
    }
}

#[async_trait]
impl TapLog for FakeTapLogReader {
    fn name(&self) -> &str {
        "fake"
    }

    async fn next(&mut self) -> Result<TapLogEvent, PortError> {
        loop {
            self.faults.heard(PORT).await;
            let asked_at = self.log.clock.monotonic();
            let member = *self.member.get_or_insert_with(|| self.log.join());
            let is_member = self.call_in(member);
            // Nothing is taken before the last await, so that a dropped call loses nothing.
            self.faults.call(PORT, || ()).await?;
            let appended = Arc::clone(&self.log.appended);
            let appended = appended.notified();
            let now = self.log.clock.monotonic();
            if is_member {
                if let Some(event) = self.group_news(member) {
                    return Ok(event);
                }
                if self.confirmed_at.is_none_or(|at| now.saturating_sub(at) >= CONFIRM_EVERY) {
                    self.confirmed_at = Some(now);
                    return Ok(TapLogEvent::Confirmed { asked_at });
                }
            } else {
                let late = || now + Duration::from_millis(self.faults.draw(0..LOSS_HEARD_AFTER_MS));
                if *self.learns_of_loss_at.get_or_insert_with(late) <= now {
                    return Ok(self.lose_all());
                }
            }
            if let Some(batch) = self.next_batch() {
                return Ok(batch);
            }
            let _woken = tokio::time::timeout(CONFIRM_EVERY, appended).await;
        }
    }

    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError> {
        let log = self.log.clone();
        self.faults
            .call(PORT, move || {
                let state = locked(&log.state);
                state.partitions[partition as usize]
                    .records
                    .get(offset as usize)
                    .map(|record| record.received)
            })
            .await
    }

    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        let log = self.log.clone();
        let yesterday = self.log.clock.now().minus(Duration::from_secs(24 * 3600));
        if from.is_some_and(|from| from <= yesterday) {
            self.faults.journal.reached("recovered from the midnight of a day before");
        }
        let first = self
            .faults
            .call(PORT, move || {
                let state = locked(&log.state);
                let records = &state.partitions[partition as usize].records;
                from.map_or(0, |from| records.partition_point(|record| record.received < from)) as u64
            })
            .await?;
        self.faults.note(|| format!("reads partition {partition} from {first} on"));
        self.positions.insert(partition, first);
        Ok(first)
    }

    fn pause(&mut self, partition: u32) {
        self.paused.insert(partition);
    }

    fn resume(&mut self, partition: u32) {
        self.paused.remove(&partition);
    }

    async fn commit(&mut self, settled: &[(u32, u64)]) -> Result<(), PortError> {
        for (partition, offset) in settled {
            if !self.owned.contains(partition) && !self.handing_over.contains(partition) {
                let breach = format!(
                    "T3: {offset} of {partition} committed by who had been told that it is not the owner"
                );
                locked(&self.log.state).breaches.push(breach);
            }
        }
        self.faults.heard(PORT).await;
        let Some(member) = self.member else {
            return Err(PortError::new(PORT, "who is no member commits nothing"));
        };
        let (log, settled) = (self.log.clone(), settled.to_vec());
        let of = settled.clone();
        let outcome = self.faults.call(PORT, move || log.commit(member, &settled)).await;
        let outcome = outcome.and_then(|committed| committed);
        self.faults.note(|| match &outcome {
            Ok(()) => format!("commits {of:?}"),
            Err(cause) => format!("cannot commit {of:?}: {cause}"),
        });
        outcome
    }

    async fn leave(&mut self) {
        self.forget_all();
        let Some(member) = self.member.take() else { return };
        if tokio::time::timeout(LEAVE_MAX, self.faults.heard(PORT)).await.is_err() {
            return;
        }
        let log = self.log.clone();
        // A good-bye that nobody hears: the group notices the silence.
        let _heard = self.faults.call(PORT, move || log.leave(member)).await;
    }
}
