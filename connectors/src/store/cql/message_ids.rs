//! The gateways' message ids on a shared store, and the receipts that came before their id.
//!
//! An id is a row of its own that leaves by itself when no receipt is waited for any more. A parked receipt lies in the hour
//! of its parking; its name is the microsecond of that and a number of the process, so a name tells its hour, and what is
//! looked at are the hours of one day. They are counted from time to time only: so seldom that it costs little.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use compact_str::CompactString;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use gatebell_engine::ids::LaneName;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::message_ids::{
    MessageIds, NoticePlace, ParkedReceipt, UNPLACED_RECEIPTS_MAX, UnplacedReceipt,
};
use gatebell_engine::time::Timestamp;
use scylla::value::CqlTimestamp;

use super::error::store_error;
use super::ledger_rows::{Stamps, instant, notice, notice_blob, position, position_columns, unreadable};
use super::receipt_progress::{status_columns, status_of};
use super::session::{CqlSession, Read, Write};

/// Bits of a parked receipt's name that are the process's own: the microseconds before them fit 63 bits until 2255.
const PROCESS_BITS: u32 = 10;
const HOUR_US: i64 = 3_600_000_000;
/// Hours that are looked at beside this one: a day, and one for clocks that differ. Rows live for somewhat longer.
const HOURS_BACK: i64 = 25;
/// Parked receipts are counted before a process parks its first, and again whenever it has parked so many more.
const COUNTED_EVERY_RECEIPTS: usize = 500;
/// Requests that take receipts away at once; a callback waits for them when too many are parked.
const DELETES_AT_ONCE: usize = 32;

/// The ids of one lane's gateway, for the notices of one log.
#[derive(Debug)]
pub struct CqlMessageIds {
    session: Arc<CqlSession>,
    log: String,
    lane: LaneName,
    parked_max: usize,
    counted_every: usize,
    /// How many this process has parked since all were counted; as many as it takes to count them, at first.
    since_counted: AtomicUsize,
    stamps: Stamps,
    process: i64,
    insert: Write,
    select: Read,
    insert_parked: Write,
    select_parked: Read,
    delete_parked: Write,
}

impl CqlMessageIds {
    /// What the gateway of `lane` calls the messages about notices of the log named `log`, its cluster in the name.
    pub async fn new(session: Arc<CqlSession>, log: &str, lane: &LaneName) -> Result<Self, PortError> {
        Self::with_limits(session, log, lane, UNPLACED_RECEIPTS_MAX, COUNTED_EVERY_RECEIPTS).await
    }

