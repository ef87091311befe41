//! Entries as commands read them: those of some days, bucket by bucket, and those about one pupil.
//!
//! Days are looked up first, so that a span of years costs no more than the days that have entries. Within a day entries
//! come by log, partition, offset and notice, and each notice's in the order written.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::vec;

use futures::{StreamExt, TryStreamExt, stream};
use gatebell_engine::ids::{NoticeId, PupilId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Day;
use scylla::value::CqlDate;

use super::books::CqlBooks;
use super::ledger_entries::{BUCKET_OFFSETS, group_of};
use super::ledger_rows::{ENTRY_COLUMNS, EntryRow, WrittenEntry, date, day};
use super::session::{CqlSession, Read};

/// Days of a pupil that are read at once.
const DAYS_AT_ONCE: usize = 16;
/// Notices of a pupil that are read at once.
const NOTICES_AT_ONCE: usize = 32;

/// Log, partition, offset and id of a notice.
type NoticeRow = (String, i64, i64, Vec<u8>);

/// The entries of all logs.
#[derive(Debug)]
pub(super) struct WrittenEntries {
    session: Arc<CqlSession>,
    select_days: Read,
    select_buckets: Read,
    select_bucket: Read,
    select_notices: Read,
    select_notice: Read,
}

/// A stretch of a log that has entries of a day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DayBucket {
    day: Day,
    log: String,
    log_partition: i64,
    bucket: i64,
}

impl WrittenEntries {
    pub(super) async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let of_bucket = format!(
            "SELECT {ENTRY_COLUMNS} FROM keyspace.ledger_entries WHERE log = ? AND log_partition = ? AND bucket = ?"
        );
        let select_days = session.prepare_read("SELECT DISTINCT day FROM keyspace.entry_buckets");
        let select_buckets = session
            .prepare_read("SELECT log, log_partition, bucket FROM keyspace.entry_buckets WHERE day = ?");
        let select_notices = session.prepare_read(
            "SELECT log, log_partition, log_offset, notice FROM keyspace.notices_by_day
             WHERE day = ? AND pupil_group = ? AND pupil = ?",
        );
        Ok(Self {
            select_days: select_days.await?,
            select_buckets: select_buckets.await?,
            select_notices: select_notices.await?,
            select_bucket: session.prepare_read(&of_bucket).await?,
            select_notice: session
                .prepare_read(&format!("{of_bucket} AND log_offset = ? AND notice = ?"))
                .await?,
            session,
        })
    }

    /// Every day that has entries, in order.
    pub(super) async fn days(&self) -> Result<Vec<Day>, PortError> {
        let rows: Vec<(CqlDate,)> = self.session.rows(&self.select_days, ()).await?;
        let days: BTreeSet<Day> = rows.into_iter().map(|(date,)| day(date)).collect::<Result<_, _>>()?;
        Ok(days.into_iter().collect())
    }

    async fn days_within(&self, days: &RangeInclusive<Day>) -> Result<Vec<Day>, PortError> {
        let mut known = self.days().await?;
        known.retain(|day| days.contains(day));
        Ok(known)
    }

    /// Where entries of `day` are.
    pub(super) async fn buckets(&self, day: Day) -> Result<Vec<DayBucket>, PortError> {
        let rows: Vec<(String, i64, i64)> = self.session.rows(&self.select_buckets, (date(day),)).await?;
        let bucket = |(log, log_partition, bucket)| DayBucket { day, log, log_partition, bucket };
        Ok(rows.into_iter().map(bucket).collect())
    }

    /// The entries of a bucket that are of its day. Some megabytes at most.
    pub(super) async fn of_bucket(&self, bucket: &DayBucket) -> Result<Vec<LedgerEntry>, PortError> {
        let values = (&bucket.log, bucket.log_partition, bucket.bucket);
        let rows: Vec<EntryRow> = self.session.rows(&self.select_bucket, values).await?;
        let mut entries = rows.into_iter().map(WrittenEntry::from_row).collect::<Result<Vec<_>, _>>()?;
        entries.retain(|read| read.entry.day == bucket.day);
        entries.sort_by_key(|read| (read.entry.position, read.entry.notice, read.written));
        Ok(entries.into_iter().map(|read| read.entry).collect())
    }

    /// Every entry about `pupil` and notices of `days`.
    pub(super) async fn of_pupil(
        &self,
        days: RangeInclusive<Day>,
        pupil: &PupilId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        let group = group_of(pupil);
        let notices: Vec<Vec<NoticeRow>> = stream::iter(self.days_within(&days).await?)
            .map(|day| async move {
                self.session.rows(&self.select_notices, (date(day), group, pupil.as_str())).await
            })
            .buffered(DAYS_AT_ONCE)
            .try_collect()
            .await?;
        let found: Vec<Vec<(String, WrittenEntry)>> = stream::iter(notices.into_iter().flatten())
            .map(|(log, partition, offset, notice)| self.of_notice(log, partition, offset, notice))
            .buffered(NOTICES_AT_ONCE)
            .try_collect()
            .await?;
        let mut entries: Vec<(String, WrittenEntry)> = found.into_iter().flatten().collect();
        let place = |log: &str, read: &WrittenEntry| -> (Day, String, _, NoticeId, _) {
            (read.entry.day, log.to_owned(), read.entry.position, read.entry.notice, read.written)
        };
        entries.sort_by_cached_key(|(log, read)| place(log, read));
        Ok(entries.into_iter().map(|(_, read)| read.entry).collect())
    }

    async fn of_notice(
        &self,
        log: String,
        partition: i64,
        offset: i64,
        notice: Vec<u8>,
    ) -> Result<Vec<(String, WrittenEntry)>, PortError> {
        let bucket = offset / i64::try_from(BUCKET_OFFSETS).expect("a few thousand");
        let values = (&log, partition, bucket, offset, notice);
        let rows: Vec<EntryRow> = self.session.rows(&self.select_notice, values).await?;
        rows.into_iter().map(|row| Ok((log.clone(), WrittenEntry::from_row(row)?))).collect()
    }
}

