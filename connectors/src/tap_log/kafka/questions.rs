//! Questions to the brokers, asked beside the member's own work.
//!
//! A client of its own, outside the group, so that neither the reading of taps nor the group waits for an answer. Every
//! question has a time-out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::PORT;
use super::commits::NOTHING_SETTLED;
use super::member::{in_protocol, list};
use crate::kafka::{KafkaSettings, TracingContext};

/// The longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A question for one record fetches little else.
const FETCH_MAX_BYTES: u32 = 65_536;

/// Asks about the taps. Cheap to clone; one question at a time.
#[derive(Clone)]
pub(super) struct Questions {
    client: Arc<Mutex<BaseConsumer<TracingContext>>>,
    topic: Arc<str>,
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Questions").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Questions {
    pub(super) fn new(settings: &KafkaSettings, topic: &str) -> Result<Self, PortError> {
        let mut config = settings.consumer().map_err(|cause| PortError::new(PORT, cause))?;
        config
            .set("queued.min.messages", "1")
            .set("max.partition.fetch.bytes", FETCH_MAX_BYTES.to_string())
            .set("fetch.wait.max.ms", "50")
            // A log may end in the mark of a transaction, behind which no record comes.
            .set("enable.partition.eof", "true");
        let client =
            config.create_with_context(TracingContext).map_err(|cause| PortError::new(PORT, cause))?;
        Ok(Self { client: Arc::new(Mutex::new(client)), topic: topic.into() })
    }

    /// What the group has committed of each partition, in their order; `None`: nothing.
    pub(super) async fn committed(&self, partitions: Vec<u32>) -> Result<Vec<Option<u64>>, PortError> {
        self.ask("the committed offsets", move |client, topic| {
            let in_kafka: Vec<i32> = partitions.iter().map(|partition| in_protocol(*partition)).collect();
            let answer = client.committed_offsets(list(topic, &in_kafka), ANSWER_MAX)?;
            in_kafka
                .iter()
                .map(|partition| {
                    let Some(found) = answer.find_partition(topic, *partition) else { return Ok(None) };
                    found.error()?;
                    match found.offset() {
                        Offset::Offset(offset) if found.metadata() != NOTHING_SETTLED => {
                            Ok(u64::try_from(offset).ok())
                        }
                        _ => Ok(None),
                    }
                })
                .collect()
        })
        .await
    }

    /// The first offset that is there, and the one that the next record written would get.
    pub(super) async fn bounds(&self, partition: u32) -> Result<(u64, u64), PortError> {
        self.ask("the bounds of a partition", move |client, topic| bounds(client, topic, partition)).await
    }

    /// The offset of the first record received at or after `from`, or of the earliest one; of the next one to be written
    /// where there is none.
    pub(super) async fn first_from(&self, partition: u32, from: Option<Timestamp>) -> Result<u64, PortError> {
        self.ask("the offset of a time", move |client, topic| {
            // Asked first: what is written meanwhile is then read, at worst for nothing.
            let (first, end) = bounds(client, topic, partition)?;
            let Some(from) = from else { return Ok(first) };
            let mut times = TopicPartitionList::new();
            let from_ms = from.as_millis().max(0);
            times.add_partition_offset(topic, in_protocol(partition), Offset::Offset(from_ms))?;
            let answer = client.offsets_for_times(times, ANSWER_MAX)?;
            let Some(found) = answer.find_partition(topic, in_protocol(partition)) else { return Ok(end) };
            found.error()?;
            match found.offset() {
                Offset::Offset(offset) => Ok(u64::try_from(offset).unwrap_or(end)),
                _ => Ok(end),
            }
        })
        .await
    }

    /// When the record at `offset`, or the first after it, was received.
    pub(super) async fn received_at(
        &self,
        partition: u32,
        offset: u64,
    ) -> Result<Option<Timestamp>, PortError> {
        self.ask("the time of a record", move |client, topic| {
            let (first, end) = bounds(client, topic, partition)?;
            if offset >= end {
                return Ok(Some(None));
            }
            let start = i64::try_from(offset.max(first)).unwrap_or(i64::MAX);
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(topic, in_protocol(partition), Offset::Offset(start))?;
            client.assign(&place)?;
            let received = first_record(client, partition, start);
            client.unassign()?;
            received
        })
        .await?
        .ok_or_else(|| {
            PortError::new(
                PORT,
                format_args!("the record at {partition}/{offset} did not come within {ANSWER_MAX:?}"),
            )
        })
    }

    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        question: impl FnOnce(&BaseConsumer<TracingContext>, &str) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, PortError> {
        let (client, topic) = (Arc::clone(&self.client), Arc::clone(&self.topic));
        let asked = tokio::task::spawn_blocking(move || {
            let client = client.lock().unwrap_or_else(PoisonError::into_inner);
            question(&client, &topic)
        });
        let no_answer = |cause: &dyn std::fmt::Display| {
            PortError::new(PORT, format_args!("no answer about {what}: {cause}"))
        };
        match asked.await {
            Ok(answer) => answer.map_err(|cause| no_answer(&cause)),
            Err(cause) => Err(no_answer(&cause)),
        }
    }
}

fn bounds(client: &BaseConsumer<TracingContext>, topic: &str, partition: u32) -> KafkaResult<(u64, u64)> {
    let (low, high) = client.fetch_watermarks(topic, in_protocol(partition), ANSWER_MAX)?;
    Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
}

/// The outer `None`: none came in time.
fn first_record(
    client: &BaseConsumer<TracingContext>,
    partition: u32,
    start: i64,
) -> KafkaResult<Option<Option<Timestamp>>> {
    let deadline = Instant::now() + ANSWER_MAX;
    while Instant::now() < deadline {
        let Some(polled) = client.poll(Duration::from_millis(100)) else { continue };
        let message = match polled {
            Err(KafkaError::PartitionEOF(ended)) if ended == in_protocol(partition) => return Ok(Some(None)),
            // Of the client as a whole, from an outage that may be over: what was asked for may still come.
            Err(KafkaError::MessageConsumption(_)) => continue,
            polled => polled?,
        };
        if message.partition() == in_protocol(partition) && message.offset() >= start {
            return Ok(Some(message.timestamp().to_millis().map(Timestamp::from_millis)));
        }
    }
    Ok(None)
}
