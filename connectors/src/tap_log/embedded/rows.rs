//! The tables of the tap log, and what may be done to them.
//!
//! A partition is a table of its own, `tap_0` and so on: one row a tap, the offset its key, so that appending touches
//! only the end. Offsets are contiguous and never given twice: of a partition the last row always stays. `received` never
//! decreases with the offset, which makes finding a time a bisection. Each row carries a checksum of itself and its place;
//! a row that does not match is reported with its place and never handed out.

use bytes::{Bytes, BytesMut};
use gatebell_engine::ports::tap_log::TapRecord;
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior, ffi, params};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::sqlite::Schema;

/// What is there beside the partitions' own tables.
pub(super) const TAP_LOG_SCHEMA: Schema = Schema {
    name: "tap log",
    steps: &[
        "
        CREATE TABLE tap_log (
            id         INTEGER PRIMARY KEY CHECK (id = 1),
            name       TEXT NOT NULL,
            partitions INTEGER NOT NULL
        ) STRICT;
        -- Below next_offset every tap's notices are settled.
        CREATE TABLE committed (
            partition   INTEGER PRIMARY KEY,
            next_offset INTEGER NOT NULL
        ) STRICT;
    ",
        "
        -- None on what was written before there were any.
        ALTER TABLE tap_log ADD COLUMN checksum INTEGER;
        ALTER TABLE committed ADD COLUMN checksum INTEGER;
    ",
    ],
};

/// Stands before what is left of a damaged tap, so that it is read as no tap.
const SET_ASIDE: &[u8] = b"damaged: ";
/// A gap of more taps is told as one.
const SINGLY_TOLD_MAX: u64 = 100;

/// What was chosen when the log was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) partitions: u32,
}

impl Identity {
    fn checksum(&self) -> i64 {
        xxh3_64_with_seed(self.name.as_bytes(), u64::from(self.partitions)).cast_signed()
    }
}

/// The log's identity, if it has one yet.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Option<Identity>> {
    connection
        .query_row("SELECT name, partitions, checksum FROM tap_log", [], |row| {
            let identity = Identity { name: row.get(0)?, partitions: row.get(1)? };
            let stored: Option<i64> = row.get(2)?;
            if stored.is_some_and(|stored| stored != identity.checksum()) {
                return Err(damaged(Damage::Identity));
            }
            Ok(identity)
        })
        .optional()
}

/// The log's identity: `fresh` where it has none yet, and then its partitions' tables are made.
pub(super) fn identify(connection: &mut Connection, fresh: Identity) -> rusqlite::Result<Identity> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known = identity(&transaction)?;
    if let Some(identity) = known {
        return Ok(identity);
    }
    transaction.execute(
        "INSERT INTO tap_log (id, name, partitions, checksum) VALUES (1, ?1, ?2, ?3)",
        params![fresh.name, fresh.partitions, fresh.checksum()],
    )?;
    for partition in 0..fresh.partitions {
        transaction.execute_batch(&format!(
            "CREATE TABLE tap_{partition} (
                 offset   INTEGER PRIMARY KEY,
                 received INTEGER NOT NULL,
                 checksum INTEGER NOT NULL,
                 value    BLOB NOT NULL
             ) STRICT"
        ))?;
    }
    transaction.commit()?;
    Ok(fresh)
}

/// The latest time of receipt of any partition's last row, damaged ones left out; `None` where there is none.
pub(super) fn latest_receipt(
    connection: &Connection,
    partitions: u32,
) -> rusqlite::Result<Option<Timestamp>> {
    let mut latest = None;
    for partition in 0..partitions {
        latest = latest.max(last(connection, partition)?.and_then(|(_, received)| received));
    }
    Ok(latest)
}

/// Appends the values, which are sorted by their partitions, behind what is there; received at `now`, or at the last
/// receipt where the clock has gone back.
pub(super) fn append(connection: &Connection, taps: &[(u32, Bytes)], now: Timestamp) -> rusqlite::Result<()> {
    for of_partition in taps.chunk_by(|(one, _), (next, _)| one == next) {
        let Some((partition, _)) = of_partition.first() else { continue };
        let (first, received) = match last(connection, *partition)? {
            Some((offset, received)) => (offset + 1, now.max(received.unwrap_or(now))),
            None => (0, now),
        };
        // Where the last taps are gone: below what is settled nothing would ever be decided. The gap is found when it is read.
        let settled = committed(connection, *partition).ok().flatten().unwrap_or(0);
        let first = first.max(settled);
        let mut insert = connection.prepare_cached(&format!(
            "INSERT INTO tap_{partition} (offset, received, checksum, value) VALUES (?1, ?2, ?3, ?4)"
        ))?;
        for (offset, (_, value)) in (first..).zip(of_partition) {
            let checksum = checksum(*partition, offset, received, value);
            insert.execute(params![offset, received.as_millis(), checksum, &value[..]])?;
        }
    }
    Ok(())
}

