//! The receipt log in `store.db`: what gateways say became of messages, until it is settled.
//!
//! Receipts are read once, in order within their partition, and forgotten when they are committed: what they proved is
//! in the ledger by then. Those that match nothing yet are parked, at most [`PARKED_RECEIPTS_MAX`] of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use compact_str::CompactString;
use gatebell_engine::ids::LogPosition;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog, ReceiptStatus};
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger_rows::{notice, notice_blob, optional_text, text, word};
use crate::sqlite::{Readers, Schema, Writer};

/// Parked receipts, at most; the oldest give way, and are counted.
pub const PARKED_RECEIPTS_MAX: u64 = 100_000;

/// The receipts' part of `store.db`.
pub(super) const RECEIPTS: Schema = Schema { name: "receipts", steps: &[FIRST, PARTITIONS] };

/// `AUTOINCREMENT`, since a sequence may not come again when the log is empty.
const FIRST: &str = "
CREATE TABLE receipts (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    lane       TEXT    NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    gateway_id TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('delivered', 'failed', 'underway')),
    reason     TEXT,
    arrived    INTEGER NOT NULL
) STRICT;
CREATE TABLE parked_receipts (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    lane       TEXT    NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    gateway_id TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('delivered', 'failed', 'underway')),
    reason     TEXT,
    arrived    INTEGER NOT NULL
) STRICT;
CREATE TABLE receipt_commit (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO receipt_commit (id, sequence) VALUES (1, 0);
";

/// A commit for each partition. What is committed is gone from the table, so without a row a partition is read from 0 on.
const PARTITIONS: &str = "
DROP TABLE receipt_commit;
CREATE TABLE receipt_commits (
    partition INTEGER PRIMARY KEY,
    sequence  INTEGER NOT NULL
) STRICT;
CREATE INDEX receipts_by_partition ON receipts (partition, sequence);
CREATE INDEX parked_receipts_by_partition ON parked_receipts (partition, sequence);
";

/// The embedded receipt log.
#[derive(Debug)]
pub struct EmbeddedReceiptLog {
    writer: Arc<Writer>,
    readers: Readers,
    /// The last sequence that this process gave, by partition: tells a waiting reader whether a commit is worth a look.
    last_appended: LastAppended,
}

type LastAppended = Arc<Mutex<BTreeMap<u32, u64>>>;

impl EmbeddedReceiptLog {
    pub(super) fn new(writer: Arc<Writer>, readers: Readers) -> Self {
        Self { writer, readers, last_appended: Arc::default() }
    }

    async fn read_now(
        &self,
        partition: u32,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LoggedReceipt>, PortError> {
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT sequence, lane, notice, partition, offset, gateway_id, status, reason, arrived
                         FROM receipts WHERE partition = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                    )?
                    .query_map(params![partition, after, limit], logged_receipt)?
                    .collect()
            })
            .await
    }
}

#[async_trait]
impl ReceiptLog for EmbeddedReceiptLog {
    async fn append(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let last_appended = Arc::clone(&self.last_appended);
        self.writer
            .write(move |connection| {
                let insert = "INSERT INTO receipts
                     (lane, notice, partition, offset, gateway_id, status, reason, arrived)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
                let sequences = insert_all(connection, insert, &receipts)?;
                let mut last_appended = last_appended.lock().unwrap_or_else(PoisonError::into_inner);
                last_appended
                    .extend(receipts.iter().map(|receipt| receipt.position.partition).zip(sequences));
                Ok(())
            })
            .await
    }

    async fn read(&self, partition: u32, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        // Subscribed before the first look, so that no commit falls between the two.
        let mut commits = self.writer.commits();
        loop {
            let found = self.read_now(partition, after, limit).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            loop {
                commits
                    .changed()
                    .await
                    .map_err(|_| PortError::new("receipt log", "the writer thread has ended"))?;
                let last_appended = self.last_appended.lock().unwrap_or_else(PoisonError::into_inner);
                if last_appended.get(&partition).is_some_and(|last| *last > after) {
                    break;
                }
            }
        }
    }

    async fn committed(&self, partition: u32) -> Result<u64, PortError> {
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT sequence FROM receipt_commits WHERE partition = ?1")?
                    .query_row([partition], |row| row.get(0))
                    .optional()
            })
            .await
            .map(Option::unwrap_or_default)
    }

    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError> {
        self.writer
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO receipt_commits (partition, sequence) VALUES (?1, ?2)
                         ON CONFLICT (partition) DO UPDATE SET sequence = max(sequence, excluded.sequence)",
                    )?
                    .execute(params![partition, sequence])?;
                connection
                    .prepare_cached("DELETE FROM receipts WHERE partition = ?1 AND sequence <= ?2")?
                    .execute(params![partition, sequence])?;
                Ok(())
            })
            .await
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let given_up = self
            .writer
            .write(move |connection| {
                let insert = "INSERT INTO parked_receipts
                     (lane, notice, partition, offset, gateway_id, status, reason, arrived)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
                insert_all(connection, insert, &receipts)?;
                give_up_the_oldest(connection, PARKED_RECEIPTS_MAX)
            })
            .await?;
        if given_up > 0 {
            metrics::counter!("gatebell_parked_receipts_given_up_total").increment(given_up);
            tracing::warn!(given_up, "too many receipts match no notice: the oldest were given up");
        }
        Ok(())
    }

    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT sequence, lane, notice, partition, offset, gateway_id, status, reason, arrived
                         FROM parked_receipts WHERE partition = ?1 ORDER BY sequence LIMIT ?2",
                    )?
                    .query_map(params![partition, limit], logged_receipt)?
                    .collect()
            })
            .await
    }

    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError> {
        if sequences.is_empty() {
            return Ok(());
        }
        self.writer
            .write(move |connection| {
                let mut delete = connection
                    .prepare_cached("DELETE FROM parked_receipts WHERE partition = ?1 AND sequence = ?2")?;
                for sequence in sequences {
                    delete.execute(params![partition, sequence])?;
                }
                Ok(())
            })
            .await
    }

    /// Nothing is fetched ahead.
    fn release(&self, _partition: u32) {}
}

