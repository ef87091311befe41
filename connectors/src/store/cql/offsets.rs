//! How far a log is settled, kept beside the log: a consumer group that sleeps for a week loses its own offsets.
//!
//! Every copy is written with the offset as its write timestamp, so a late or repeated write never takes it back.

use std::sync::Arc;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;

use super::error::store_error;
use super::session::{CqlSession, Read, Write};
use crate::tap_log::kafka::OffsetCopy;

/// The copy of what the partitions of one log have committed.
#[derive(Debug)]
pub struct CqlOffsets {
    session: Arc<CqlSession>,
    log: String,
    select: Read,
    insert: Write,
}

impl CqlOffsets {
    /// The copy for `log`, named with its cluster: another log's offsets mean nothing here.
    pub async fn new(session: Arc<CqlSession>, log: &str) -> Result<Self, PortError> {
        let select = session
            .prepare_read(
                "SELECT next_offset FROM keyspace.committed_offsets WHERE log = ? AND log_partition = ?",
            )
            .await?;
        let insert = session
            .prepare_write(
                "INSERT INTO keyspace.committed_offsets (log, log_partition, next_offset) VALUES (?, ?, ?) USING TIMESTAMP ?",
            )
            .await?;
        Ok(Self { session, log: log.to_owned(), select, insert })
    }
}

#[async_trait]
impl OffsetCopy for CqlOffsets {
    async fn committed(&self, partition: u32) -> Result<Option<u64>, PortError> {
        let found: Option<(i64,)> = self.session.row(&self.select, (&self.log, i64::from(partition))).await?;
        found.map(|(offset,)| u64::try_from(offset).map_err(|_| beyond())).transpose()
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), PortError> {
        let offset = i64::try_from(offset).map_err(|_| beyond())?;
        self.session.write(&self.insert, (&self.log, i64::from(partition), offset, offset)).await
    }
}

fn beyond() -> PortError {
    store_error("an offset is beyond what a log can have")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[tokio::test]
    async fn a_committed_offset_never_goes_back() {
        let offsets = CqlOffsets::new(fixture::session().await, &fixture::unique()).await.unwrap();
        assert_eq!(offsets.committed(3).await.unwrap(), None);
        for (committed, expected) in [(0, 0), (700, 700), (12, 700), (700, 700), (701, 701)] {
            offsets.commit(3, committed).await.unwrap();
            assert_eq!(offsets.committed(3).await.unwrap(), Some(expected), "after {committed}");
        }
        assert_eq!(offsets.committed(4).await.unwrap(), None, "another partition");
        let other_log = CqlOffsets::new(fixture::session().await, &fixture::unique()).await.unwrap();
        assert_eq!(other_log.committed(3).await.unwrap(), None, "another log");
    }
}