    async fn with_limits(
        session: Arc<CqlSession>,
        log: &str,
        lane: &LaneName,
        parked_max: usize,
        counted_every: usize,
    ) -> Result<Self, PortError> {
        let process = getrandom::u32().map_err(store_error)? % (1 << PROCESS_BITS);
        let insert = session.prepare_write(
            "INSERT INTO keyspace.message_ids (log, lane, gateway_id, log_partition, log_offset, notice)
             VALUES (?, ?, ?, ?, ?, ?)",
        );
        let select = session.prepare_read(
            "SELECT log_partition, log_offset, notice FROM keyspace.message_ids
             WHERE log = ? AND lane = ? AND gateway_id = ?",
        );
        let insert_parked = session.prepare_write(
            "INSERT INTO keyspace.unplaced_receipts (log, lane, hour, sequence, gateway_id, status, reason, arrived)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        );
        let select_parked = session.prepare_read(
            "SELECT sequence, gateway_id, status, reason, arrived FROM keyspace.unplaced_receipts
             WHERE log = ? AND lane = ? AND hour = ? AND sequence > ? LIMIT ?",
        );
        let delete_parked = session.prepare_write(
            "DELETE FROM keyspace.unplaced_receipts WHERE log = ? AND lane = ? AND hour = ? AND sequence = ?",
        );
        Ok(Self {
            insert: insert.await?,
            select: select.await?,
            insert_parked: insert_parked.await?,
            select_parked: select_parked.await?,
            delete_parked: delete_parked.await?,
            session,
            log: log.to_owned(),
            lane: lane.clone(),
            parked_max,
            counted_every,
            since_counted: AtomicUsize::new(counted_every),
            stamps: Stamps::default(),
            process: i64::from(process),
        })
    }

    /// Makes room for those that this process parks until it counts again.
    async fn give_up_the_oldest(&self) -> Result<(), PortError> {
        let parked = self.parked(0, usize::MAX).await?;
        let kept_max = self.parked_max.saturating_sub(self.counted_every);
        let given_up = parked.len().saturating_sub(kept_max);
        if given_up == 0 {
            return Ok(());
        }
        self.unpark(parked.into_iter().take(given_up).map(|parked| parked.sequence).collect()).await?;
        metrics::counter!("gatebell_parked_receipts_given_up_total")
            .increment(u64::try_from(given_up).unwrap_or(u64::MAX));
        tracing::warn!(lane = %self.lane, given_up, "too many receipts have no known message id: the oldest were given up");
        Ok(())
    }

    async fn parked_in(&self, hour: i64, after: i64, limit: i32) -> Result<Vec<ParkedReceipt>, PortError> {
        let values = (&self.log, self.lane.as_str(), hour, after, limit);
        let rows: Vec<(i64, String, String, Option<String>, CqlTimestamp)> =
            self.session.rows(&self.select_parked, values).await?;
        rows.into_iter()
            .map(|(sequence, gateway_id, status, reason, arrived)| {
                Ok(ParkedReceipt {
                    sequence: u64::try_from(sequence).map_err(|_| unreadable("sequence"))?,
                    receipt: UnplacedReceipt {
                        gateway_id: CompactString::from(gateway_id),
                        status: status_of(&status, reason)?,
                        arrived: Timestamp::from_millis(arrived.0),
                    },
                })
            })
            .collect()
    }
}

#[async_trait]
impl MessageIds for CqlMessageIds {
    /// When it was accepted is not asked: rows live from when they are written.
    async fn remember(
        &self,
        gateway_id: &str,
        place: NoticePlace,
        _accepted_at: Timestamp,
    ) -> Result<(), PortError> {
        let (partition, offset) = position_columns(place.position)?;
        let lane = self.lane.as_str();
        let row = (&self.log, lane, gateway_id, partition, offset, notice_blob(place.notice));
        self.session.write(&self.insert, row).await
    }

    async fn find(&self, gateway_id: &str) -> Result<Option<NoticePlace>, PortError> {
        // A key must not be empty.
        if gateway_id.is_empty() {
            return Ok(None);
        }
        let values = (&self.log, self.lane.as_str(), gateway_id);
        let row: Option<(i64, i64, Vec<u8>)> = self.session.row(&self.select, values).await?;
        row.map(|(partition, offset, id)| {
            Ok(NoticePlace { position: position(partition, offset)?, notice: notice(&id)? })
        })
        .transpose()
    }

    async fn park(&self, receipt: UnplacedReceipt) -> Result<(), PortError> {
        if self.since_counted.load(Ordering::Relaxed) >= self.counted_every {
            self.give_up_the_oldest().await?;
            self.since_counted.store(0, Ordering::Relaxed);
        }
        self.since_counted.fetch_add(1, Ordering::Relaxed);
        let us = self.stamps.next().us;
        let (status, reason) = status_columns(&receipt.status);
        let row = (
            &self.log,
            self.lane.as_str(),
            us.div_euclid(HOUR_US),
            (us << PROCESS_BITS) | self.process,
            receipt.gateway_id.as_str(),
            status,
            reason,
            instant(receipt.arrived),
        );
        self.session.write(&self.insert_parked, row).await
    }