/// Covers the row and its place, so that neither a flipped byte nor a row in the wrong place passes.
fn checksum(partition: u32, offset: u64, received: Timestamp, value: &[u8]) -> i64 {
    let place = offset ^ (u64::from(partition) << 48);
    xxh3_64_with_seed(value, place ^ received.as_millis().cast_unsigned().rotate_left(32)).cast_signed()
}

/// The last row's offset, and its time of receipt if the row is sound: a damaged time must not spread to later taps, and
/// a damaged tap must not keep them out; whoever reads it will say so.
fn last(connection: &Connection, partition: u32) -> rusqlite::Result<Option<(u64, Option<Timestamp>)>> {
    connection
        .prepare_cached(&format!(
            "SELECT offset, received, checksum, value FROM tap_{partition} ORDER BY offset DESC LIMIT 1"
        ))?
        .query_row([], |row| {
            let received = CheckedRow::read(partition, row).ok().map(|row| row.received);
            Ok((row.get(0)?, received))
        })
        .optional()
}

/// The offset that the next tap written will get.
pub(super) fn end(connection: &Connection, partition: u32) -> rusqlite::Result<u64> {
    Ok(last(connection, partition)?.map_or(0, |(offset, _)| offset + 1))
}

/// What the log holds at a place is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// The row does not match its checksum.
    #[error(
        "the tap at {partition}/{offset} is damaged: its checksum does not match; gatebell data check finds all of them"
    )]
    Altered { partition: u32, offset: u64 },
    /// The row is not there, though later ones are.
    #[error(
        "the tap at {partition}/{offset} is missing, though later ones are there; gatebell data check finds all of them"
    )]
    Missing { partition: u32, offset: u64 },
    /// As [`Damage::Missing`], from `offset` to `last`.
    #[error(
        "the taps at {partition}/{offset} to {last} are missing, though later ones are there: too many to be set aside; restore \
         the data directory from a copy"
    )]
    Gap { partition: u32, offset: u64, last: u64 },
    /// Up to where the partition is settled does not match its checksum.
    #[error("the committed offset of partition {partition} is damaged: its checksum does not match")]
    Committed { partition: u32 },
    /// More is settled than was ever written: the last taps are gone.
    #[error(
        "partition {partition} is settled up to offset {committed}, but its taps end at {end}: the last ones are gone"
    )]
    CutOff { partition: u32, committed: u64, end: u64 },
    /// The log's own name and number of partitions do not match their checksum.
    #[error("the log's name or number of partitions is damaged: restore the data directory from a copy")]
    Identity,
}

fn damaged(damage: Damage) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(damage.to_string()))
}

/// Whether `error` says that the file does not hold what was written: by a checksum of ours, or in SQLite's own eyes.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// A row as stored, checked.
struct CheckedRow<'a> {
    offset: u64,
    received: Timestamp,
    value: &'a [u8],
}

impl<'a> CheckedRow<'a> {
    /// Reads (offset, received, checksum, value).
    fn read(partition: u32, row: &'a Row<'_>) -> rusqlite::Result<Self> {
        let offset = row.get(0)?;
        let received = Timestamp::from_millis(row.get(1)?);
        let stored: i64 = row.get(2)?;
        let value = row.get_ref(3)?.as_blob()?;
        if checksum(partition, offset, received, value) != stored {
            return Err(damaged(Damage::Altered { partition, offset }));
        }
        Ok(Self { offset, received, value })
    }
}

/// Records of one partition as they lie in the log.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) records: Vec<TapRecord>,
    /// The offset of the next tap to be written.
    pub(super) end: u64,
}

