//! Entries: written once under (notice, event, attempt), read by position, by partition and by pupil.
//!
//! *The first one as it was.* Nothing is read before a write and nothing is compared: an entry is one value, whose write
//! timestamp falls as time goes by, so that of two writers of one entry the store keeps the earlier, whoever is slower to
//! arrive. By the clocks of the writers, that is: what only one process writes (an owner repeats itself) is exact.
//!
//! *What finds an entry is there before it.* The head of its partition, its bucket under its day and its notice under its
//! day and pupil are written first; after a crash in between they point at nothing, which every reader takes for nothing.
//!
//! *Requests are what costs.* What is appended together is written in batches of one partition each, entries by bucket and
//! notices by group of pupils: a request costs this process as much as some twenty rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use gatebell_engine::ids::{LogPosition, NoticeId, PupilId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::notice::Channel;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Day;
use xxhash_rust::xxh3::xxh3_64;

use super::ledger_new_rows::{NEW_ENTRY_COLUMNS, NEW_PLACE_COLUMNS, NewEntry, NewPlace};
use super::ledger_rows::{
    ENTRY_COLUMNS, EntryRow, NewlyWritten, Stamps, WrittenEntry, date, notice_blob, position_columns,
};
use super::session::{BATCH_ROWS_MAX, CqlSession, Read, Write};

/// Offsets of one bucket.
pub(super) const BUCKET_OFFSETS: u64 = 4096;
/// Groups that the pupils of a day are in. Written down: another number would look for notices in the wrong place.
const PUPIL_GROUPS: u64 = 32;
/// Buckets read at once when a partition is loaded.
const BUCKETS_AT_ONCE: usize = 16;
/// Places that are known to be written down; when there are more, all are forgotten and written down again.
const KNOWN_PLACES_MAX: usize = 65_536;

/// The entries of one log.
#[derive(Debug)]
pub(super) struct Entries {
    session: Arc<CqlSession>,
    log: String,
    stamps: Stamps,
    known: Mutex<KnownPlaces>,
    insert: Write,
    insert_head: Write,
    insert_bucket: Write,
    insert_notice: Write,
    select_head: Read,
    select_from: Read,
    select_notice: Read,
}

/// What this process has written down already.
#[derive(Debug, Default)]
struct KnownPlaces {
    heads: BTreeMap<u32, u64>,
    buckets: HashSet<DayBucket>,
    notices: HashSet<NoticeId>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct DayBucket {
    day: Day,
    partition: u32,
    bucket: u64,
}

impl Entries {
    pub(super) async fn new(session: Arc<CqlSession>, log: &str) -> Result<Self, PortError> {
        let of_bucket = format!(
            "SELECT {ENTRY_COLUMNS} FROM keyspace.ledger_entries WHERE log = ? AND log_partition = ? AND bucket = ?"
        );
        let insert = format!(
            "INSERT INTO keyspace.ledger_entries ({NEW_ENTRY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        let insert_head = session.prepare_write(
            "INSERT INTO keyspace.entry_heads (log, log_partition, bucket) VALUES (?, ?, ?) USING TIMESTAMP ?",
        );
        let insert_bucket = session.prepare_write(
            "INSERT INTO keyspace.entry_buckets (day, log, log_partition, bucket) VALUES (?, ?, ?, ?)",
        );
        let insert_notice =
            format!("INSERT INTO keyspace.notices_by_day ({NEW_PLACE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)");
        let select_head = session
            .prepare_read("SELECT bucket FROM keyspace.entry_heads WHERE log = ? AND log_partition = ?");
        Ok(Self {
            insert: session.prepare_write(&insert).await?,
            insert_head: insert_head.await?,
            insert_bucket: insert_bucket.await?,
            insert_notice: session.prepare_write(&insert_notice).await?,
            select_head: select_head.await?,
            select_from: session.prepare_read(&format!("{of_bucket} AND log_offset >= ?")).await?,
            select_notice: session
                .prepare_read(&format!("{of_bucket} AND log_offset = ? AND notice = ?"))
                .await?,
            log: log.to_owned(),
            stamps: Stamps::default(),
            known: Mutex::default(),
            session,
        })
    }

