//! The gateways' message ids in `store.db`, and the receipts that came before their id.
//!
//! A row an id, for gateways whose receipts name nothing else. Rows leave when the day of their submit is so long past that
//! no receipt is waited for any more; that is looked at once a day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use async_trait::async_trait;
use gatebell_engine::ids::{LaneName, LogPosition};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::message_ids::{
    IDS_KEPT_DAYS, MessageIds, NoticePlace, ParkedReceipt, UNPLACED_RECEIPTS_MAX, UnplacedReceipt,
};
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger_rows::{notice, notice_blob, text};
use super::receipts::{status_columns, status_of};
use crate::sqlite::{Readers, Schema, Writer};

/// The ids' part of `store.db`.
pub(super) const MESSAGE_IDS: Schema = Schema { name: "message_ids", steps: &[FIRST] };

/// `AUTOINCREMENT`, since a sequence may not come again when nothing is parked.
const FIRST: &str = "
CREATE TABLE message_ids (
    lane       TEXT    NOT NULL,
    gateway_id TEXT    NOT NULL,
    partition  INTEGER NOT NULL,
    offset     INTEGER NOT NULL,
    notice     BLOB    NOT NULL CHECK (length(notice) = 16),
    utc_day    INTEGER NOT NULL,
    PRIMARY KEY (lane, gateway_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_ids_by_day ON message_ids (utc_day);
CREATE TABLE unplaced_receipts (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    lane       TEXT    NOT NULL,
    gateway_id TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('delivered', 'failed', 'underway')),
    reason     TEXT,
    arrived    INTEGER NOT NULL
) STRICT;
CREATE INDEX unplaced_receipts_by_lane ON unplaced_receipts (lane, sequence);
";

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// The ids of one lane's gateway.
#[derive(Debug)]
pub struct EmbeddedMessageIds {
    writer: Arc<Writer>,
    readers: Readers,
    lane: LaneName,
    /// The day on which old ids were last cleared away.
    cleared_on: AtomicI32,
}

impl EmbeddedMessageIds {
    pub(super) fn new(writer: Arc<Writer>, readers: Readers, lane: LaneName) -> Self {
        Self { writer, readers, lane, cleared_on: AtomicI32::new(i32::MIN) }
    }
}

#[async_trait]
impl MessageIds for EmbeddedMessageIds {
    async fn remember(
        &self,
        gateway_id: &str,
        place: NoticePlace,
        accepted_at: Timestamp,
    ) -> Result<(), PortError> {
        let (lane, gateway_id) = (self.lane.clone(), gateway_id.to_owned());
        let day = utc_day(accepted_at);
        let is_new_day = self.cleared_on.fetch_max(day, Ordering::Relaxed) < day;
        self.writer
            .write(move |connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO message_ids (lane, gateway_id, partition, offset, notice, utc_day)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                         ON CONFLICT (lane, gateway_id) DO UPDATE SET partition = excluded.partition,
                             offset = excluded.offset, notice = excluded.notice, utc_day = excluded.utc_day",
                    )?
                    .execute(params![
                        lane.as_str(),
                        gateway_id,
                        place.position.partition,
                        place.position.offset,
                        notice_blob(place.notice),
                        day,
                    ])?;
                if is_new_day {
                    // Of all lanes, also of those that are not configured any more.
                    connection
                        .prepare_cached("DELETE FROM message_ids WHERE utc_day < ?1")?
                        .execute([day - IDS_KEPT_DAYS])?;
                }
                Ok(())
            })
            .await
    }

    async fn find(&self, gateway_id: &str) -> Result<Option<NoticePlace>, PortError> {
        let (lane, gateway_id) = (self.lane.clone(), gateway_id.to_owned());
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT partition, offset, notice FROM message_ids WHERE lane = ?1 AND gateway_id = ?2",
                    )?
                    .query_row(params![lane.as_str(), gateway_id], |row| {
                        let position = LogPosition { partition: row.get(0)?, offset: row.get(1)? };
                        Ok(NoticePlace { position, notice: notice(row, 2)? })
                    })
                    .optional()
            })
            .await
    }

    async fn park(&self, receipt: UnplacedReceipt) -> Result<(), PortError> {
        let lane = self.lane.clone();
        let given_up = self
            .writer
            .write(move |connection| {
                let (status, reason) = status_columns(&receipt.status);
                connection
                    .prepare_cached(
                        "INSERT INTO unplaced_receipts (lane, gateway_id, status, reason, arrived)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![
                        lane.as_str(),
                        receipt.gateway_id.as_str(),
                        status,
                        reason,
                        receipt.arrived.as_millis(),
                    ])?;
                give_up_the_oldest(connection, &lane, UNPLACED_RECEIPTS_MAX)
            })
            .await?;
        if given_up > 0 {
            metrics::counter!("gatebell_parked_receipts_given_up_total").increment(given_up);
            tracing::warn!(lane = %self.lane, given_up, "too many receipts have no known message id: the oldest were given up");
        }
        Ok(())
    }

    async fn parked(&self, after: u64, limit: usize) -> Result<Vec<ParkedReceipt>, PortError> {
        let lane = self.lane.clone();
        self.readers
            .read(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT sequence, gateway_id, status, reason, arrived FROM unplaced_receipts
                         WHERE lane = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                    )?
                    .query_map(params![lane.as_str(), after, limit], parked_receipt)?
                    .collect()
            })
            .await
    }

    async fn unpark(&self, sequences: Vec<u64>) -> Result<(), PortError> {
        if sequences.is_empty() {
            return Ok(());
        }
        self.writer
            .write(move |connection| {
                let mut delete =
                    connection.prepare_cached("DELETE FROM unplaced_receipts WHERE sequence = ?1")?;
                for sequence in sequences {
                    delete.execute([sequence])?;
                }
                Ok(())
            })
            .await
    }
}