/// At most `taps_max` records from `offset` on, until `bytes_max` is reached.
pub(super) fn read(
    connection: &Connection,
    partition: u32,
    offset: u64,
    taps_max: usize,
    bytes_max: usize,
) -> rusqlite::Result<Stretch> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT offset, received, checksum, value FROM tap_{partition} WHERE offset >= ?1 ORDER BY offset LIMIT ?2"
    ))?;
    let mut rows = statement.query(params![offset, taps_max])?;
    // All values of a batch share one allocation.
    let mut values = BytesMut::new();
    let mut places = Vec::new();
    let mut expected = offset;
    while let Some(row) = rows.next()? {
        let row = match CheckedRow::read(partition, row) {
            Ok(row) if row.offset == expected => row,
            // The sound ones first: the next read begins at the damage.
            _ if !places.is_empty() => break,
            Ok(_) => return Err(damaged(Damage::Missing { partition, offset: expected })),
            Err(error) => return Err(error),
        };
        expected += 1;
        values.extend_from_slice(row.value);
        places.push((row.received, values.len()));
        if values.len() >= bytes_max {
            break;
        }
    }
    let values = values.freeze();
    let end = end(connection, partition)?.max(expected);
    Ok(Stretch { records: records(offset, &places, &values), end })
}

fn records(first: u64, places: &[(Timestamp, usize)], values: &Bytes) -> Vec<TapRecord> {
    let mut start = 0;
    let mut records = Vec::with_capacity(places.len());
    for (offset, (received, value_end)) in (first..).zip(places) {
        records.push(TapRecord { offset, received: *received, value: values.slice(start..*value_end) });
        start = *value_end;
    }
    records
}

/// Every damaged place of the partition, in order: rows that do not match, and offsets that are gone between others.
pub(super) fn damages(connection: &Connection, partition: u32) -> rusqlite::Result<Vec<Damage>> {
    let mut statement = connection
        .prepare(&format!("SELECT offset, received, checksum, value FROM tap_{partition} ORDER BY offset"))?;
    let mut rows = statement.query([])?;
    let mut damages = Vec::new();
    let mut expected = None;
    while let Some(row) = rows.next()? {
        let offset: u64 = row.get(0)?;
        damages.extend(gap(partition, expected.unwrap_or(offset), offset));
        if CheckedRow::read(partition, row).is_err() {
            damages.push(Damage::Altered { partition, offset });
        }
        expected = Some(offset + 1);
    }
    let end = expected.unwrap_or(0);
    match committed(connection, partition) {
        Ok(Some(committed)) if committed > end => damages.push(Damage::CutOff { partition, committed, end }),
        Ok(_) => {}
        Err(error) if is_damage(&error) => damages.push(Damage::Committed { partition }),
        Err(error) => return Err(error),
    }
    Ok(damages)
}

/// What is missing before `found`, where `expected` should have been.
fn gap(partition: u32, expected: u64, found: u64) -> Vec<Damage> {
    match found.saturating_sub(expected) {
        taps @ 0..=SINGLY_TOLD_MAX => {
            (0..taps).map(|tap| Damage::Missing { partition, offset: expected + tap }).collect()
        }
        _ => vec![Damage::Gap { partition, offset: expected, last: found - 1 }],
    }
}

/// Puts in the place of a damaged tap a record that is no tap, whatever is left behind [`SET_ASIDE`]; `false`, and nothing is
/// changed, where no damaged tap is.
pub(super) fn set_aside(connection: &Connection, partition: u32, offset: u64) -> rusqlite::Result<bool> {
    let end = end(connection, partition)?;
    let left: Option<Option<Vec<u8>>> = connection
        .query_row(
            &format!("SELECT offset, received, checksum, value FROM tap_{partition} WHERE offset = ?1"),
            [offset],
            |row| match CheckedRow::read(partition, row) {
                Ok(_) => Ok(None),
                Err(_) => Ok(Some(row.get_ref(3)?.as_bytes_or_null()?.unwrap_or_default().to_vec())),
            },
        )
        .optional()?;
    let left = match left {
        Some(Some(left)) => left,
        // What retention has forgotten is not missing.
        None if offset < end
            && earliest(connection, partition)?.is_some_and(|earliest| earliest < offset) =>
        {
            Vec::new()
        }
        Some(None) | None => return Ok(false),
    };
    let received = received_beside(connection, partition, offset)?;
    let value = [SET_ASIDE, &left].concat();
    let checksum = checksum(partition, offset, received, &value);
    connection.execute(
        &format!(
            "INSERT INTO tap_{partition} (offset, received, checksum, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (offset) DO UPDATE SET
                 received = excluded.received, checksum = excluded.checksum, value = excluded.value"
        ),
        params![offset, received.as_millis(), checksum, value],
    )?;
    Ok(true)
}

