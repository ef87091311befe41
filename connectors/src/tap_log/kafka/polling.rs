//! The thread that polls Kafka.
//!
//! It never waits for the engine, the store or a look-up, so that the group always finds it alive: it reads what has been
//! fetched for partitions that have room, and makes the changes of assignment that librdkafka asks for. A revocation is
//! answered once the engine has come back, or after [`REVOCATION_MAX`], and a moment later where a commit is still under
//! way; until then librdkafka's own threads keep up the heartbeats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::tap_log::TapRecord;
use gatebell_engine::time::Timestamp;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::oneshot;

use super::PORT;
use super::handover::Handover;
use super::member::{Member, Rebalance, in_protocol, list, numbers};
use super::partition_queue::PartitionQueue;
use super::placement::Placement;
use super::settled::Settled;
use super::waker::Waker;

/// Records in one batch.
const BATCH_TAPS_MAX: usize = 2_048;
/// The longest wait for anything: whatever wakes the thread may, by bad luck, have come just before it slept.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// How long a revoked partition is held back for the engine to drain and commit.
const REVOCATION_MAX: Duration = Duration::from_secs(3);
/// How long a handover waits for a commit that the broker has not answered.
const COMMIT_LANDS_WITHIN: Duration = Duration::from_secs(1);
/// How long librdkafka may take to begin with an assigned partition.
const SEEK_MAX: Duration = Duration::from_secs(2);
/// How long leaving the group may take.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// What the thread is asked.
pub(super) enum Command {
    /// Read the partition from `offset` on.
    Seek { partition: u32, offset: u64, answer: oneshot::Sender<Result<(), PortError>> },
    /// Join the group: whoever asks for events can work.
    Join,
    /// Leave the group, and say when nothing is left of the membership here.
    Leave(oneshot::Sender<Result<(), PortError>>),
    /// Leave the group and end.
    Stop,
}

/// A partition that is being read.
struct Live {
    queue: PartitionQueue,
    placement: Placement,
    /// No record below this offset may come.
    next: u64,
}

/// A revocation that the engine is at.
struct Revoking {
    partitions: Vec<i32>,
    deadline: Instant,
}

/// See the module.
pub(super) struct Polling {
    pub(super) member: Arc<Member>,
    pub(super) topic: String,
    pub(super) partitions: u32,
    pub(super) handover: Arc<Handover>,
    pub(super) settled: Arc<Settled>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) waker: Arc<Waker>,
}

/// What is underway, beside what the thread was given.
#[derive(Default)]
struct Progress {
    live: BTreeMap<u32, Live>,
    revoking: Option<Revoking>,
    assignments: u64,
    is_member: bool,
    /// Who waits for the end of the membership.
    leaving: Option<oneshot::Sender<Result<(), PortError>>>,
}