    async fn parked(&self, after: u64, limit: usize) -> Result<Vec<ParkedReceipt>, PortError> {
        let after = signed(after)?;
        let this_hour = jiff::Timestamp::now().as_microsecond().div_euclid(HOUR_US);
        let first_hour = hour_of(after).max(this_hour - HOURS_BACK);
        let mut found = Vec::new();
        for hour in first_hour..=this_hour + 1 {
            let room = i32::try_from(limit - found.len()).unwrap_or(i32::MAX);
            if room == 0 {
                break;
            }
            found.extend(self.parked_in(hour, after, room).await?);
        }
        Ok(found)
    }

    async fn unpark(&self, sequences: Vec<u64>) -> Result<(), PortError> {
        let deletes = sequences.into_iter().map(|sequence| async move {
            let sequence = signed(sequence)?;
            let values = (&self.log, self.lane.as_str(), hour_of(sequence), sequence);
            self.session.write(&self.delete_parked, values).await
        });
        stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).try_collect().await
    }
}

/// The hour in which a receipt of that name was parked.
fn hour_of(sequence: i64) -> i64 {
    (sequence >> PROCESS_BITS).div_euclid(HOUR_US)
}

fn signed(sequence: u64) -> Result<i64, PortError> {
    i64::try_from(sequence)
        .map_err(|_| store_error(format_args!("sequence {sequence} is beyond what a table can have")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::message_ids_contract;
    use gatebell_engine::ports::message_ids::IDS_KEPT_DAYS;
    use gatebell_engine::testing::contract::ledger::lane;
    use gatebell_engine::testing::contract::message_ids::{place, unplaced};

    use super::super::fixture;
    use super::*;

    async fn of_log(log: &str) -> CqlMessageIds {
        CqlMessageIds::new(fixture::session().await, log, &lane()).await.unwrap()
    }

    async fn fresh() -> Box<CqlMessageIds> {
        Box::new(of_log(&fixture::unique()).await)
    }

    message_ids_contract!(contract, fresh);

    #[tokio::test]
    async fn what_one_process_writes_another_finds() {
        let log = fixture::unique();
        let (one, other) = (of_log(&log).await, of_log(&log).await);
        one.remember("M1", place(1), Timestamp::from_millis(0)).await.unwrap();
        assert_eq!(other.find("M1").await.unwrap(), Some(place(1)));
        one.park(unplaced(1)).await.unwrap();
        other.park(unplaced(2)).await.unwrap();
        let parked = other.parked(0, 10).await.unwrap();
        assert_eq!(parked.len(), 2);
        other.unpark(vec![parked[0].sequence]).await.unwrap();
        assert_eq!(one.parked(0, 10).await.unwrap(), parked[1..]);
    }

    #[tokio::test]
    async fn rows_leave_by_themselves_after_receipts_may_come() {
        let (session, log) = (fixture::session().await, fixture::unique());
        let ids = of_log(&log).await;
        ids.remember("M1", place(1), Timestamp::from_millis(0)).await.unwrap();
        let ttl =
            "SELECT TTL(notice) FROM keyspace.message_ids WHERE log = ? AND lane = ? AND gateway_id = ?";
        let ttl = session.prepare_read(ttl).await.unwrap();
        let found: Option<(i32,)> = session.row(&ttl, (&log, lane().as_str(), "M1")).await.unwrap();
        let (left_s,) = found.unwrap();
        let kept_s = IDS_KEPT_DAYS * 86_400;
        assert!((kept_s - 60..=kept_s).contains(&left_s), "{left_s} s");
    }

    #[tokio::test]
    async fn too_many_parked_receipts_give_way_from_the_oldest_on() {
        let (session, log) = (fixture::session().await, fixture::unique());
        let ids = CqlMessageIds::with_limits(session, &log, &lane(), 12, 3).await.unwrap();
        for number in 0..40 {
            ids.park(unplaced(number)).await.unwrap();
            assert!(ids.parked(0, 100).await.unwrap().len() <= 12);
        }
        let kept = ids.parked(0, 100).await.unwrap();
        assert!(kept.len() >= 9, "{} are left", kept.len());
        assert_eq!(kept.last().unwrap().receipt.gateway_id, "M39");
    }
}
