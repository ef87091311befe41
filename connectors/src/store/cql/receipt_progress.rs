//! How far each partition of the receipt log is settled, and the receipts that match no notice yet.
//!
//! A commit is written with the sequence as its write timestamp, so a late or repeated one never takes it back. A parked
//! receipt's name is the microsecond of parking and a number of the process, so that they are ordered, and those of an
//! owner and its successor differ. They are counted from time to time only: so seldom that it costs little, so often that
//! an owner never leaves more than may be parked.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use compact_str::CompactString;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::receipts::{LoggedReceipt, Receipt, ReceiptStatus};
use gatebell_engine::time::Timestamp;
use scylla::DeserializeRow;
use scylla::value::CqlTimestamp;

use super::error::store_error;
use super::ledger_rows::{
    Stamps, instant, notice, notice_blob, position, position_columns, unreadable, word,
};
use super::session::{BATCH_ROWS_MAX, CqlSession, Read, Write};
use crate::receipts::{PARKED_RECEIPTS_MAX, ReceiptProgress};

/// Bits of a parked receipt's name that are the process's own. With the microseconds of this millennium they fit 63.
const PROCESS_BITS: u32 = 12;
/// A partition's parked receipts are counted before the first, and again whenever so many more were parked.
const COUNTED_EVERY_RECEIPTS: usize = 1_000;

/// The progress of one receipt log.
#[derive(Debug)]
pub struct CqlReceiptProgress {
    session: Arc<CqlSession>,
    log: String,
    parked_max: usize,
    counted_every: usize,
    stamps: Stamps,
    process: i64,
    /// How many were parked since they were counted, by partition.
    since_counted: Mutex<HashMap<u32, usize>>,
    select_commit: Read,
    insert_commit: Write,
    insert_parked: Write,
    select_parked: Read,
    select_names: Read,
    delete_parked: Write,
}

/// A parked receipt as it is read.
#[derive(DeserializeRow)]
struct ParkedRow {
    sequence: i64,
    lane: String,
    notice: Vec<u8>,
    log_partition: i64,
    log_offset: i64,
    gateway_id: String,
    status: String,
    reason: Option<String>,
    arrived: CqlTimestamp,
}

impl CqlReceiptProgress {
    /// The progress of the receipt log named `log`, its cluster in the name.
    pub async fn new(session: Arc<CqlSession>, log: &str) -> Result<Self, PortError> {
        Self::with_limits(session, log, PARKED_RECEIPTS_MAX, COUNTED_EVERY_RECEIPTS).await
    }

