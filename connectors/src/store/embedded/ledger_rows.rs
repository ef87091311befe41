//! How the words of the ledger stand in SQLite's columns, and how they are read back.

use std::str::FromStr;

use compact_str::CompactString;
use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::time::{Day, Timestamp};
use rusqlite::Row;
use rusqlite::types::Type;

/// The columns of an entry in the order in which [`entry`] reads them.
pub(super) const ENTRY_COLUMNS: &str = "partition, offset, notice, event, attempt, pupil, guardian, channel, kind, day, at, \
                                        time, order_code, gateway, gateway_id, reason";

/// The entry in `row`, whose first columns are [`ENTRY_COLUMNS`].
pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
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
