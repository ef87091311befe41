//! The rejected log: records that are no tap to be decided, kept for somebody to look at.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::PortError;
use crate::ids::LogPosition;
use crate::tap::RejectReason;
use crate::time::Timestamp;

/// A rejected record. Its value may be anything, so it may hold anybody's name.
#[derive(Clone, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Where it lies in the tap log: its name.
    pub position: LogPosition,
    /// When the tap log took it.
    pub received: Timestamp,
    /// Why it is rejected.
    pub reason: RejectReason,
    /// The record, untouched; of one that is oversize by far the beginning.
    pub value: Bytes,
}

/// The value stays out of every log line.
impl fmt::Debug for RejectedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.summary().fmt(f)
    }
}

impl RejectedRecord {
    /// What may be shown to anybody.
    pub fn summary(&self) -> RejectedSummary {
        let Self { position, received, reason, value } = self;
        RejectedSummary { position: *position, received: *received, reason: *reason, len_bytes: value.len() }
    }
}

/// A rejected record without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RejectedSummary {
    /// Where it lies in the tap log.
    pub position: LogPosition,
    /// When the tap log took it.
    pub received: Timestamp,
    /// Why it is rejected.
    pub reason: RejectReason,
    /// How long it is, as far as it is kept.
    pub len_bytes: usize,
}

/// Where rejected records are kept.
///
/// *The log promises:* records are durable when `append` returns; a record that is appended again, as after a crash, is
/// shown once. *The engine promises:* it appends every record that it rejects, before the record's offset is committed.
#[async_trait]
pub trait RejectedLog: Send + Sync {
    /// Keeps records.
    async fn append(&self, records: Vec<RejectedRecord>) -> Result<(), PortError>;

    /// The last `limit` records that were kept, the oldest first.
    async fn list(&self, limit: usize) -> Result<Vec<RejectedSummary>, PortError>;

    /// The record that lay at `position`; `None` when it was not rejected, or is forgotten by now.
    async fn read(&self, position: LogPosition) -> Result<Option<RejectedRecord>, PortError>;
}
