//! The receipt log that several processes share ([`KafkaReceiptLog`](kafka::KafkaReceiptLog)), and how far each partition of
//! it is settled.
//!
//! Of one process the receipts lie in the embedded store, with the ledger that settles them.

pub mod kafka;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::{LoggedReceipt, Receipt};

/// Parked receipts of a partition, at most; the oldest give way, and are counted.
pub const PARKED_RECEIPTS_MAX: usize = 100_000;

/// What the store keeps about the receipts of each partition: what is settled, and what matches nothing yet.
///
/// *Promises:* what returned is durable, and seen by the partition's next owner.
#[async_trait]
pub trait ReceiptProgress: Send + Sync {
    /// The last sequence of `partition` that is settled; 0 when none is.
    async fn committed(&self, partition: u32) -> Result<u64, PortError>;

    /// Everything of `partition` up to `sequence` is settled or parked. A smaller one than before changes nothing.
    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError>;

    /// Keeps receipts, each under the partition of its notice's tap, to be tried again: at most [`PARKED_RECEIPTS_MAX`] of a
    /// partition, the oldest giving way.
    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError>;

    /// The parked receipts of `partition`, oldest first, at most `limit`; the sequences are their names for
    /// [`unpark`](Self::unpark).
    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError>;

    /// Forgets parked receipts of `partition`; one that is not there changes nothing.
    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError>;
}