/// Entries of some days, read a bucket at a time when they are asked for.
pub(super) struct DayPages<'books> {
    books: &'books CqlBooks,
    days: vec::IntoIter<Day>,
    buckets: vec::IntoIter<DayBucket>,
    page: vec::IntoIter<LedgerEntry>,
}

impl<'books> DayPages<'books> {
    /// Finds out which days there are.
    pub(super) fn begin(books: &'books CqlBooks, days: RangeInclusive<Day>) -> Result<Self, PortError> {
        let tables = Arc::clone(&books.tables);
        let days = books.commands.wait(async move { tables.entries.days_within(&days).await })?;
        let (days, buckets, page) = (days.into_iter(), Vec::new().into_iter(), Vec::new().into_iter());
        Ok(Self { books, days, buckets, page })
    }

    /// The next bucket's entries; `None` after the last.
    fn next_page(&mut self) -> Result<Option<Vec<LedgerEntry>>, PortError> {
        loop {
            let tables = Arc::clone(&self.books.tables);
            if let Some(bucket) = self.buckets.next() {
                let page = async move { tables.entries.of_bucket(&bucket).await };
                return self.books.commands.wait(page).map(Some);
            }
            let Some(day) = self.days.next() else { return Ok(None) };
            let buckets = async move { tables.entries.buckets(day).await };
            self.buckets = self.books.commands.wait(buckets)?.into_iter();
        }
    }

    fn end(&mut self) {
        self.days = Vec::new().into_iter();
        self.buckets = Vec::new().into_iter();
    }
}

impl Iterator for DayPages<'_> {
    type Item = Result<LedgerEntry, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            match self.next_page() {
                Ok(Some(page)) => self.page = page.into_iter(),
                Ok(None) => return None,
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            }
        }
    }
}