    /// When each of `entries` is written: now, in their order.
    pub(super) fn stamp<'entry>(&self, entries: &'entry [LedgerEntry]) -> Vec<NewlyWritten<'entry>> {
        let written = self.stamps.next_of(entries.len());
        entries.iter().zip(written).map(|(entry, written)| NewlyWritten { written, entry }).collect()
    }

    /// Writes down where `entries` will be found. Harmless where they are never written.
    pub(super) async fn write_places(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        futures::try_join!(self.write_buckets(entries), self.write_notices(entries))?;
        Ok(())
    }

    /// Writes `entries`, whose places are written down: those of one bucket as one mutation.
    pub(super) async fn write(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        let mut by_bucket: BTreeMap<(u32, u64), Vec<NewEntry<'_>>> = BTreeMap::new();
        for written in entries {
            let LogPosition { partition, offset } = written.entry.position;
            let row = NewEntry::of(&self.log, *written)?;
            by_bucket.entry((partition, bucket_of(offset))).or_default().push(row);
        }
        let batches = by_bucket.values().flat_map(|of_bucket| of_bucket.chunks(BATCH_ROWS_MAX));
        try_join_all(batches.map(|batch| self.session.write_partition(&self.insert, batch))).await?;
        Ok(())
    }

    async fn write_buckets(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        let mut heads: BTreeMap<u32, u64> = BTreeMap::new();
        let mut buckets: BTreeSet<DayBucket> = BTreeSet::new();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let places = entries.iter().map(|NewlyWritten { entry, .. }| {
                let LogPosition { partition, offset } = entry.position;
                DayBucket { day: entry.day, partition, bucket: bucket_of(offset) }
            });
            let mut last = None;
            for place in places.filter(|place| last.replace(*place) != Some(*place)) {
                let partition = place.partition;
                if !known.buckets.contains(&place) {
                    buckets.insert(place);
                }
                if known.heads.get(&partition).is_none_or(|head| *head < place.bucket) {
                    let head = heads.entry(partition).or_default();
                    *head = place.bucket.max(*head);
                }
            }
        }
        if heads.is_empty() && buckets.is_empty() {
            return Ok(());
        }
        let of_heads = try_join_all(heads.iter().map(async |(partition, bucket)| {
            let bucket = bucket_column(*bucket);
            // The bucket is the write timestamp as well, so that the head only rises; from 1.
            let values = (&self.log, i64::from(*partition), bucket, bucket + 1);
            self.session.write(&self.insert_head, values).await
        }));
        let of_buckets = try_join_all(buckets.iter().map(async |place| {
            let values =
                (date(place.day), &self.log, i64::from(place.partition), bucket_column(place.bucket));
            self.session.write(&self.insert_bucket, values).await
        }));
        futures::try_join!(of_heads, of_buckets)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.buckets.len() > KNOWN_PLACES_MAX {
            known.buckets.clear();
        }
        known.buckets.extend(buckets);
        for (partition, bucket) in heads {
            let head = known.heads.entry(partition).or_default();
            *head = bucket.max(*head);
        }
        Ok(())
    }

    /// Writes down where the notices of `entries` are: those of one day and group of pupils as one mutation.
    async fn write_notices(&self, entries: &[NewlyWritten<'_>]) -> Result<(), PortError> {
        let mut unknown: BTreeMap<(Day, i32), Vec<NewPlace<'_>>> = BTreeMap::new();
        let mut coming_again = Vec::new();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for NewlyWritten { entry, .. } in entries {
                if comes_again(entry) {
                    if known.notices.contains(&entry.notice) {
                        continue;
                    }
                    coming_again.push(entry.notice);
                }
                let group = group_of(&entry.pupil);
                let place = NewPlace::of(&self.log, group, entry)?;
                unknown.entry((entry.day, group)).or_default().push(place);
            }
        }
        let batches = unknown.values().flat_map(|of_group| of_group.chunks(BATCH_ROWS_MAX));
        try_join_all(batches.map(|batch| self.session.write_partition(&self.insert_notice, batch))).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.notices.len() > KNOWN_PLACES_MAX {
            known.notices.clear();
        }
        known.notices.extend(coming_again);
        Ok(())
    }

    /// Every entry of `partition` at or above `offset`.
    pub(super) async fn load_from(&self, partition: u32, offset: u64) -> Result<Vec<LedgerEntry>, PortError> {
        let head: Option<(i64,)> =
            self.session.row(&self.select_head, (&self.log, i64::from(partition))).await?;
        let Some((head,)) = head else { return Ok(Vec::new()) };
        let (_, offset_column) = position_columns(LogPosition { partition, offset })?;
        let buckets = bucket_column(bucket_of(offset))..=head;
        let rows: Vec<Vec<EntryRow>> = stream::iter(buckets)
            .map(|bucket| async move {
                let values = (&self.log, i64::from(partition), bucket, offset_column);
                self.session.rows(&self.select_from, values).await
            })
            .buffered(BUCKETS_AT_ONCE)
            .try_collect()
            .await?;
        rows.into_iter().flatten().map(|row| WrittenEntry::from_row(row).map(|read| read.entry)).collect()
    }

    /// Every entry of one notice, in the order written.
    pub(super) async fn of_notice(
        &self,
        position: LogPosition,
        notice: NoticeId,
    ) -> Result<Vec<WrittenEntry>, PortError> {
        let (partition, offset) = position_columns(position)?;
        let bucket = bucket_column(bucket_of(position.offset));
        let values = (&self.log, partition, bucket, offset, notice_blob(notice));
        let rows: Vec<EntryRow> = self.session.rows(&self.select_notice, values).await?;
        let mut entries = rows.into_iter().map(WrittenEntry::from_row).collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|read| read.written);
        Ok(entries)
    }
}

/// Whether the notice may have another entry: one of a free channel has its end alone.
fn comes_again(entry: &LedgerEntry) -> bool {
    entry.channel == Channel::Sms
}

/// The bucket of an offset.
pub(super) fn bucket_of(offset: u64) -> u64 {
    offset / BUCKET_OFFSETS
}

/// The group of a pupil.
pub(super) fn group_of(pupil: &PupilId) -> i32 {
    let group = xxh3_64(pupil.as_str().as_bytes()) % PUPIL_GROUPS;
    i32::try_from(group).expect("there are a few groups")
}

/// The bucket as it is stored.
pub(super) fn bucket_column(bucket: u64) -> i64 {
    i64::try_from(bucket).expect("the 4096th part of an offset fits")
}
