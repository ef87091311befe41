//! Fetches the partitions that are asked for: one thread with one consumer for all of them.
//!
//! The thread sleeps until the client's queue has something or a reader wants something. It alone touches the assignment, so
//! that what it polls always belongs to what was asked for last.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::LoggedReceipt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::PORT;
use super::buffer::{Buffer, Wish};
use crate::kafka::{KafkaSettings, TracingContext};

/// The thread looks at its queue at least so often, should a wake-up ever be lost.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Records that are taken before wishes are looked at again.
const RECORDS_AT_ONCE_MAX: usize = 1_024;

/// The reader's side.
pub(super) struct Fetcher {
    buffers: Arc<Buffers>,
    /// Wakes the thread. One wake-up that is not looked at yet is as good as many; the thread ends when all senders are gone
    /// or [`Buffers`] says so.
    wake: SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What both sides share.
#[derive(Default)]
struct Buffers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    partitions: HashMap<u32, Buffer>,
    is_over: bool,
}

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetcher {
    /// Starts the thread, which asks for nothing yet.
    pub(super) fn start(settings: &KafkaSettings) -> Result<Self, PortError> {
        let buffers = Arc::<Buffers>::default();
        let (wake, woken) = sync_channel(1);
        let mut consumer: BaseConsumer<TracingContext> = settings
            .consumer()
            .map_err(|error| PortError::new(PORT, error))?
            .create_with_context(TracingContext)
            .map_err(|error| PortError::new(PORT, error))?;
        let arrived = wake.clone();
        consumer.set_nonempty_callback(move || {
            // Full: the thread is going to look anyway.
            let _ = arrived.try_send(());
        });
        let topic = settings.receipts_topic();
        let thread = Thread { consumer, topic, buffers: Arc::clone(&buffers), woken };
        let thread = std::thread::Builder::new()
            .name("receipts".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| PortError::new(PORT, error))?;
        Ok(Self { buffers, wake, thread: Some(thread) })
    }

    /// At most `limit` receipts of `partition` above `after`; waits for the first one. Cancel-safe.
    pub(super) async fn read(
        &self,
        partition: u32,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LoggedReceipt>, PortError> {
        loop {
            let arrived = {
                let mut state = self.buffers.lock();
                state.partitions.entry(partition).or_insert_with(|| Buffer::new(after)).arrived()
            };
            // Listened to before the look, so that no arrival falls between the two.
            let mut arrival = std::pin::pin!(arrived.notified());
            arrival.as_mut().enable();
            let (found, has_wish) = {
                let mut state = self.buffers.lock();
                let buffer = state.partitions.entry(partition).or_insert_with(|| Buffer::new(after));
                (buffer.read(after, limit), buffer.has_wish())
            };
            if has_wish {
                self.wake();
            }
            let found = found?;
            if !found.is_empty() {
                return Ok(found);
            }
            arrival.await;
        }
    }

    /// Nothing more is fetched of `partition`.
    pub(super) fn release(&self, partition: u32) {
        if let Some(buffer) = self.buffers.lock().partitions.get_mut(&partition) {
            buffer.release();
        }
        self.wake();
    }

    fn wake(&self) {
        // Full: it is awake, or going to be.
        let _ = self.wake.try_send(());
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.buffers.lock().is_over = true;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that fetches receipts had died");
        }
    }
}

/// The fetching side.
struct Thread {
    consumer: BaseConsumer<TracingContext>,
    topic: String,
    buffers: Arc<Buffers>,
    woken: Receiver<()>,
}

impl Thread {
    fn run(self) {
        loop {
            match self.woken.recv_timeout(SLEEP_MAX) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            loop {
                if self.buffers.lock().is_over {
                    return;
                }
                self.fulfil_wishes();
                if !self.take_what_came() {
                    break;
                }
            }
        }
    }

    /// Takes what the client has; whether there may be more. Readers see it together, so that they settle it together.
    fn take_what_came(&self) -> bool {
        let mut records = Vec::new();
        let mut errors = Vec::new();
        while records.len() + errors.len() < RECORDS_AT_ONCE_MAX {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(error)) => errors.push(error),
                None => break,
            }
        }
        let may_be_more = records.len() + errors.len() == RECORDS_AT_ONCE_MAX;
        let mut state = self.buffers.lock();
        for record in records {
            if let Some(buffer) = state.partitions.get_mut(&record.partition) {
                buffer.push(record.offset, record.receipt);
            }
        }
        drop(state);
        errors.iter().for_each(|error| self.take_error(error));
        may_be_more
    }

    fn take_error(&self, error: &KafkaError) {
        if is_passing(error) {
            return;
        }
        let trouble = PortError::new(PORT, format_args!("cannot read {}: {error}", self.topic));
        self.buffers.lock().partitions.values_mut().for_each(|buffer| buffer.fail(trouble.clone()));
    }

    fn fulfil_wishes(&self) {
        let mut state = self.buffers.lock();
        let mut released = Vec::new();
        for (partition, buffer) in &mut state.partitions {
            let Some(wish) = buffer.take_wish() else {
                continue;
            };
            if let Err(error) = self.fulfil(*partition, wish) {
                let cause = format!("cannot read partition {partition} of {}: {error}", self.topic);
                buffer.fail(PortError::new(PORT, cause));
            }
            if wish == Wish::Release {
                released.push(*partition);
            }
        }
        for partition in released {
            state.partitions.remove(&partition);
        }
    }

    fn fulfil(&self, partition: u32, wish: Wish) -> KafkaResult<()> {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, number);
        match wish {
            Wish::Pause => self.consumer.pause(&list),
            Wish::Resume => self.consumer.resume(&list),
            Wish::Release => self.forget(&list, number),
            Wish::FetchFrom(offset) => {
                self.forget(&list, number)?;
                let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
                list.set_partition_offset(&self.topic, number, offset)?;
                self.consumer.incremental_assign(&list)
            }
        }
    }

    fn forget(&self, list: &TopicPartitionList, partition: i32) -> KafkaResult<()> {
        let assigned = self.consumer.assignment()?;
        match assigned.find_partition(&self.topic, partition) {
            Some(_) => self.consumer.incremental_unassign(list),
            None => Ok(()),
        }
    }
}

/// A record of the topic; `None` as its receipt when it is none.
struct Fetched {
    partition: u32,
    offset: u64,
    receipt: Option<LoggedReceipt>,
}

fn record(message: &BorrowedMessage<'_>) -> Fetched {
    let partition = u32::try_from(message.partition()).unwrap_or(u32::MAX);
    let offset = u64::try_from(message.offset()).unwrap_or(0);
    let receipt = message.payload().and_then(|payload| serde_json::from_slice(payload).ok());
    if receipt.is_none() {
        metrics::counter!("gatebell_receipts_unreadable_total").increment(1);
        tracing::warn!(partition, offset, "a record among the receipts is none, and is left out");
    }
    let receipt = receipt.map(|receipt| LoggedReceipt { sequence: offset + 1, receipt });
    Fetched { partition, offset, receipt }
}

/// librdkafka goes on by itself, and a reader waits for as long as it takes.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::Resolve
        )
    )
}
