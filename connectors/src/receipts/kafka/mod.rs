//! The receipt log as a topic, `PREFIX.receipts`, with as many partitions as the taps have.
//!
//! Whichever process a gateway calls writes the receipt to the partition of its notice's tap, where the owner of that
//! partition reads it: partitions are assigned by hand, as the engine asks for them. A receipt's sequence is its offset plus
//! one. How far a partition is settled, and what is parked, the store keeps ([`ReceiptProgress`]); what is settled leaves the
//! topic by its retention. No record holds a phone number.

mod buffer;
mod fetcher;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};

use self::fetcher::Fetcher;
use super::ReceiptProgress;
use crate::kafka::{KafkaSettings, TracingContext};

/// The port, as errors name it.
const PORT: &str = "receipt log";
/// How long a receipt may take to be written. A gateway whose call fails after that calls again.
const WRITE_MS_MAX: u32 = 10_000;
/// Above the client's own limit, which gives the better error.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(2 * WRITE_MS_MAX as u64);

/// The receipts of a city, in the topic that its processes share.
pub struct KafkaReceiptLog {
    topic: String,
    producer: FutureProducer<TracingContext>,
    fetcher: Fetcher,
    progress: Arc<dyn ReceiptProgress>,
}

impl KafkaReceiptLog {
    /// The log in the topic of `settings`, which must be there, settled as `progress` keeps it. Nothing is read before it is
    /// asked for.
    ///
    /// # Errors
    /// When the clients cannot be set up.
    pub fn new(settings: &KafkaSettings, progress: Arc<dyn ReceiptProgress>) -> Result<Self, PortError> {
        let topic = settings.receipts_topic();
        let producer = settings
            .producer()
            .map_err(|error| PortError::new(PORT, error))?
            .set("message.timeout.ms", WRITE_MS_MAX.to_string())
            .create_with_context(TracingContext)
            .map_err(|error| PortError::new(PORT, error))?;
        let fetcher = Fetcher::start(settings)?;
        Ok(Self { topic, producer, fetcher, progress })
    }

    fn not_written(&self, error: &KafkaError) -> PortError {
        PortError::new(PORT, format_args!("cannot write to {}: {error}", self.topic))
    }
}

#[async_trait]
impl ReceiptLog for KafkaReceiptLog {
    async fn append(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        let mut deliveries = Vec::with_capacity(receipts.len());
        for receipt in &receipts {
            let value = serde_json::to_vec(receipt).map_err(|error| PortError::new(PORT, error))?;
            let partition = i32::try_from(receipt.position.partition).unwrap_or(i32::MAX);
            let record = FutureRecord::<(), _>::to(&self.topic).partition(partition).payload(&value);
            deliveries
                .push(self.producer.send_result(record).map_err(|(error, _)| self.not_written(&error))?);
        }
        let delivered = tokio::time::timeout(WRITE_WAIT_MAX, join_all(deliveries)).await;
        let delivered = delivered.map_err(|error| PortError::new(PORT, error))?;
        for delivery in delivered {
            let delivery = delivery.map_err(|_| self.not_written(&KafkaError::Canceled))?;
            delivery.map_err(|(error, _)| self.not_written(&error))?;
        }
        Ok(())
    }

    async fn read(&self, partition: u32, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        self.fetcher.read(partition, after, limit).await
    }

    async fn committed(&self, partition: u32) -> Result<u64, PortError> {
        self.progress.committed(partition).await
    }

    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError> {
        self.progress.commit(partition, sequence).await
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        if receipts.is_empty() {
            return Ok(());
        }
        self.progress.park(receipts).await
    }

    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        self.progress.parked(partition, limit).await
    }

    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError> {
        if sequences.is_empty() {
            return Ok(());
        }
        self.progress.unpark(partition, sequences).await
    }

    fn release(&self, partition: u32) {
        self.fetcher.release(partition);
    }
}