impl Polling {
    /// Joins the group when it is told to, and runs until it is told to stop.
    pub(super) fn run(self) {
        self.waker.attach();
        let mut progress = Progress::default();
        loop {
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Seek { partition, offset, answer } => {
                        // Whoever asked may have given up.
                        let _ = answer.send(self.seek(&mut progress, partition, offset));
                    }
                    Command::Join => {
                        progress.is_member = true;
                        self.answer(self.member.subscribe(&[&self.topic]));
                    }
                    Command::Leave(answer) => self.begin_leaving(&mut progress, answer),
                    Command::Stop => return self.end(progress),
                }
            }
            self.serve_group(&mut progress);
            if !self.read(&mut progress) {
                self.waker.wait(WAIT_MAX);
            }
        }
    }

    /// Serves what concerns the group and the client as a whole.
    fn serve_group(&self, progress: &mut Progress) {
        while let Some(polled) = self.member.poll(Duration::ZERO) {
            match polled {
                // Fetched before the partition had a queue of its own, or before it was put where it is read from.
                Ok(message) => {
                    let next = u32::try_from(message.partition())
                        .ok()
                        .and_then(|partition| Some((partition, progress.live.get(&partition)?.next)));
                    if let Some((partition, next)) = next
                        && u64::try_from(message.offset()).is_ok_and(|offset| offset >= next)
                    {
                        tracing::warn!(
                            partition,
                            "records came outside the partition's queue: reading them again"
                        );
                        if let Err(cause) = self.seek(progress, partition, next) {
                            self.handover.trouble(cause);
                        }
                    }
                }
                Err(cause) => self.trouble(&cause),
            }
        }
        while let Some(rebalance) = self.member.context().next_rebalance() {
            match rebalance {
                rebalance if !progress.is_member => {
                    self.give_back(&rebalance);
                    // Again, since what came after the first time may not have been meant by it.
                    self.member.unsubscribe();
                }
                Rebalance::Assign(partitions) => self.assign(progress, &partitions),
                Rebalance::Revoke { partitions, lost: true } => self.lose(progress, &partitions),
                Rebalance::Revoke { partitions, lost: false } => self.begin_revocation(progress, partitions),
            }
        }
        if let Some(revoking) = &progress.revoking
            && (self.handover.revocation_is_done() || Instant::now() >= revoking.deadline)
        {
            let partitions = numbers(&revoking.partitions);
            self.settled.release(&partitions, COMMIT_LANDS_WITHIN);
            self.answer(self.member.incremental_unassign(&list(&self.topic, &revoking.partitions)));
            progress.revoking = None;
        }
        let owns_nothing = || self.member.assignment().is_ok_and(|assigned| assigned.count() == 0);
        if let Some(leaving) = progress.leaving.take_if(|_| owns_nothing()) {
            // Whoever asked may have given up.
            let _ = leaving.send(Ok(()));
        }
    }

    /// Takes partitions over, paused until it is said where to read from.
    fn assign(&self, progress: &mut Progress, partitions: &[i32]) {
        let mut assigned = list(&self.topic, partitions);
        // Any place will do, but a given one: otherwise librdkafka looks for the committed offset first.
        self.answer(assigned.set_all_offsets(Offset::Offset(0)));
        self.answer(self.member.incremental_assign(&assigned));
        if partitions.is_empty() {
            return;
        }
        self.answer(self.member.pause(&assigned));
        progress.assignments += 1;
        let partitions = numbers(partitions);
        self.settled.assigned(&partitions, progress.assignments);
        self.handover.assigned(partitions, progress.assignments);
    }

    fn lose(&self, progress: &mut Progress, partitions: &[i32]) {
        let lost = numbers(partitions);
        for partition in &lost {
            progress.live.remove(partition);
        }
        // Told first: once nothing of them is left to commit, the next confirmation no longer depends on the broker.
        self.handover.lost(lost.clone());
        // A commit under way is refused by the broker, so there is nothing to wait for.
        self.settled.release(&lost, Duration::ZERO);
        self.answer(self.member.incremental_unassign(&list(&self.topic, partitions)));
    }

    fn begin_revocation(&self, progress: &mut Progress, partitions: Vec<i32>) {
        if partitions.is_empty() {
            return self.answer(self.member.incremental_unassign(&list(&self.topic, &partitions)));
        }
        let revoked = numbers(&partitions);
        for partition in &revoked {
            progress.live.remove(partition);
        }
        self.handover.revoked(revoked);
        progress.revoking = Some(Revoking { partitions, deadline: Instant::now() + REVOCATION_MAX });
    }

    /// Reads the partition from `offset` on, whatever was read of it before.
    fn seek(&self, progress: &mut Progress, partition: u32, offset: u64) -> Result<(), PortError> {
        let fails = |cause: &dyn std::fmt::Display| {
            PortError::new(
                PORT,
                format_args!("partition {partition} cannot be read from {offset} on: {cause}"),
            )
        };
        let is_leaving = progress
            .revoking
            .as_ref()
            .is_some_and(|revoking| numbers(&revoking.partitions).contains(&partition));
        if is_leaving || !self.settled.owns(partition) {
            return Err(fails(&"it is not this process's"));
        }
        let in_kafka = in_protocol(partition);
        let was_live = progress.live.remove(&partition).is_some();
        let place = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let deadline = Instant::now() + SEEK_MAX;
        // Refused until librdkafka has begun with a partition that was just assigned.
        while let Err(cause) = self.member.seek(&self.topic, in_kafka, place, SEEK_MAX) {
            if Instant::now() >= deadline {
                return Err(fails(&cause));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.handover.clear(partition);
        let queue = PartitionQueue::open(&self.member, &self.topic, in_kafka, BATCH_TAPS_MAX, &self.waker)
            .ok_or_else(|| fails(&"librdkafka has no queue for it"))?;
        if !was_live {
            self.member.resume(&list(&self.topic, &[in_kafka])).map_err(|cause| fails(&cause))?;
        }
        let placement = Placement::new(partition, self.partitions);
        progress.live.insert(partition, Live { queue, placement, next: offset });
        Ok(())
    }

    /// Reads a batch of each partition that has room. Whether there was anything.
    fn read(&self, progress: &mut Progress) -> bool {
        let mut found = false;
        for (partition, live) in &mut progress.live {
            if !self.handover.has_room(*partition) {
                continue;
            }
            let batch = live.batch(*partition);
            if let Some(trouble) = batch.trouble {
                self.handover.trouble(trouble);
            }
            if let Some(last) = batch.records.last() {
                found = true;
                let end = live.queue.end().unwrap_or(0).max(last.offset + 1);
                self.handover.batch(*partition, batch.records, end);
            }
        }
        found
    }

    /// Ends the membership; librdkafka asks for the partitions back before it says good-bye to the group.
    fn begin_leaving(&self, progress: &mut Progress, answer: oneshot::Sender<Result<(), PortError>>) {
        progress.is_member = false;
        progress.leaving = Some(answer);
        progress.live.clear();
        self.handover.clear_all();
        if let Some(Revoking { partitions, .. }) = progress.revoking.take() {
            self.give_back(&Rebalance::Revoke { partitions, lost: false });
        }
        self.member.unsubscribe();
    }

    /// Makes a change that the engine is not told of.
    fn give_back(&self, rebalance: &Rebalance) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.answer(self.member.incremental_assign(&list(&self.topic, partitions)));
            }
            Rebalance::Revoke { partitions, lost } => {
                let lands_within = if *lost { Duration::ZERO } else { COMMIT_LANDS_WITHIN };
                self.settled.release(&numbers(partitions), lands_within);
                self.answer(self.member.incremental_unassign(&list(&self.topic, partitions)));
            }
        }
    }

    /// Gives everything back and ends.
    fn end(self, mut progress: Progress) {
        progress.live.clear();
        if let Some(Revoking { partitions, .. }) = progress.revoking.take() {
            self.give_back(&Rebalance::Revoke { partitions, lost: false });
        }
        self.answer(self.member.close_queue());
        let deadline = Instant::now() + LEAVE_MAX;
        while !self.member.closed() && Instant::now() < deadline {
            drop(self.member.poll(Duration::from_millis(10)));
            while let Some(rebalance) = self.member.context().next_rebalance() {
                self.give_back(&rebalance);
            }
        }
    }

    /// librdkafka's answer to a change that it asked for itself.
    fn answer(&self, answer: KafkaResult<()>) {
        if let Err(cause) = answer {
            self.trouble(&cause);
        }
    }

    fn trouble(&self, cause: &KafkaError) {
        self.handover.trouble(PortError::new(PORT, cause));
    }
}