fn earliest(connection: &Connection, partition: u32) -> rusqlite::Result<Option<u64>> {
    connection.query_row(&format!("SELECT min(offset) FROM tap_{partition}"), [], |row| row.get(0))
}

/// The time of receipt of the last sound record before `offset`, else of the first one after it: times never decrease.
fn received_beside(connection: &Connection, partition: u32, offset: u64) -> rusqlite::Result<Timestamp> {
    let before = first_sound_receipt(connection, partition, offset, "offset < ?1 ORDER BY offset DESC")?;
    let found = match before {
        Some(received) => Some(received),
        None => sound_receipt_from(connection, partition, offset)?,
    };
    Ok(found.unwrap_or(Timestamp::from_millis(0)))
}

/// The time of receipt of the first sound record at or after `offset`.
pub(super) fn sound_receipt_from(
    connection: &Connection,
    partition: u32,
    offset: u64,
) -> rusqlite::Result<Option<Timestamp>> {
    first_sound_receipt(connection, partition, offset, "offset >= ?1 ORDER BY offset")
}

/// The time of receipt of the first sound record among those that `which` names, in its order.
fn first_sound_receipt(
    connection: &Connection,
    partition: u32,
    offset: u64,
    which: &str,
) -> rusqlite::Result<Option<Timestamp>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT offset, received, checksum, value FROM tap_{partition} WHERE {which}"
    ))?;
    let mut rows = statement.query([offset])?;
    while let Some(row) = rows.next()? {
        if let Ok(sound) = CheckedRow::read(partition, row) {
            return Ok(Some(sound.received));
        }
    }
    Ok(None)
}

/// The offset of the first record received at or after `from` (or of the earliest record); the end where there is none. A
/// damaged record counts as received when the next sound one was: whoever reads it will say so.
pub(super) fn seek(
    connection: &Connection,
    partition: u32,
    from: Option<Timestamp>,
) -> rusqlite::Result<u64> {
    let end = end(connection, partition)?;
    let Some(earliest) = earliest(connection, partition)? else { return Ok(end) };
    let Some(from) = from else { return Ok(earliest) };
    // Everything before `low` was received before `from`; nothing from `high` on was.
    let (mut low, mut high) = (earliest, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match sound_receipt_from(connection, partition, middle)? {
            Some(received) if received < from => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The committed offset of the partition.
pub(super) fn committed(connection: &Connection, partition: u32) -> rusqlite::Result<Option<u64>> {
    connection
        .prepare_cached("SELECT next_offset, checksum FROM committed WHERE partition = ?1")?
        .query_row([partition], |row| {
            let next_offset: u64 = row.get(0)?;
            let stored: Option<i64> = row.get(1)?;
            if stored.is_some_and(|stored| stored != commit_checksum(partition, next_offset)) {
                return Err(damaged(Damage::Committed { partition }));
            }
            Ok(next_offset)
        })
        .optional()
}

/// Makes `offset` the committed offset.
pub(super) fn commit(connection: &Connection, partition: u32, offset: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO committed (partition, next_offset, checksum) VALUES (?1, ?2, ?3)
             ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset, checksum = excluded.checksum",
        )?
        .execute(params![partition, offset, commit_checksum(partition, offset)])?;
    Ok(())
}

fn commit_checksum(partition: u32, next_offset: u64) -> i64 {
    xxh3_64_with_seed(&next_offset.to_be_bytes(), u64::from(partition)).cast_signed()
}

/// Forgets at most `taps_max` taps of the partition that were received before `before` and are settled; says how many.
/// The last tap stays, so that no offset is ever given again.
pub(super) fn forget_before(
    connection: &Connection,
    partition: u32,
    before: Timestamp,
    taps_max: u64,
) -> rusqlite::Result<usize> {
    let Some(earliest) = earliest(connection, partition)? else { return Ok(0) };
    let settled = committed(connection, partition)?.unwrap_or(0);
    let last = end(connection, partition)?.saturating_sub(1);
    let keep_from =
        seek(connection, partition, Some(before))?.min(settled).min(last).min(earliest + taps_max);
    connection.prepare_cached(&format!("DELETE FROM tap_{partition} WHERE offset < ?1"))?.execute([keep_from])
}