    async fn with_limits(
        session: Arc<CqlSession>,
        log: &str,
        parked_max: usize,
        counted_every: usize,
    ) -> Result<Self, PortError> {
        let process = getrandom::u32().map_err(store_error)? % (1 << PROCESS_BITS);
        let of_partition = "FROM keyspace.parked_receipts WHERE log = ? AND log_partition = ?";
        let select_commit = session.prepare_read(
            "SELECT sequence FROM keyspace.receipt_commits WHERE log = ? AND log_partition = ?",
        );
        let insert_commit = session.prepare_write(
            "INSERT INTO keyspace.receipt_commits (log, log_partition, sequence) VALUES (?, ?, ?) USING TIMESTAMP ?",
        );
        let insert_parked = session.prepare_write(
            "INSERT INTO keyspace.parked_receipts
             (log, log_partition, sequence, lane, notice, log_offset, gateway_id, status, reason, arrived)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let select_parked = format!(
            "SELECT sequence, lane, notice, log_partition, log_offset, gateway_id, status, reason, arrived
             {of_partition} LIMIT ?"
        );
        let select_names = format!("SELECT sequence {of_partition}");
        let delete_parked = format!("DELETE {of_partition} AND sequence = ?");
        Ok(Self {
            select_commit: select_commit.await?,
            insert_commit: insert_commit.await?,
            insert_parked: insert_parked.await?,
            select_parked: session.prepare_read(&select_parked).await?,
            select_names: session.prepare_read(&select_names).await?,
            delete_parked: session.prepare_write(&delete_parked).await?,
            session,
            log: log.to_owned(),
            parked_max,
            counted_every,
            stamps: Stamps::default(),
            process: i64::from(process),
            since_counted: Mutex::default(),
        })
    }

    fn next_name(&self) -> i64 {
        (self.stamps.next().us << PROCESS_BITS) | self.process
    }

    async fn park_of(&self, partition: u32, receipts: &[Receipt]) -> Result<(), PortError> {
        for batch in receipts.chunks(BATCH_ROWS_MAX.min(self.counted_every)) {
            if self.is_to_be_counted(partition, batch.len()) {
                self.give_up_the_oldest(partition).await?;
            }
            let mut rows = Vec::with_capacity(batch.len());
            for receipt in batch {
                let (_, offset) = position_columns(receipt.position)?;
                let (status, reason) = status_columns(&receipt.status);
                rows.push((
                    &self.log,
                    i64::from(partition),
                    self.next_name(),
                    receipt.lane.as_str(),
                    notice_blob(receipt.notice),
                    offset,
                    receipt.gateway_id.as_str(),
                    status,
                    reason,
                    instant(receipt.arrived),
                ));
            }
            self.session.write_partition(&self.insert_parked, &rows).await?;
        }
        Ok(())
    }

    /// Notes that so many are parked; whether all are to be counted before.
    fn is_to_be_counted(&self, partition: u32, parked: usize) -> bool {
        let mut since_counted = self.since_counted.lock().unwrap_or_else(PoisonError::into_inner);
        match since_counted.get_mut(&partition) {
            Some(since) if *since + parked <= self.counted_every => {
                *since += parked;
                false
            }
            _ => {
                since_counted.insert(partition, parked);
                true
            }
        }
    }

    /// Makes room for those that are parked until the next count.
    async fn give_up_the_oldest(&self, partition: u32) -> Result<(), PortError> {
        let names: Vec<(i64,)> =
            self.session.rows(&self.select_names, (&self.log, i64::from(partition))).await?;
        let kept_max = self.parked_max.saturating_sub(self.counted_every);
        let given_up = names.len().saturating_sub(kept_max);
        if given_up == 0 {
            return Ok(());
        }
        let oldest: Vec<i64> = names.into_iter().take(given_up).map(|(name,)| name).collect();
        self.delete(partition, &oldest).await?;
        metrics::counter!("gatebell_parked_receipts_given_up_total")
            .increment(u64::try_from(given_up).unwrap_or(u64::MAX));
        tracing::warn!(partition, given_up, "too many receipts match no notice: the oldest were given up");
        Ok(())
    }

    async fn delete(&self, partition: u32, names: &[i64]) -> Result<(), PortError> {
        for batch in names.chunks(BATCH_ROWS_MAX) {
            let rows: Vec<_> = batch.iter().map(|name| (&self.log, i64::from(partition), *name)).collect();
            self.session.write_partition(&self.delete_parked, &rows).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl ReceiptProgress for CqlReceiptProgress {
    async fn committed(&self, partition: u32) -> Result<u64, PortError> {
        let row: Option<(i64,)> =
            self.session.row(&self.select_commit, (&self.log, i64::from(partition))).await?;
        row.map_or(Ok(0), |(sequence,)| u64::try_from(sequence).map_err(|_| unreadable("sequence")))
    }

    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError> {
        if sequence == 0 {
            return Ok(());
        }
        let sequence = signed(sequence)?;
        self.session.write(&self.insert_commit, (&self.log, i64::from(partition), sequence, sequence)).await
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        let mut by_partition: BTreeMap<u32, Vec<Receipt>> = BTreeMap::new();
        for receipt in receipts {
            by_partition.entry(receipt.position.partition).or_default().push(receipt);
        }
        for (partition, receipts) in by_partition {
            self.park_of(partition, &receipts).await?;
        }
        Ok(())
    }

    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let rows: Vec<ParkedRow> =
            self.session.rows(&self.select_parked, (&self.log, i64::from(partition), limit)).await?;
        rows.into_iter().map(logged_receipt).collect()
    }

    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError> {
        let names = sequences.into_iter().map(signed).collect::<Result<Vec<_>, _>>()?;
        self.delete(partition, &names).await
    }
}

fn signed(sequence: u64) -> Result<i64, PortError> {
    i64::try_from(sequence)
        .map_err(|_| store_error(format_args!("sequence {sequence} is beyond what a log can have")))
}

/// A status as it is stored: its word, and the reason of a failure.
pub(super) fn status_columns(status: &ReceiptStatus) -> (&'static str, Option<&str>) {
    match status {
        ReceiptStatus::Delivered => ("delivered", None),
        ReceiptStatus::Failed { reason } => ("failed", Some(reason.as_str())),
        ReceiptStatus::Underway => ("underway", None),
    }
}

/// The status of these columns.
pub(super) fn status_of(status: &str, reason: Option<String>) -> Result<ReceiptStatus, PortError> {
    match status {
        "delivered" => Ok(ReceiptStatus::Delivered),
        "failed" => Ok(ReceiptStatus::Failed { reason: CompactString::from(reason.unwrap_or_default()) }),
        "underway" => Ok(ReceiptStatus::Underway),
        _ => Err(unreadable("status")),
    }
}

fn logged_receipt(row: ParkedRow) -> Result<LoggedReceipt, PortError> {
    let status = status_of(&row.status, row.reason)?;
    Ok(LoggedReceipt {
        sequence: u64::try_from(row.sequence).map_err(|_| unreadable("sequence"))?,
        receipt: Receipt {
            lane: word(&row.lane, "lane")?,
            notice: notice(&row.notice)?,
            position: position(row.log_partition, row.log_offset)?,
            gateway_id: CompactString::from(row.gateway_id),
            status,
            arrived: Timestamp::from_millis(row.arrived.0),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::testing::contract::receipts::{PARTITION, receipt};

    use super::super::fixture;
    use super::*;

    async fn progress(log: &str) -> CqlReceiptProgress {
        CqlReceiptProgress::new(fixture::session().await, log).await.unwrap()
    }

    async fn parked(progress: &CqlReceiptProgress, limit: usize) -> Vec<Receipt> {
        let parked = progress.parked(PARTITION, limit).await.unwrap();
        assert!(parked.is_sorted_by(|one, next| one.sequence < next.sequence), "{parked:?}");
        parked.into_iter().map(|logged| logged.receipt).collect()
    }

    #[tokio::test]
    async fn a_commit_is_found_by_the_next_owner_and_never_goes_back() {
        let log = fixture::unique();
        let owner = progress(&log).await;
        assert_eq!(owner.committed(PARTITION).await.unwrap(), 0);
        for sequence in [5, 9, 7, 0, 9] {
            owner.commit(PARTITION, sequence).await.unwrap();
        }
        let successor = progress(&log).await;
        assert_eq!(successor.committed(PARTITION).await.unwrap(), 9);
        assert_eq!(successor.committed(PARTITION + 1).await.unwrap(), 0);
        owner.commit(PARTITION, 8).await.unwrap();
        assert_eq!(successor.committed(PARTITION).await.unwrap(), 9, "a late one changes nothing");
    }

    #[tokio::test]
    async fn parked_receipts_wait_in_their_order_until_they_are_forgotten() {
        let log = fixture::unique();
        let (owner, successor) = (progress(&log).await, progress(&log).await);
        let failed = ReceiptStatus::Failed { reason: CompactString::new("6") };
        let all =
            [receipt(3, ReceiptStatus::Delivered), receipt(1, failed), receipt(2, ReceiptStatus::Underway)];
        owner.park(all[..2].to_vec()).await.unwrap();
        successor.park(all[2..].to_vec()).await.unwrap();
        let mut elsewhere = receipt(4, ReceiptStatus::Delivered);
        elsewhere.position.partition = PARTITION + 1;
        owner.park(vec![elsewhere.clone()]).await.unwrap();
        owner.park(Vec::new()).await.unwrap();

        assert_eq!(parked(&successor, 10).await, all);
        assert_eq!(parked(&successor, 2).await, all[..2]);
        assert_eq!(parked(&successor, 0).await, []);
        let second = successor.parked(PARTITION, 10).await.unwrap()[1].sequence;
        successor.unpark(PARTITION, vec![second, second, 1]).await.unwrap();
        successor.unpark(PARTITION, Vec::new()).await.unwrap();
        assert_eq!(parked(&owner, 10).await, [all[0].clone(), all[2].clone()]);
        assert_eq!(owner.parked(PARTITION + 1, 10).await.unwrap()[0].receipt, elsewhere);
    }

    #[tokio::test]
    async fn too_many_parked_receipts_give_way_from_the_oldest_on() {
        let (session, log) = (fixture::session().await, fixture::unique());
        let owner = CqlReceiptProgress::with_limits(session, &log, 12, 3).await.unwrap();
        let all: Vec<Receipt> = (0..40).map(|number| receipt(number, ReceiptStatus::Delivered)).collect();
        for some in all.chunks(4) {
            owner.park(some.to_vec()).await.unwrap();
            assert!(parked(&owner, 100).await.len() <= 12);
        }
        let kept = parked(&owner, 100).await;
        assert!(kept.len() >= 9, "{} are left", kept.len());
        assert_eq!(kept, all[all.len() - kept.len()..]);
    }
}
