//! How the words of the ledger stand in SQLite's columns, and how they are read back.
//!
//! Bills are made of entries, so each carries a checksum: one that does not match is an error that says where, never read.

use std::str::FromStr;

use compact_str::CompactString;
use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::time::{Day, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, ffi};
use xxhash_rust::xxh3::Xxh3;

/// The columns of an entry in the order in which [`entry`] reads them.
pub(super) const ENTRY_COLUMNS: &str = "partition, offset, notice, event, attempt, pupil, guardian, channel, kind, day, at, \
                                        time, order_code, gateway, gateway_id, reason, checksum";
/// How many they are.
pub(super) const ENTRY_COLUMN_COUNT: usize = 17;

/// What a ledger entry holds is not what was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "a ledger entry of the tap at {partition}/{offset} is damaged: gatebell data check finds all of them"
)]
struct DamagedEntry {
    partition: i64,
    offset: i64,
}

/// The entry in `row`, whose first columns are [`ENTRY_COLUMNS`].
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    match unchecked_entry(row) {
        Ok(entry) if row.get::<_, Option<i64>>(16)?.is_none_or(|stored| stored == checksum(&entry)) => {
            Ok(entry)
        }
        // A word that cannot be read is damage as well: what was written can.
        _ => {
            let place =
                DamagedEntry { partition: row.get(0).unwrap_or(-1), offset: row.get(1).unwrap_or(-1) };
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(place.to_string())))
        }
    }
}

/// Covers every field of the entry.
pub(super) fn checksum(entry: &LedgerEntry) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&entry.position.partition.to_le_bytes());
    hash.update(&entry.position.offset.to_le_bytes());
    hash.update(&notice_blob(entry.notice));
    hash.update(&entry.attempt.to_le_bytes());
    hash.update(&entry.day.epoch_days().to_le_bytes());
    for time in [entry.at, entry.time] {
        hash.update(&time.as_millis().to_le_bytes());
    }
    let texts = [
        Some(entry.event.name()),
        Some(entry.pupil.as_str()),
        Some(entry.guardian.as_str()),
        Some(entry.channel.name()),
        Some(entry.kind.name()),
        entry.order.as_ref().map(|order| order.as_str()),
        entry.gateway.as_ref().map(|lane| lane.as_str()),
        entry.gateway_id.as_deref(),
        entry.reason.as_deref(),
    ];
    for text in texts {
        // With its length, so that no two entries give the same bytes; no text is as long as "none".
        let len_bytes = text.map_or(u64::MAX, |text| text.len() as u64);
        hash.update(&len_bytes.to_le_bytes());
        hash.update(text.unwrap_or_default().as_bytes());
    }
    hash.digest().cast_signed()
}

/// Every entry that does not match its checksum, as an operator is told.
pub(super) fn damaged_entries(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("SELECT {ENTRY_COLUMNS} FROM entries"))?;
    let mut rows = statement.query([])?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        if let Err(error) = entry(row) {
            damaged.push(error.to_string());
        }
    }
    Ok(damaged)
}

fn unchecked_entry(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    Ok(LedgerEntry {
        position: LogPosition { partition: row.get(0)?, offset: row.get(1)? },
        notice: notice(row, 2)?,
        event: word(row, 3)?,
        attempt: row.get(4)?,
        pupil: word(row, 5)?,
        guardian: word(row, 6)?,
        channel: word(row, 7)?,
        kind: word(row, 8)?,
        day: Day::from_epoch_days(row.get(9)?),
        at: Timestamp::from_millis(row.get(10)?),
        time: Timestamp::from_millis(row.get(11)?),
        order: optional_word(row, 12)?,
        gateway: optional_word(row, 13)?,
        gateway_id: optional_text(row, 14)?,
        reason: optional_text(row, 15)?,
    })
}

/// A notice's id as it is stored: sixteen bytes.
pub(super) fn notice_blob(notice: NoticeId) -> [u8; 16] {
    notice.as_u128().to_be_bytes()
}

/// The notice's id in `column`.
pub(super) fn notice(row: &Row<'_>, column: usize) -> rusqlite::Result<NoticeId> {
    let bytes: [u8; 16] = row.get(column)?;
    Ok(NoticeId::from_u128(u128::from_be_bytes(bytes)))
}

/// The word or code in `column`. What the engine wrote is always of its form; what somebody else wrote is an
/// error that names the column and not the value.
pub(super) fn word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = row.get_ref(column)?.as_str()?;
    parse(text, column)
}

/// As [`word`], where there may be none.
pub(super) fn optional_word<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    row.get_ref(column)?.as_str_or_null()?.map(|text| parse(text, column)).transpose()
}

/// The text in `column`.
pub(super) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<CompactString> {
    Ok(CompactString::new(row.get_ref(column)?.as_str()?))
}

/// As [`text`], where there may be none.
pub(super) fn optional_text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<CompactString>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(CompactString::new))
}

fn parse<T>(text: &str, column: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
