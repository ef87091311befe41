//! Which notices wait for a receipt: an index beside the entries, by partition, lane and hour of submission.
//!
//! The index is a hint and the entries are the truth. A row is written before its `submitted` entry and leaves after its
//! end's entry, so after a crash a row may be too many and never too few; whoever reads it looks at the entries of the
//! notice. What is too many leaves when it is found: at once where the notice has ended or was submitted again, and once
//! it is past doubt where it never was submitted.
//!
//! *Cost of a look.* One read of the hours that still wait, one of each such hour from the place on that the look begins
//! at, until there are enough rows, and one of the entries of each row. An hour whose receipts have come is read over the
//! marks of what left it until the store has cleared them away (an hour after, at the next compaction), and is forgotten
//! once it is past and empty. So a look costs as much as there are hours with a receipt missing: those of the last three
//! days, when every notice is given up.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use gatebell_engine::ids::{LaneName, NoticeId};
use gatebell_engine::ledger::{Event, LedgerEntry};
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Day;

use super::ledger_entries::Entries;
use super::ledger_rows::{NewlyWritten, Written, notice, notice_blob, position, position_columns};
use super::session::{CqlSession, Read, Write};

/// Rows of one hour read at once.
const ROWS_AT_ONCE: usize = 100;
/// An hour is past, and a row without its entry beyond doubt, so long after: no request is under way for so long.
const PAST_DOUBT_HOURS: i64 = 2;
/// Hours that are known to be written down; when there are more, all are forgotten and written down again.
const KNOWN_HOURS_MAX: usize = 4_096;

/// The index of one log.
#[derive(Debug)]
pub(super) struct Awaiting {
    session: Arc<CqlSession>,
    log: String,
    known_hours: Mutex<HashSet<(u32, LaneName, i64)>>,
    insert: Write,
    delete: Write,
    insert_hour: Write,
    delete_hour: Write,
    select_hours: Read,
    select: Read,
}

/// One submission that may wait.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Waiting {
    written: Written,
    offset: i64,
    notice: NoticeId,
    attempt: i64,
}

impl Waiting {
    fn of(NewlyWritten { written, entry }: NewlyWritten<'_>) -> Result<Self, PortError> {
        let (_, offset) = position_columns(entry.position)?;
        Ok(Self { written, offset, notice: entry.notice, attempt: i64::from(entry.attempt) })
    }
}

/// What the entries say of a row of the index.
enum Standing {
    /// It waits: its last `submitted` entry.
    Waits(Box<LedgerEntry>),
    /// It has ended, or was submitted again since.
    Over,
    /// Its entry is not there, yet or for ever: not written, or written by another row's writer before.
    NotSubmitted,
}

impl Awaiting {
    pub(super) async fn new(session: Arc<CqlSession>, log: &str) -> Result<Self, PortError> {
        let insert = session.prepare_write(
            "INSERT INTO keyspace.awaiting (log, log_partition, lane, hour, written, log_offset, notice, attempt)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
        );
        let delete = session.prepare_write(
            "DELETE FROM keyspace.awaiting USING TIMESTAMP ? WHERE log = ? AND log_partition = ? AND lane = ? AND hour = ?
             AND written = ? AND log_offset = ? AND notice = ? AND attempt = ?",
        );
        let insert_hour = session.prepare_write(
            "INSERT INTO keyspace.awaiting_hours (log, log_partition, lane, hour) VALUES (?, ?, ?, ?)",
        );
        let delete_hour = session.prepare_write(
            "DELETE FROM keyspace.awaiting_hours WHERE log = ? AND log_partition = ? AND lane = ? AND hour = ?",
        );
        let select_hours = session.prepare_read(
            "SELECT hour FROM keyspace.awaiting_hours WHERE log = ? AND log_partition = ? AND lane = ?",
        );
        let select = session.prepare_read(
            "SELECT written, log_offset, notice, attempt FROM keyspace.awaiting
             WHERE log = ? AND log_partition = ? AND lane = ? AND hour = ?
             AND (written, log_offset, notice, attempt) > (?, ?, ?, ?) LIMIT ?",
        );
        Ok(Self {
            insert: insert.await?,
            delete: delete.await?,
            insert_hour: insert_hour.await?,
            delete_hour: delete_hour.await?,
            select_hours: select_hours.await?,
            select: select.await?,
            known_hours: Mutex::default(),
            log: log.to_owned(),
            session,
        })
    }

