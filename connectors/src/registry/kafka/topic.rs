//! Reads the registry's topic by hand: from an offset to the end as it was when asked for.
//!
//! The end is the last stable offset, asked of the broker anew each time: everything that was committed before is below
//! it, and nothing of an open or aborted transaction is ever seen. Between two readings nothing is fetched.

use std::time::{Duration, Instant};

use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::super::PORT;
use super::record::{BY_SINGLE_COMMAND, HEAD_KEY, Head, ORIGIN_HEADER, RecordError};
use super::transactions::{Stamp, Transaction, Transactions};
use crate::kafka::{KafkaSettings, TracingContext};

/// The only partition: its order is the order of the changes.
pub(super) const PARTITION: i32 = 0;
/// The longest wait for the broker to say where the topic ends.
const END_WAIT_MAX: Duration = Duration::from_secs(5);
/// The longest wait for the next record, when there is one.
const RECORD_WAIT_MAX: Duration = Duration::from_secs(10);
/// One wait of librdkafka.
const POLL: Duration = Duration::from_millis(100);
/// How long a broker keeps a fetch at the end of the topic waiting, in milliseconds: this is how the end is noticed.
const FETCH_WAIT_MS: u32 = 20;

/// Where the topic begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// The offset of the first record that is kept.
    pub(super) low: u64,
    /// One above the last record that is settled.
    pub(super) end: u64,
}

/// A consumer of its own, without a group.
pub(super) struct TopicReader {
    consumer: BaseConsumer<TracingContext>,
    topic: String,
}

/// A record of the topic.
pub(super) struct Record<'a> {
    message: BorrowedMessage<'a>,
    pub(super) offset: u64,
    pub(super) stamp: Stamp,
}

impl Record<'_> {
    pub(super) fn key(&self) -> &[u8] {
        self.message.key().unwrap_or_default()
    }

    /// `None` for a tombstone.
    pub(super) fn payload(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// Whether a command that changes one thing brought it.
    pub(super) fn is_by_single_command(&self) -> bool {
        let says_so = |header: Header<'_, &[u8]>| {
            header.key == ORIGIN_HEADER && header.value == Some(BY_SINGLE_COMMAND)
        };
        self.message.headers().is_some_and(|headers| headers.iter().any(says_so))
    }

    pub(super) fn is_head(&self) -> bool {
        self.key() == HEAD_KEY
    }
}

impl TopicReader {
    /// Connects when it is first asked for something.
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, PortError> {
        let consumer = settings
            .consumer()
            .map_err(|error| PortError::new(PORT, error))?
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            .create_with_context(TracingContext)
            .map_err(|error| PortError::new(PORT, error))?;
        Ok(Self { consumer, topic: settings.registry_topic() })
    }

    /// Where the topic begins and ends now.
    pub(super) fn bounds(&self) -> Result<Bounds, PortError> {
        let (low, end) = self
            .consumer
            .fetch_watermarks(&self.topic, PARTITION, END_WAIT_MAX)
            .map_err(|error| self.failed("ask for the end of", &error))?;
        Ok(Bounds { low: u64::try_from(low).unwrap_or(0), end: u64::try_from(end).unwrap_or(0) })
    }

    /// Begins to fetch at `offset`. What was fetched before is forgotten.
    pub(super) fn seek(&self, offset: u64) -> Result<(), PortError> {
        let mut assignment = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        assignment
            .add_partition_offset(&self.topic, PARTITION, offset)
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|error| self.failed("read", &error))
    }

    /// The next record below `end`, an end that was known when [`seek`](Self::seek) was called; `None` when there is none.
    pub(super) fn next(&self, end: u64) -> Result<Option<Record<'_>>, PortError> {
        let started = Instant::now();
        loop {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or(0);
                    if offset >= end {
                        return Ok(None);
                    }
                    let stamp = stamp_of(&message);
                    return Ok(Some(Record { message, offset, stamp }));
                }
                // The fetch began after `end` was known, so that this end is not before it.
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) if !is_passing(&error) => return Err(self.failed("read", &error)),
                Some(Err(_)) | None if started.elapsed() < RECORD_WAIT_MAX => {}
                Some(Err(error)) => return Err(self.failed("read", &error)),
                None => {
                    let waited_s = RECORD_WAIT_MAX.as_secs();
                    let cause = format!("no record of {} came within {waited_s} s", self.topic);
                    return Err(PortError::new(PORT, cause));
                }
            }
        }
    }

    /// Stops to fetch.
    pub(super) fn rest(&self) {
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "the registry's topic goes on being fetched for nothing");
        }
    }

    /// Reads the transactions from `from` to `end` without their values; hands each value or tombstone to `each`. Only where
    /// this begins at the topic's beginning may a transaction be missing.
    pub(super) fn survey(
        &self,
        from: u64,
        end: u64,
        from_its_beginning: bool,
        mut each: impl FnMut(&Record<'_>),
    ) -> Result<Transactions, PortError> {
        let mut transactions = Transactions::default();
        let mut without_head = 0_u64;
        if from < end {
            self.seek(from)?;
        }
        while from < end
            && let Some(record) = self.next(end)?
        {
            if !record.is_head() {
                without_head += 1;
                each(&record);
                continue;
            }
            without_head = 0;
            let payload = record.payload().ok_or(RecordError::Unreadable);
            let head =
                payload.and_then(Head::decode).map_err(|error| self.unreadable(record.offset, &error))?;
            let transaction = Transaction::new(head, record.stamp, record.offset);
            transactions
                .push(transaction, from_its_beginning)
                .map_err(|expected| self.gap(expected, record.offset))?;
        }
        self.rest();
        if without_head > 0 {
            let cause = format!(
                "{} ends with {without_head} records that no transaction's end follows: another program wrote to it, or its \
                 end was lost; if this lasts, import the city again",
                self.topic
            );
            return Err(PortError::new(PORT, cause));
        }
        Ok(transactions)
    }

    /// Changes are missing.
    pub(super) fn gap(&self, expected: u64, offset: u64) -> PortError {
        let cause = format!(
            "{} has lost the change {expected}, expected at offset {offset} or before: restart this process, which then \
             reads the registry anew; if that does not help, import the city again",
            self.topic
        );
        PortError::new(PORT, cause)
    }

    /// A record cannot be read.
    pub(super) fn unreadable(&self, offset: u64, error: &RecordError) -> PortError {
        PortError::new(PORT, format_args!("the record at offset {offset} of {}: {error}", self.topic))
    }

    /// The topic is not what it was, or not whole.
    pub(super) fn unfit(&self, what: &str) -> PortError {
        PortError::new(PORT, format_args!("{}: {what}", self.topic))
    }

    fn failed(&self, what: &str, error: &KafkaError) -> PortError {
        PortError::new(PORT, format_args!("cannot {what} {}: {error}", self.topic))
    }
}

fn stamp_of(message: &BorrowedMessage<'_>) -> Stamp {
    use rdkafka::Timestamp as Kafka;
    match message.timestamp() {
        Kafka::LogAppendTime(ms) => Stamp::Broker(Timestamp::from_millis(ms)),
        Kafka::CreateTime(ms) => Stamp::Writer(Timestamp::from_millis(ms)),
        Kafka::NotAvailable => Stamp::Writer(Timestamp::MIN),
    }
}

/// librdkafka goes on by itself.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
        )
    )
}