/// Inserts all receipts with the statement `insert`; gives their sequences.
fn insert_all(connection: &Connection, insert: &str, receipts: &[Receipt]) -> rusqlite::Result<Vec<u64>> {
    let mut statement = connection.prepare_cached(insert)?;
    let mut sequences = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let (status, reason) = status_columns(&receipt.status);
        statement.execute(params![
            receipt.lane.as_str(),
            notice_blob(receipt.notice),
            receipt.position.partition,
            receipt.position.offset,
            receipt.gateway_id.as_str(),
            status,
            reason,
            receipt.arrived.as_millis(),
        ])?;
        sequences.push(u64::try_from(connection.last_insert_rowid()).unwrap_or(0));
    }
    Ok(sequences)
}

/// Keeps the youngest `parked_max`; gives how many went.
fn give_up_the_oldest(connection: &Connection, parked_max: u64) -> rusqlite::Result<u64> {
    let parked: u64 =
        connection.prepare_cached("SELECT count(*) FROM parked_receipts")?.query_row([], |row| row.get(0))?;
    let too_many = parked.saturating_sub(parked_max);
    if too_many > 0 {
        connection
            .prepare_cached(
                "DELETE FROM parked_receipts WHERE sequence IN (
                     SELECT sequence FROM parked_receipts ORDER BY sequence LIMIT ?1)",
            )?
            .execute([too_many])?;
    }
    Ok(too_many)
}

/// A status as it is stored: its word, and the reason of a failure.
pub(super) fn status_columns(status: &ReceiptStatus) -> (&'static str, Option<&str>) {
    match status {
        ReceiptStatus::Delivered => ("delivered", None),
        ReceiptStatus::Failed { reason } => ("failed", Some(reason.as_str())),
        ReceiptStatus::Underway => ("underway", None),
    }
}

/// The status in the columns `status` and `reason`.
pub(super) fn status_of(row: &Row<'_>, status: usize, reason: usize) -> rusqlite::Result<ReceiptStatus> {
    Ok(match row.get_ref(status)?.as_str()? {
        "delivered" => ReceiptStatus::Delivered,
        "failed" => {
            let reason = optional_text(row, reason)?.unwrap_or(CompactString::const_new(""));
            ReceiptStatus::Failed { reason }
        }
        // The tables allow these three words only.
        _ => ReceiptStatus::Underway,
    })
}

pub(super) fn logged_receipt(row: &Row<'_>) -> rusqlite::Result<LoggedReceipt> {
    Ok(LoggedReceipt {
        sequence: row.get(0)?,
        receipt: Receipt {
            lane: word(row, 1)?,
            notice: notice(row, 2)?,
            position: LogPosition { partition: row.get(3)?, offset: row.get(4)? },
            gateway_id: text(row, 5)?,
            status: status_of(row, 6, 7)?,
            arrived: Timestamp::from_millis(row.get(8)?),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::receipt_log_contract;
    use gatebell_engine::testing::contract::receipts::{PARTITION as CONTRACT_PARTITION, receipt};

    use super::super::store_fixture::{fresh_receipts, open};
    use super::*;

    receipt_log_contract!(contract, fresh_receipts);

    #[tokio::test]
    async fn commit_and_parked_receipts_are_there_again_after_a_stop() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let receipts = store.receipts();
        receipts
            .append((1..4).map(|number| receipt(number, ReceiptStatus::Delivered)).collect())
            .await
            .unwrap();
        receipts.park(vec![receipt(1, ReceiptStatus::Delivered)]).await.unwrap();
        receipts.commit(CONTRACT_PARTITION, 2).await.unwrap();
        drop((receipts, store));

        let again = open(&directory).receipts();
        assert_eq!(again.committed(CONTRACT_PARTITION).await.unwrap(), 2);
        assert_eq!(again.parked(CONTRACT_PARTITION, 10).await.unwrap().len(), 1);
        let unread = again.read(CONTRACT_PARTITION, 2, 10).await.unwrap();
        assert_eq!(unread.len(), 1);
        assert_eq!(unread[0].receipt, receipt(3, ReceiptStatus::Delivered));
    }

    #[tokio::test]
    async fn too_many_parked_receipts_give_way_from_the_oldest_on() {
        let log = fresh_receipts().await;
        log.park((1..6).map(|number| receipt(number, ReceiptStatus::Delivered)).collect()).await.unwrap();
        let given_up = log.writer.write(|connection| give_up_the_oldest(connection, 3)).await.unwrap();
        assert_eq!(given_up, 2);
        assert_eq!(
            log.parked(CONTRACT_PARTITION, 10).await.unwrap()[0].receipt,
            receipt(3, ReceiptStatus::Delivered)
        );
    }
}
