//! Writes transactions to the registry's topic, one writer at a time.
//!
//! All writers of a city bear the same transactional id: who begins fences whoever wrote before, whose open transaction the
//! broker then aborts. So a writer that begins, reads the topic to its end and commits has read everything that was
//! committed before its own; one that was fenced in between has committed nothing, and begins again.

use std::time::{Duration, Instant};

use gatebell_engine::ports::PortError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::super::{ChangeOrigin, PORT};
use super::record::{BY_SINGLE_COMMAND, ORIGIN_HEADER};
use super::topic::PARTITION;
use crate::kafka::{KafkaSettings, TracingContext};

/// The longest wait until the broker lets a writer begin.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest wait until a transaction is committed; a whole city is written in some tens of seconds.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(120);
/// After this the broker aborts the transaction of a writer that died, if no other writer comes before. Less than the
/// broker's own limit, 15 min unless it is set otherwise.
const TRANSACTION_MS_MAX: u32 = 300_000;
/// The longest wait until an abort is confirmed, which nothing depends on.
const ABORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// One wait for the delivery of the last records.
const DELIVERY_POLL: Duration = Duration::from_millis(1);
/// One wait for room in the client's queue.
const QUEUE_POLL: Duration = Duration::from_millis(20);

/// A transaction that was begun. Dropped, it is aborted.
pub(super) struct Writer {
    producer: BaseProducer<TracingContext>,
    topic: String,
    is_committed: bool,
}

impl Writer {
    /// Fences every other writer, and begins.
    pub(super) fn begin(settings: &KafkaSettings) -> Result<Self, PortError> {
        let topic = settings.registry_topic();
        let producer: BaseProducer<TracingContext> = settings
            .producer()
            .map_err(|error| PortError::new(PORT, error))?
            .set("transactional.id", format!("{topic}.writer"))
            .set("transaction.timeout.ms", TRANSACTION_MS_MAX.to_string())
            .set("compression.type", "zstd")
            .create_with_context(TracingContext)
            .map_err(|error| PortError::new(PORT, error))?;
        producer
            .init_transactions(BEGIN_WAIT_MAX)
            .and_then(|()| producer.begin_transaction())
            .map_err(|error| failed(&topic, &error))?;
        Ok(Self { producer, topic, is_committed: false })
    }

    /// Adds a record; `None` as its value is a tombstone. Whether the broker took it shows when the transaction is
    /// committed.
    pub(super) fn write(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), PortError> {
        self.send(key, value, None)
    }

    /// Adds a value that came from `origin`.
    pub(super) fn write_value(
        &self,
        key: &[u8],
        value: &[u8],
        origin: ChangeOrigin,
    ) -> Result<(), PortError> {
        let header = Header { key: ORIGIN_HEADER, value: Some(BY_SINGLE_COMMAND) };
        let by_command = origin == ChangeOrigin::SingleCommand;
        self.send(key, Some(value), by_command.then(|| OwnedHeaders::new_with_capacity(1).insert(header)))
    }

    fn send(&self, key: &[u8], value: Option<&[u8]>, headers: Option<OwnedHeaders>) -> Result<(), PortError> {
        let mut record = BaseRecord::to(&self.topic).partition(PARTITION).key(key);
        record.payload = value;
        record.headers = headers;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.producer.poll(QUEUE_POLL);
                    record = again;
                }
                Err((error, _)) => return Err(failed(&self.topic, &error)),
            }
        }
    }

    /// Makes everything visible at once. After an error it may have become visible all the same.
    pub(super) fn commit(mut self) -> Result<(), PortError> {
        let started = Instant::now();
        // The commit itself waits for the records too, but looks only every 100 ms.
        while self.producer.in_flight_count() > 0 && started.elapsed() < COMMIT_WAIT_MAX {
            self.producer.poll(DELIVERY_POLL);
        }
        let committed = self.producer.commit_transaction(COMMIT_WAIT_MAX);
        self.is_committed = committed.is_ok();
        committed.map_err(|error| failed(&self.topic, &error))
    }

    /// Leaves the transaction as a process does that is killed: its records are with the broker, and nobody ends it.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        self.producer.flush(BEGIN_WAIT_MAX).expect("the records are with the broker");
        self.is_committed = true;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        // A failed abort is made good by the next writer, or by the broker in time; readers see nothing either way.
        if let Err(error) = self.producer.abort_transaction(ABORT_WAIT_MAX) {
            tracing::debug!(%error, "a transaction of the registry was left to the broker to abort");
        }
    }
}

fn failed(topic: &str, error: &KafkaError) -> PortError {
    PortError::new(PORT, format_args!("cannot write to {topic}: {error}"))
}