fn utc_day(instant: Timestamp) -> i32 {
    i32::try_from(instant.as_millis().div_euclid(DAY_MS)).unwrap_or(i32::MAX)
}

/// Keeps the youngest `parked_max` of `lane`; gives how many went.
fn give_up_the_oldest(connection: &Connection, lane: &LaneName, parked_max: usize) -> rusqlite::Result<u64> {
    let parked: usize = connection
        .prepare_cached("SELECT count(*) FROM unplaced_receipts WHERE lane = ?1")?
        .query_row([lane.as_str()], |row| row.get(0))?;
    let too_many = parked.saturating_sub(parked_max);
    if too_many > 0 {
        connection
            .prepare_cached(
                "DELETE FROM unplaced_receipts WHERE sequence IN (
                     SELECT sequence FROM unplaced_receipts WHERE lane = ?1 ORDER BY sequence LIMIT ?2)",
            )?
            .execute(params![lane.as_str(), too_many])?;
    }
    Ok(u64::try_from(too_many).unwrap_or(u64::MAX))
}

fn parked_receipt(row: &Row<'_>) -> rusqlite::Result<ParkedReceipt> {
    Ok(ParkedReceipt {
        sequence: row.get(0)?,
        receipt: UnplacedReceipt {
            gateway_id: text(row, 1)?,
            status: status_of(row, 2, 3)?,
            arrived: Timestamp::from_millis(row.get(4)?),
        },
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::message_ids_contract;
    use gatebell_engine::testing::contract::ledger::lane;
    use gatebell_engine::testing::contract::message_ids::{place, unplaced};

    use super::super::store_fixture::{fresh_message_ids, open};
    use super::*;

    message_ids_contract!(contract, fresh_message_ids);

    fn day(number: i64) -> Timestamp {
        Timestamp::from_millis((20_000 + number) * DAY_MS)
    }

    #[tokio::test]
    async fn ids_and_parked_receipts_are_there_again_after_a_stop_and_a_lanes_own() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory);
        let ids = store.message_ids(&lane());
        ids.remember("M1", place(1), day(0)).await.unwrap();
        ids.park(unplaced(2)).await.unwrap();
        drop((ids, store));

        let store = open(&directory);
        let again = store.message_ids(&lane());
        assert_eq!(again.find("M1").await.unwrap(), Some(place(1)));
        assert_eq!(again.parked(0, 10).await.unwrap().len(), 1);
        let other = store.message_ids(&LaneName::new("other").unwrap());
        assert_eq!(other.find("M1").await.unwrap(), None);
        assert_eq!(other.parked(0, 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn ids_that_no_receipt_is_waited_for_any_more_leave() {
        let ids = fresh_message_ids().await;
        ids.remember("M1", place(1), day(0)).await.unwrap();
        ids.remember("M2", place(2), day(1)).await.unwrap();
        ids.remember("M3", place(3), day(1 + i64::from(IDS_KEPT_DAYS))).await.unwrap();
        assert_eq!(ids.find("M1").await.unwrap(), None);
        assert_eq!(ids.find("M2").await.unwrap(), Some(place(2)));
        assert_eq!(ids.find("M3").await.unwrap(), Some(place(3)));
    }

    #[tokio::test]
    async fn too_many_parked_receipts_give_way_from_the_oldest_on() {
        let ids = fresh_message_ids().await;
        for number in 0..5 {
            ids.park(unplaced(number)).await.unwrap();
        }
        let given_up =
            ids.writer.write(|connection| give_up_the_oldest(connection, &lane(), 3)).await.unwrap();
        assert_eq!(given_up, 2);
        let kept = ids.parked(0, 10).await.unwrap();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[0].receipt.gateway_id, "M2");
    }
}