    /// Writes down that the `submitted` ones among `entries` will wait; before they are written.
    pub(super) async fn expect(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        let submitted = entries.iter().filter(|written| written.entry.event == Event::Submitted);
        try_join_all(submitted.map(async |submitted| {
            let Some(lane) = &submitted.entry.gateway else { return Ok(()) };
            self.write_hour(submitted.entry.position.partition, lane, hour_of(submitted.written)).await?;
            let partition = i64::from(submitted.entry.position.partition);
            let Waiting { written, offset, notice, attempt } = Waiting::of(*submitted)?;
            let row = (
                &self.log,
                partition,
                lane.as_str(),
                hour_of(written),
                written.us,
                offset,
                notice_blob(notice),
                attempt,
                written.us,
            );
            self.session.write(&self.insert, row).await
        }))
        .await?;
        Ok(())
    }

    /// Takes what the ends among `written` were waited for out of the index; after they are written.
    pub(super) async fn settle(
        &self,
        entries: &Entries,
        written: &[NewlyWritten<'_>],
    ) -> Result<(), PortError> {
        // The other ends are never of a submitted notice, but for races, which the reader mends.
        let ended: BTreeSet<_> = written
            .iter()
            .map(|written| written.entry)
            .filter(|entry| matches!(entry.event, Event::Delivered | Event::Failed))
            .map(|entry| (entry.notice, entry.position))
            .collect();
        try_join_all(ended.into_iter().map(async |(notice, position)| {
            let known = entries.of_notice(position, notice).await?;
            let submitted = known.iter().filter(|known| known.entry.event == Event::Submitted);
            try_join_all(submitted.map(async |submitted| {
                let Some(lane) = &submitted.entry.gateway else { return Ok(()) };
                self.delete(position.partition, lane, &Waiting::of(submitted.as_new())?).await
            }))
            .await
        }))
        .await?;
        Ok(())
    }

    /// At most `limit` notices that wait, by their last submission, after the one of `after`.
    pub(super) async fn read(
        &self,
        entries: &Entries,
        partition: u32,
        lane: &LaneName,
        since: Day,
        after: Option<&LedgerEntry>,
        limit: usize,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let mut place = match after {
            None => None,
            Some(after) => self.place_of(entries, after).await?,
        };
        let first_hour = place.as_ref().map_or(i64::MIN, |place| hour_of(place.written));
        let this_hour = hour_of(Written { us: jiff::Timestamp::now().as_microsecond() });
        let mut found = Vec::new();
        for hour in self.hours(partition, lane).await?.into_iter().filter(|hour| *hour >= first_hour) {
            let is_past = hour + PAST_DOUBT_HOURS < this_hour;
            let mut is_empty = place.is_none();
            loop {
                let rows = self.rows_after(partition, lane, hour, place.as_ref()).await?;
                let Some(last) = rows.last() else { break };
                place = Some(last.clone());
                let standings =
                    try_join_all(rows.iter().map(|row| standing(entries, partition, row))).await?;
                for (row, standing) in rows.iter().zip(standings) {
                    match standing {
                        Standing::Waits(entry) => {
                            is_empty = false;
                            if entry.day >= since {
                                found.push(*entry);
                            }
                        }
                        Standing::NotSubmitted if !is_past => is_empty = false,
                        Standing::Over | Standing::NotSubmitted => self.delete(partition, lane, row).await?,
                    }
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
            }
            if is_past && is_empty {
                let row = (&self.log, i64::from(partition), lane.as_str(), hour);
                self.session.write(&self.delete_hour, row).await?;
            }
            place = None;
        }
        Ok(found)
    }

    /// Where the submission of `entry` stands, if it is in the ledger.
    async fn place_of(&self, entries: &Entries, entry: &LedgerEntry) -> Result<Option<Waiting>, PortError> {
        let known = entries.of_notice(entry.position, entry.notice).await?;
        known
            .iter()
            .find(|known| known.entry.event == entry.event && known.entry.attempt == entry.attempt)
            .map(|submitted| Waiting::of(submitted.as_new()))
            .transpose()
    }

    /// The hours that may have rows, oldest first.
    async fn hours(&self, partition: u32, lane: &LaneName) -> Result<Vec<i64>, PortError> {
        let values = (&self.log, i64::from(partition), lane.as_str());
        let rows: Vec<(i64,)> = self.session.rows(&self.select_hours, values).await?;
        Ok(rows.into_iter().map(|(hour,)| hour).collect())
    }

    async fn rows_after(
        &self,
        partition: u32,
        lane: &LaneName,
        hour: i64,
        after: Option<&Waiting>,
    ) -> Result<Vec<Waiting>, PortError> {
        // Before every row: no entry is written in the year that this stands for.
        let (written, offset, after_notice, attempt) = after.map_or((0, 0, Vec::new(), 0), |after| {
            (after.written.us, after.offset, notice_blob(after.notice).to_vec(), after.attempt)
        });
        let limit = i32::try_from(ROWS_AT_ONCE).expect("a small number");
        let values = (
            &self.log,
            i64::from(partition),
            lane.as_str(),
            hour,
            written,
            offset,
            after_notice,
            attempt,
            limit,
        );
        let rows: Vec<(i64, i64, Vec<u8>, i64)> = self.session.rows(&self.select, values).await?;
        rows.into_iter()
            .map(|(us, offset, id, attempt)| {
                Ok(Waiting { written: Written { us }, offset, notice: notice(&id)?, attempt })
            })
            .collect()
    }

    async fn write_hour(&self, partition: u32, lane: &LaneName, hour: i64) -> Result<(), PortError> {
        let place = (partition, lane.clone(), hour);
        if self.known_hours.lock().unwrap_or_else(PoisonError::into_inner).contains(&place) {
            return Ok(());
        }
        let row = (&self.log, i64::from(partition), lane.as_str(), hour);
        self.session.write(&self.insert_hour, row).await?;
        let mut known = self.known_hours.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_HOURS_MAX {
            known.clear();
        }
        known.insert(place);
        Ok(())
    }

    async fn delete(&self, partition: u32, lane: &LaneName, row: &Waiting) -> Result<(), PortError> {
        let Waiting { written, offset, notice, attempt } = row;
        let values = (
            // Just after its insert, whenever either arrives.
            written.us + 1,
            &self.log,
            i64::from(partition),
            lane.as_str(),
            hour_of(*written),
            written.us,
            offset,
            notice_blob(*notice),
            attempt,
        );
        self.session.write(&self.delete, values).await
    }
}

/// What the entries of a row's notice say of it.
async fn standing(entries: &Entries, partition: u32, row: &Waiting) -> Result<Standing, PortError> {
    let known = entries.of_notice(position(i64::from(partition), row.offset)?, row.notice).await?;
    if known.iter().any(|known| known.entry.event.is_end()) {
        return Ok(Standing::Over);
    }
    let last = known.into_iter().rfind(|known| known.entry.event == Event::Submitted);
    Ok(match last {
        None => Standing::NotSubmitted,
        Some(last) if last.written == row.written => Standing::Waits(Box::new(last.entry)),
        // The same submission, recorded once more: the entry that was kept has a row of its own.
        Some(last) if i64::from(last.entry.attempt) == row.attempt => Standing::NotSubmitted,
        Some(_) => Standing::Over,
    })
}

/// The hour that an entry was written in.
fn hour_of(written: Written) -> i64 {
    written.us.div_euclid(3_600_000_000)
}
