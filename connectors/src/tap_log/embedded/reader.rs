//! The reading side of the embedded log.
//!
//! One batch is always being read ahead on a blocking thread while the engine decides the one before; partitions take
//! turns. An append wakes the reader through the writer's count of commits, so there is no polling. The one timer is the
//! confirmation, which also gives the writer its next small step of forgetting, and after which a damaged partition is looked
//! at again: it goes on by itself once an operator has set the damaged record aside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{TapLog, TapLogEvent};
use gatebell_engine::time::Timestamp;
use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::rows::{self, Stretch};
use super::{PORT, Shared, TapLogSettings};

/// The port's contract asks for a confirmation every second; a second of it is left to a busy machine.
const CONFIRM_EVERY_MS: u64 = 500;
/// Taps forgotten in one step: few enough that appends do not notice.
const FORGET_TAPS_MAX: u64 = 2_000;

/// Reads the log. It owns every partition as soon as it is asked for events.
#[derive(Debug)]
pub struct EmbeddedTapLog {
    pub(super) shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    batch_taps_max: usize,
    batch_bytes_max: usize,
    keep: Option<Duration>,
    /// Not yet told to the engine. `None`: nobody has asked for an event since the log was opened or left.
    assignments: Option<VecDeque<TapLogEvent>>,
    partitions: Vec<Partition>,
    /// Whose turn it is to be read.
    turn: usize,
    reading: Option<Reading>,
    /// After an error: nothing is read before the next confirmation.
    resting: bool,
    commits: watch::Receiver<u64>,
    confirmation: Option<Interval>,
    forget_next: u32,
}

/// Where the reader is in one partition.
#[derive(Debug)]
struct Partition {
    number: u32,
    /// The offset to be read next; `None` until the first rewind.
    next: Option<u64>,
    paused: bool,
    /// Everything that was there at the last look has been read.
    drained: bool,
    /// What lies next is damaged: not looked at again before the next confirmation.
    damaged: bool,
}

impl Partition {
    fn not_rewound(number: u32) -> Self {
        Self { number, next: None, paused: false, drained: false, damaged: false }
    }

    fn to_be_read(&self) -> Option<u64> {
        if self.paused || self.drained || self.damaged { None } else { self.next }
    }
}

/// A batch being read ahead.
#[derive(Debug)]
struct Reading {
    partition: u32,
    offset: u64,
    task: JoinHandle<Result<Read, PortError>>,
}

/// What a look at the log gave.
#[derive(Debug)]
enum Read {
    Stretch(Stretch),
    Damaged(PortError),
}

impl EmbeddedTapLog {
    pub(super) fn new(shared: Arc<Shared>, settings: &TapLogSettings, clock: Arc<dyn Clock>) -> Self {
        let partitions = (0..shared.identity.partitions).map(Partition::not_rewound).collect();
        let commits = shared.writer.commits();
        Self {
            shared,
            clock,
            batch_taps_max: settings.batch_taps_max.max(1),
            batch_bytes_max: settings.batch_bytes_max.max(1),
            keep: settings.keep,
            assignments: None,
            partitions,
            turn: 0,
            reading: None,
            resting: false,
            commits,
            confirmation: None,
            forget_next: 0,
        }
    }

