//! A tap log in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

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
}

#[derive(Default)]
struct State {
    partitions: Vec<Partition>,
    commits: Vec<Commit>,
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
    /// An empty log of `partitions`; `ledger` is what commits are checked against.
    pub fn new(partitions: u32, clock: Arc<dyn Clock>, ledger: FakeLedger) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        let state = State { partitions, commits: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), appended: Arc::new(Notify::new()), clock, ledger }
    }

    /// Appends a report under `key` now.
    pub fn report(&self, key: &CardNumber, value: impl Into<Bytes>) {
        let mut state = locked(&self.state);
        let partitions = u32::try_from(state.partitions.len()).unwrap_or(u32::MAX);
        let place = partition_of(key, partitions) as usize;
        let received = self.clock.now();
        let records = &mut state.partitions[place].records;
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

    /// A new process's connection: it owns every partition.
    pub fn connect(&self, faults: Faults) -> FakeTapLogReader {
        let partitions = locked(&self.state).partitions.len();
        let pending = (0..partitions)
            .map(|partition| TapLogEvent::Assigned {
                partition: u32::try_from(partition).unwrap_or(u32::MAX),
                committed: locked(&self.state).partitions[partition].committed,
            })
            .collect();
        FakeTapLogReader {
            log: self.clone(),
            faults,
            pending,
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
}

/// One process's connection to a [`FakeTapLog`].
pub struct FakeTapLogReader {
    log: FakeTapLog,
    faults: Faults,
    pending: VecDeque<TapLogEvent>,
    positions: BTreeMap<u32, u64>,
    paused: BTreeSet<u32>,
    confirmed_at: Option<Duration>,
}

const CONFIRM_EVERY: Duration = Duration::from_secs(1);

impl FakeTapLogReader {
    fn next_batch(&mut self) -> Option<TapLogEvent> {
        let batch_max = self.faults.draw(1..20) as usize;
        let state = locked(&self.log.state);
        for (partition, position) in &mut self.positions {
            if self.paused.contains(partition) {
                continue;
            }
            let records = &state.partitions[*partition as usize].records;
            let start = usize::try_from(*position).unwrap_or(usize::MAX);
            if start < records.len() {
                let until = (start + batch_max).min(records.len());
                *position = until as u64;
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
            // Nothing is taken before the last await, so that a dropped call loses nothing.
            self.faults.call("tap log", || ()).await?;
            let appended = Arc::clone(&self.log.appended);
            let appended = appended.notified();
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            let now = self.log.clock.monotonic();
            if self.confirmed_at.is_none_or(|at| now.saturating_sub(at) >= CONFIRM_EVERY) {
                self.confirmed_at = Some(now);
                return Ok(TapLogEvent::Confirmed { asked_at: now });
            }
            if let Some(batch) = self.next_batch() {
                return Ok(batch);
            }
            let _woken = tokio::time::timeout(CONFIRM_EVERY, appended).await;
        }
    }

    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError> {
        self.faults
            .call("tap log", || {
                let state = locked(&self.log.state);
                state.partitions[partition as usize]
                    .records
                    .get(offset as usize)
                    .map(|record| record.received)
            })
            .await
    }

    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        let log = self.log.clone();
        let first = self
            .faults
            .call("tap log", || {
                let state = locked(&log.state);
                let records = &state.partitions[partition as usize].records;
                from.map_or(0, |from| records.partition_point(|record| record.received < from)) as u64
            })
            .await?;
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
        self.faults
            .call("tap log", || {
                let ledger_len = self.log.ledger.len();
                let mut state = locked(&self.log.state);
                for (partition, offset) in settled {
                    state.partitions[*partition as usize].committed = Some(*offset);
                    state.commits.push(Commit { partition: *partition, offset: *offset, ledger_len });
                }
            })
            .await
    }
}
