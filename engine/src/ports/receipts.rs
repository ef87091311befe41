//! The receipt log: what gateways say became of messages, durable before the gateway gets its answer.

use async_trait::async_trait;
use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::PortError;
use crate::ids::{LaneName, LogPosition, NoticeId};
use crate::time::Timestamp;

/// What a gateway says of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum ReceiptStatus {
    /// It reached the phone: final, and proof for the bill.
    Delivered,
    /// It did not and will not.
    Failed {
        /// The gateway's status code.
        reason: CompactString,
    },
    /// It is still on its way; nothing to settle.
    Underway,
}

/// One receipt. Holds no phone number: whether the number matched was checked before it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// The lane whose gateway sent it.
    pub lane: LaneName,
    /// The notice, from the signed per-message address or our reference.
    pub notice: NoticeId,
    /// The notice's tap.
    pub position: LogPosition,
    /// The gateway's own id of the message.
    pub gateway_id: CompactString,
    /// What became of it.
    #[serde(flatten)]
    pub status: ReceiptStatus,
    /// When it arrived here (wall clock).
    pub arrived: Timestamp,
}

/// A receipt with its place in the receipt log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoggedReceipt {
    /// Rises with every receipt of the partition, from 1; it is read from the last committed one on.
    pub sequence: u64,
    /// The receipt.
    pub receipt: Receipt,
}

/// Where receipts are kept until they are settled, in the partitions of the taps that they are about.
///
/// Any process may append; a partition is read by the owner of the taps' partition of that number alone.
///
/// *The log promises:* `append` returns only once the receipts are durable, each in the partition of its notice's tap;
/// `read` gives every receipt above a sequence, in order; a commit that returned is found by the next owner. Receipts at or
/// below the commit may be forgotten by the log. *The engine promises:* it reads and commits only partitions that it owns,
/// and says by [`release`](Self::release) when it no longer does.
#[async_trait]
pub trait ReceiptLog: Send + Sync {
    /// Appends receipts, durably.
    async fn append(&self, receipts: Vec<Receipt>) -> Result<(), PortError>;

    /// At most `limit` receipts of `partition` above `after`, in order; waits for the first one for as long as it takes.
    /// Cancel-safe.
    async fn read(&self, partition: u32, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError>;

    /// The last sequence of `partition` that is settled; 0 when none is.
    async fn committed(&self, partition: u32) -> Result<u64, PortError>;

    /// Everything of `partition` up to `sequence` is settled (or parked, see [`park`](Self::park)).
    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError>;

    /// Keeps receipts that match nothing yet (they overtook the submit's answer), durably, to be tried again.
    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError>;

    /// Takes a look at the parked receipts of `partition`, oldest first, at most `limit`.
    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError>;

    /// Forgets parked receipts of `partition`: settled by now, or too old.
    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError>;

    /// The partition is no longer ours: nothing more need be fetched of it. Reading it again later is allowed.
    fn release(&self, partition: u32);
}