    /// The next assignment that the engine was not told of yet.
    async fn next_assignment(&mut self) -> Result<Option<TapLogEvent>, PortError> {
        if let Some(assignments) = &mut self.assignments {
            return Ok(assignments.pop_front());
        }
        let partitions = self.shared.identity.partitions;
        let shared = Arc::clone(&self.shared);
        let committed = self
            .shared
            .read(move |connection| {
                let of = |partition| Ok((partition, committed(connection, &shared, partition)?));
                (0..partitions).map(of).collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        let assigned = |(partition, committed)| TapLogEvent::Assigned { partition, committed };
        let assignments = self.assignments.insert(committed.into_iter().map(assigned).collect());
        Ok(assignments.pop_front())
    }

    fn partition(&mut self, number: u32) -> Result<&mut Partition, PortError> {
        self.partitions
            .iter_mut()
            .find(|partition| partition.number == number)
            .ok_or_else(|| PortError::new(PORT, format_args!("there is no partition {number}")))
    }

    /// Starts reading ahead for the next partition that may have records, unless that is underway.
    fn read_ahead(&mut self) {
        if self.reading.is_some() || self.resting {
            return;
        }
        let count = self.partitions.len();
        for step in 0..count {
            let turn = (self.turn + step) % count;
            let Some(partition) = self.partitions.get(turn) else { return };
            let Some(offset) = partition.to_be_read() else { continue };
            let number = partition.number;
            let (taps_max, bytes_max) = (self.batch_taps_max, self.batch_bytes_max);
            let shared = Arc::clone(&self.shared);
            let task = tokio::task::spawn_blocking(move || {
                shared.readers.read_blocking(|connection| {
                    match rows::read(connection, number, offset, taps_max, bytes_max) {
                        Err(error) if rows::is_damage(&error) => Ok(Read::Damaged(shared.file.error(&error))),
                        read => read.map(Read::Stretch),
                    }
                })
            });
            self.reading = Some(Reading { partition: number, offset, task });
            self.turn = (turn + 1) % count;
            return;
        }
    }

    /// Takes what was read ahead, unless the partition was put elsewhere or paused meanwhile.
    fn take(&mut self, reading: &Reading, read: Read) -> Result<Option<TapLogEvent>, PortError> {
        let partition = self.partition(reading.partition)?;
        if partition.to_be_read() != Some(reading.offset) {
            return Ok(None);
        }
        let stretch = match read {
            Read::Stretch(stretch) => stretch,
            Read::Damaged(cause) => {
                partition.damaged = true;
                return Ok(Some(TapLogEvent::Damaged { partition: partition.number, cause }));
            }
        };
        let Some(last) = stretch.records.last() else {
            partition.drained = true;
            return Ok(None);
        };
        partition.next = Some(last.offset + 1);
        partition.drained = last.offset + 1 == stretch.end;
        let (number, Stretch { records, end }) = (partition.number, stretch);
        Ok(Some(TapLogEvent::Batch { partition: number, records, end }))
    }

    /// Lets the writer forget a few settled taps of one partition, if it has room; nobody waits for it.
    fn forget_a_little(&mut self) {
        let Some(keep) = self.keep else { return };
        let before = self.clock.now().minus(keep);
        let partition = self.forget_next;
        self.forget_next = (partition + 1) % self.shared.identity.partitions;
        let queued = self
            .shared
            .writer
            .try_write(move |connection| rows::forget_before(connection, partition, before, FORGET_TAPS_MAX));
        // A busy writer forgets another time; an error shows with the next append.
        drop(queued);
    }
}

#[async_trait]
impl TapLog for EmbeddedTapLog {
    fn name(&self) -> &str {
        &self.shared.identity.name
    }

    async fn next(&mut self) -> Result<TapLogEvent, PortError> {
        if let Some(assigned) = self.next_assignment().await? {
            return Ok(assigned);
        }
        loop {
            self.read_ahead();
            let confirmation = self.confirmation.get_or_insert_with(confirmations);
            let reading = async {
                match self.reading.as_mut() {
                    Some(reading) => (&mut reading.task).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = confirmation.tick() => {
                    self.resting = false;
                    for partition in &mut self.partitions {
                        partition.damaged = false;
                    }
                    self.forget_a_little();
                    return Ok(TapLogEvent::Confirmed { asked_at: self.clock.monotonic() });
                }
                read = reading => {
                    let Some(reading) = self.reading.take() else { continue };
                    let read = read.unwrap_or_else(|error| {
                        Err(PortError::new(PORT, format_args!("a read was broken off: {error}")))
                    });
                    self.resting = read.is_err();
                    if let Some(batch) = self.take(&reading, read?)? {
                        self.read_ahead();
                        return Ok(batch);
                    }
                }
                changed = self.commits.changed() => {
                    changed.map_err(|_| PortError::new(PORT, "the writer thread has ended"))?;
                    for partition in &mut self.partitions {
                        partition.drained = false;
                    }
                }
            }
        }
    }

    async fn received_at(&mut self, partition: u32, offset: u64) -> Result<Option<Timestamp>, PortError> {
        self.partition(partition)?;
        self.shared.read(move |connection| rows::sound_receipt_from(connection, partition, offset)).await
    }

    async fn rewind(&mut self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        self.partition(partition)?;
        let offset = self.shared.read(move |connection| rows::seek(connection, partition, from)).await?;
        let partition = self.partition(partition)?;
        partition.next = Some(offset);
        partition.drained = false;
        Ok(offset)
    }

    fn pause(&mut self, partition: u32) {
        if let Ok(partition) = self.partition(partition) {
            partition.paused = true;
        }
    }

    fn resume(&mut self, partition: u32) {
        if let Ok(partition) = self.partition(partition) {
            partition.paused = false;
        }
    }

    async fn commit(&mut self, settled: &[(u32, u64)]) -> Result<(), PortError> {
        for (partition, _) in settled {
            self.partition(*partition)?;
        }
        let settled = settled.to_vec();
        self.shared
            .writer
            .write(move |connection| {
                settled
                    .iter()
                    .try_for_each(|(partition, offset)| rows::commit(connection, *partition, *offset))
            })
            .await
    }

    async fn leave(&mut self) {
        self.assignments = None;
        self.reading = None;
        for partition in &mut self.partitions {
            *partition = Partition::not_rewound(partition.number);
        }
    }
}

/// The committed offset; none where it is damaged: then the partition is read from its earliest record, and what the ledger
/// knows is not told again.
fn committed(connection: &Connection, shared: &Shared, partition: u32) -> rusqlite::Result<Option<u64>> {
    match rows::committed(connection, partition) {
        Err(error) if rows::is_damage(&error) => {
            let why = shared.file.error(&error);
            tracing::error!(partition, %why, "the partition is read again from its earliest record");
            Ok(None)
        }
        committed => committed,
    }
}

fn confirmations() -> Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(CONFIRM_EVERY_MS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
