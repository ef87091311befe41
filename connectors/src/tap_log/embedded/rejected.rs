//! The rejected log in a file of its own, `rejected.db`: so that a wave of rubbish never keeps taps waiting.
//!
//! Records are kept as long as taps are. Their order is that of their coming; a record that comes again is left as it is.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::rejected::{RejectedLog, RejectedRecord, RejectedSummary};
use gatebell_engine::tap::RejectReason;
use gatebell_engine::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers, Schema, Writer};

/// The port, as errors name it.
const PORT: &str = "rejected log";
/// Appends that wait for the writer.
const QUEUE_APPENDS_MAX: usize = 64;
/// Connections for reading.
const READERS_MAX: usize = 1;

const REJECTED: Schema = Schema {
    name: "rejected",
    steps: &["
        CREATE TABLE rejected (
            number    INTEGER PRIMARY KEY,
            partition INTEGER NOT NULL,
            offset    INTEGER NOT NULL,
            received  INTEGER NOT NULL,
            reason    TEXT NOT NULL,
            value     BLOB NOT NULL,
            UNIQUE (partition, offset)
        ) STRICT;
        CREATE INDEX rejected_by_time ON rejected (received);
    "],
};

/// Keeps rejected records beside the embedded tap log.
#[derive(Debug)]
pub struct EmbeddedRejectedLog {
    writer: Writer,
    readers: Readers,
    keep: Option<Duration>,
}

impl EmbeddedRejectedLog {
    /// Opens the log in `directory`, making it where it is missing. Records older than `keep` are forgotten when others
    /// come; `None`: never.
    pub fn open(directory: &DataDir, keep: Option<Duration>) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.rejected(), PORT, &REJECTED)?;
        let writer = Writer::start(&file, QUEUE_APPENDS_MAX)?;
        Ok(Self { writer, readers: Readers::new(file, READERS_MAX), keep })
    }
}

#[async_trait]
impl RejectedLog for EmbeddedRejectedLog {
    async fn append(&self, records: Vec<RejectedRecord>) -> Result<(), PortError> {
        let Some(latest) = records.iter().map(|record| record.received).max() else { return Ok(()) };
        let forget_before = self.keep.map(|keep| latest.minus(keep));
        self.writer.write(move |connection| insert(connection, &records, forget_before)).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<RejectedSummary>, PortError> {
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT partition, offset, received, reason, length(value) FROM
                             (SELECT * FROM rejected ORDER BY number DESC LIMIT ?1)
                         ORDER BY number",
                    )?
                    .query_map([limit], summary)?
                    .collect()
            })
            .await
    }

    async fn read(&self, position: LogPosition) -> Result<Option<RejectedRecord>, PortError> {
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT partition, offset, received, reason, length(value), value FROM rejected
                         WHERE partition = ?1 AND offset = ?2",
                    )?
                    .query_row(params![position.partition, position.offset], |row| {
                        let RejectedSummary { position, received, reason, .. } = summary(row)?;
                        let value = Bytes::from(row.get::<_, Vec<u8>>(5)?);
                        Ok(RejectedRecord { position, received, reason, value })
                    })
                    .optional()
            })
            .await
    }
}

fn insert(
    connection: &Connection,
    records: &[RejectedRecord],
    forget_before: Option<Timestamp>,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO rejected (partition, offset, received, reason, value) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for RejectedRecord { position, received, reason, value } in records {
        let LogPosition { partition, offset } = position;
        insert.execute(params![partition, offset, received.as_millis(), reason.name(), &value[..]])?;
    }
    if let Some(before) = forget_before {
        connection
            .prepare_cached("DELETE FROM rejected WHERE received < ?1")?
            .execute([before.as_millis()])?;
    }
    Ok(())
}

fn summary(row: &Row<'_>) -> rusqlite::Result<RejectedSummary> {
    let reason: String = row.get(3)?;
    let reason = RejectReason::from_name(&reason).ok_or_else(|| {
        rusqlite::Error::FromSqlConversionFailure(
            3,
            Type::Text,
            "not a reason that this gatebell knows".into(),
        )
    })?;
    Ok(RejectedSummary {
        position: LogPosition { partition: row.get(0)?, offset: row.get(1)? },
        received: Timestamp::from_millis(row.get(2)?),
        reason,
        len_bytes: row.get(4)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ops::Deref;

    use gatebell_engine::rejected_log_contract;
    use gatebell_engine::testing::contract::rejected::record;
    use tempfile::TempDir;

    use super::*;

    struct OnDisk {
        log: EmbeddedRejectedLog,
        directory: TempDir,
    }

    impl Deref for OnDisk {
        type Target = EmbeddedRejectedLog;

        fn deref(&self) -> &EmbeddedRejectedLog {
            &self.log
        }
    }

    fn on_disk(keep: Option<Duration>) -> OnDisk {
        let directory = tempfile::tempdir().unwrap();
        let log = EmbeddedRejectedLog::open(&DataDir::open(directory.path()).unwrap(), keep).unwrap();
        OnDisk { log, directory }
    }

    rejected_log_contract!(contract, async || on_disk(None));

    #[tokio::test]
    async fn records_outlive_the_process_and_are_read_beside_it() {
        let log = on_disk(None);
        log.append(vec![record(1)]).await.unwrap();
        let data = DataDir::existing(log.directory.path()).unwrap();
        let beside = EmbeddedRejectedLog::open(&data, None).unwrap();
        assert_eq!(beside.read(record(1).position).await.unwrap(), Some(record(1)));
    }

    #[tokio::test]
    async fn records_are_forgotten_with_the_taps_of_their_time() {
        let log = on_disk(Some(Duration::from_millis(5)));
        for number in 0..20 {
            log.append(vec![record(number)]).await.unwrap();
        }
        let listed = log.list(100).await.unwrap();
        assert_eq!(listed, (14..20).map(|number| record(number).summary()).collect::<Vec<_>>());
    }
}
