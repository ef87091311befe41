//! The rejected log on Kafka: a topic beside the taps', of one partition.
//!
//! A record's key is its place in the tap log, its value is what is kept of the rejected record; the reason, the place
//! and the time of receipt are headers, so that any Kafka tool shows them. Reading is for somebody who looks: it goes
//! through the topic.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::rejected::{RejectedLog, RejectedRecord, RejectedSummary};
use gatebell_engine::tap::RejectReason;
use gatebell_engine::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{KafkaSettings, TracingContext};

/// The port, as errors name it.
const PORT: &str = "rejected log";
/// The longest wait for the acknowledgement of a record.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
/// The longest wait for an answer, and for each next record.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The only partition.
const PARTITION: i32 = 0;
/// Records that are looked through, from the end of the topic on.
const LOOK_THROUGH_RECORDS_MAX: i64 = 1_000_000;

const REASON: &str = "reason";
const TAPS_PARTITION: &str = "partition";
const TAPS_OFFSET: &str = "offset";
const RECEIVED_MS: &str = "received_ms";

/// Keeps rejected records in the topic of that name.
pub struct KafkaRejectedLog {
    settings: KafkaSettings,
    topic: String,
    producer: FutureProducer<TracingContext>,
}

impl fmt::Debug for KafkaRejectedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaRejectedLog").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaRejectedLog {
    /// Makes the producer; it connects with the first record. The topic must be there.
    ///
    /// # Errors
    /// When the settings make no producer.
    pub fn new(settings: &KafkaSettings) -> Result<Self, PortError> {
        let mut config = settings.producer().map_err(error)?;
        config.set("message.timeout.ms", DELIVERY_MAX.as_millis().to_string());
        let producer = config.create_with_context(TracingContext).map_err(error)?;
        Ok(Self { settings: settings.clone(), topic: settings.rejected_topic(), producer })
    }

    async fn produce(&self, record: &RejectedRecord) -> Result<(), PortError> {
        let RejectedRecord { position, received, reason, value } = record;
        let key = position.to_string();
        let text = [
            (REASON, reason.name().to_owned()),
            (TAPS_PARTITION, position.partition.to_string()),
            (TAPS_OFFSET, position.offset.to_string()),
            (RECEIVED_MS, received.as_millis().to_string()),
        ];
        let headers = text.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record =
            FutureRecord::to(&self.topic).partition(PARTITION).key(&key).payload(&value[..]).headers(headers);
        match self.producer.send(record, DELIVERY_MAX).await {
            Ok(_) => Ok(()),
            Err((cause, _)) => {
                Err(error(format_args!("the brokers did not take a rejected record: {cause}")))
            }
        }
    }

    /// Goes through the last records of the topic, in order, and gives each to `look` until it has seen enough.
    async fn look_through<T: Send + 'static>(
        &self,
        mut found: T,
        mut look: impl FnMut(&mut T, RejectedRecord) -> Seen + Send + 'static,
    ) -> Result<T, PortError> {
        let (settings, topic) = (self.settings.clone(), self.topic.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let mut config = settings.consumer().map_err(error)?;
            config.set("fetch.wait.max.ms", "50");
            let consumer: BaseConsumer<TracingContext> =
                config.create_with_context(TracingContext).map_err(error)?;
            let (first, end) = consumer.fetch_watermarks(&topic, PARTITION, ANSWER_MAX).map_err(error)?;
            if first >= end {
                return Ok(found);
            }
            let start = first.max(end - LOOK_THROUGH_RECORDS_MAX);
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(&topic, PARTITION, Offset::Offset(start)).map_err(error)?;
            consumer.assign(&place).map_err(error)?;
            let mut deadline = Instant::now() + ANSWER_MAX;
            while Instant::now() < deadline {
                let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
                let message = polled.map_err(error)?;
                let is_last = message.offset() + 1 >= end;
                // What others have written into the topic is none of ours.
                let seen = rejected(&message).map_or(Seen::GoOn, |record| look(&mut found, record));
                if is_last || matches!(seen, Seen::Enough) {
                    return Ok(found);
                }
                deadline = Instant::now() + ANSWER_MAX;
            }
            Err(error(format_args!("the records of {topic} did not come within {ANSWER_MAX:?}")))
        });
        looking.await.map_err(error)?
    }
}

/// Whether to go on.
enum Seen {
    GoOn,
    Enough,
}

#[async_trait]
impl RejectedLog for KafkaRejectedLog {
    async fn append(&self, records: Vec<RejectedRecord>) -> Result<(), PortError> {
        futures::future::try_join_all(records.iter().map(|record| self.produce(record))).await?;
        Ok(())
    }

    async fn list(&self, limit: usize) -> Result<Vec<RejectedSummary>, PortError> {
        // By position, with the turn in which each came first.
        let found = BTreeMap::<LogPosition, (usize, RejectedSummary)>::new();
        let found = self
            .look_through(found, |found, record| {
                let turn = found.len();
                found.entry(record.position).or_insert_with(|| (turn, record.summary()));
                Seen::GoOn
            })
            .await?;
        let mut in_turn: Vec<(usize, RejectedSummary)> = found.into_values().collect();
        in_turn.sort_unstable_by_key(|(turn, _)| *turn);
        let skipped = in_turn.len().saturating_sub(limit);
        Ok(in_turn.into_iter().skip(skipped).map(|(_, summary)| summary).collect())
    }

    async fn read(&self, position: LogPosition) -> Result<Option<RejectedRecord>, PortError> {
        self.look_through(None, move |found, record| {
            if record.position != position {
                return Seen::GoOn;
            }
            *found = Some(record);
            Seen::Enough
        })
        .await
    }
}

fn rejected(message: &BorrowedMessage<'_>) -> Option<RejectedRecord> {
    let headers = message.headers()?;
    let text = |key: &str| {
        let header = headers.iter().find(|header| header.key == key)?;
        std::str::from_utf8(header.value?).ok()
    };
    Some(RejectedRecord {
        position: LogPosition {
            partition: text(TAPS_PARTITION)?.parse().ok()?,
            offset: text(TAPS_OFFSET)?.parse().ok()?,
        },
        received: Timestamp::from_millis(text(RECEIVED_MS)?.parse().ok()?),
        reason: RejectReason::from_name(text(REASON)?)?,
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    })
}

fn error(cause: impl fmt::Display) -> PortError {
    PortError::new(PORT, cause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ops::Deref;

    use gatebell_engine::rejected_log_contract;

    use super::*;
    use crate::kafka::fixture::OwnTopics;
    use crate::kafka::prepare_topics;

    struct OnKafka {
        log: KafkaRejectedLog,
        _own: OwnTopics,
    }

    impl Deref for OnKafka {
        type Target = KafkaRejectedLog;

        fn deref(&self) -> &KafkaRejectedLog {
            &self.log
        }
    }

    async fn on_kafka() -> OnKafka {
        let own = OwnTopics::new();
        prepare_topics(&own.settings).await.unwrap();
        OnKafka { log: KafkaRejectedLog::new(&own.settings).unwrap(), _own: own }
    }

    rejected_log_contract!(contract, on_kafka);
}