/// What was read at once.
struct Batch {
    records: Vec<TapRecord>,
    trouble: Option<PortError>,
}

impl Live {
    /// What was fetched, copied into one piece of memory.
    fn batch(&mut self, partition: u32) -> Batch {
        let messages = self.queue.read();
        let bytes = messages.iter().flatten().map(|message| message.value.len()).sum();
        let mut values = Vec::with_capacity(bytes);
        let mut places = Vec::new();
        let (mut trouble, mut misplaced) = (None, 0);
        for message in messages.iter() {
            let message = match message {
                Ok(message) => message,
                Err(cause) => {
                    let cause = format_args!("partition {partition}: {cause}");
                    trouble = Some(PortError::new(PORT, cause));
                    continue;
                }
            };
            let Some(offset) = u64::try_from(message.offset).ok().filter(|offset| *offset >= self.next)
            else {
                trouble = Some(PortError::new(PORT, went_back(partition, message.offset, self.next)));
                continue;
            };
            self.next = offset + 1;
            misplaced += u64::from(self.placement.is_elsewhere(message.key));
            values.extend_from_slice(message.value);
            places.push((offset, Timestamp::from_millis(message.timestamp_ms), message.value.len()));
        }
        drop(messages);
        self.placement.count(misplaced);
        let mut values = Bytes::from(values);
        let records = places
            .into_iter()
            .map(|(offset, received, length)| TapRecord { offset, received, value: values.split_to(length) })
            .collect();
        Batch { records, trouble }
    }
}

/// The topic was cut short or made anew under a reader.
fn went_back(partition: u32, offset: i64, next: u64) -> String {
    format!(
        "partition {partition} has a record at {offset} where {next} or later was to come: its topic was made anew or has \
         lost records; taps at offsets that were dealt with before are left out"
    )
}
