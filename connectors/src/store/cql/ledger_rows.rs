//! How the words of the ledger stand in the store's columns, and how they are read back. How rows of them are written is
//! beside it ([`ledger_new_rows`](super::ledger_new_rows)).

use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use compact_str::CompactString;
use gatebell_engine::ids::{LogPosition, NoticeId};
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::{Day, Timestamp};
use scylla::DeserializeValue;
use scylla::value::{CqlDate, CqlTimestamp};

use super::error::store_error;

/// Where the days of a `date` begin: 1970-01-01.
const DATE_OF_EPOCH: i64 = 1 << 31;
/// The write timestamp of what only the first writer may write is so much less the millisecond of writing: an earlier one
/// is larger and wins. In microseconds it is 2001, so it is never in the future, which ScyllaDB refuses.
const FIRST_WINS_BASE: i64 = 1_000_000_000_000_000;

/// The instants of writing of one process, each later than the one before, in microseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    last_us: AtomicI64,
}

impl Stamps {
    /// Now, or just after the last one.
    pub(super) fn next(&self) -> Written {
        self.take(1)
    }

    /// So many, one just after the other, from [`next`](Self::next) on.
    pub(super) fn next_of(&self, count: usize) -> impl Iterator<Item = Written> {
        let first = self.take(i64::try_from(count).unwrap_or(i64::MAX));
        (first.us..).take(count).map(|us| Written { us })
    }

    /// The first of `count`.
    fn take(&self, count: i64) -> Written {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let first_after = |last: i64| now_us.max(last.saturating_add(1));
        let last_after = |last| first_after(last).saturating_add(count - 1);
        let last_us = self.last_us.update(Ordering::Relaxed, Ordering::Relaxed, last_after);
        Written { us: first_after(last_us) }
    }
}

/// When an entry was written, by the clock of its writer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Written {
    /// Microseconds since 1970.
    pub(super) us: i64,
}

impl Written {
    /// The write timestamp under which the first writer wins.
    pub(super) fn first_wins(self) -> i64 {
        FIRST_WINS_BASE - self.us / 1_000
    }
}

/// An entry's part that is one value in the store, as it is read.
#[derive(DeserializeValue)]
pub(super) struct Line {
    written_desc: i64,
    pupil: String,
    guardian: String,
    channel: String,
    kind: String,
    day: CqlDate,
    tap_at: CqlTimestamp,
    happened_at: CqlTimestamp,
    order_code: Option<String>,
    gateway: Option<String>,
    gateway_id: Option<String>,
    reason: Option<String>,
}

/// The columns of an entry in the order of [`EntryRow`].
pub(super) const ENTRY_COLUMNS: &str = "log_partition, log_offset, notice, event, attempt, line";

/// An entry as it is read.
pub(super) type EntryRow = (i64, i64, Vec<u8>, String, i64, Line);

/// An entry to be written, and when that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewlyWritten<'entry> {
    pub(super) written: Written,
    pub(super) entry: &'entry LedgerEntry,
}

/// An entry that was read, and when it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct WrittenEntry {
    pub(super) written: Written,
    pub(super) entry: LedgerEntry,
}

impl WrittenEntry {
    /// The same as it was when it was written.
    pub(super) fn as_new(&self) -> NewlyWritten<'_> {
        NewlyWritten { written: self.written, entry: &self.entry }
    }

    /// The entry in `row`.
    pub(super) fn from_row(row: EntryRow) -> Result<Self, PortError> {
        let (partition, offset, notice_bytes, event, attempt, line) = row;
        let entry = LedgerEntry {
            position: position(partition, offset)?,
            notice: notice(&notice_bytes)?,
            event: word(&event, "event")?,
            attempt: u32::try_from(attempt).map_err(|_| unreadable("attempt"))?,
            pupil: word(&line.pupil, "pupil")?,
            guardian: word(&line.guardian, "guardian")?,
            channel: word(&line.channel, "channel")?,
            kind: word(&line.kind, "kind")?,
            day: day(line.day)?,
            at: Timestamp::from_millis(line.tap_at.0),
            time: Timestamp::from_millis(line.happened_at.0),
            order: line.order_code.map(|order| word(&order, "order_code")).transpose()?,
            gateway: line.gateway.map(|lane| word(&lane, "gateway")).transpose()?,
            gateway_id: line.gateway_id.map(CompactString::from),
            reason: line.reason.map(CompactString::from),
        };
        let us = i64::MAX.checked_sub(line.written_desc).ok_or_else(|| unreadable("written_desc"))?;
        Ok(Self { written: Written { us }, entry })
    }
}

/// A civil day as a `date`.
pub(super) fn date(day: Day) -> CqlDate {
    let days = i64::from(day.epoch_days()) + DATE_OF_EPOCH;
    CqlDate(u32::try_from(days).expect("a day is within 2^31 of 1970"))
}

/// The civil day in a `date`.
pub(super) fn day(date: CqlDate) -> Result<Day, PortError> {
    let days = i64::from(date.0) - DATE_OF_EPOCH;
    i32::try_from(days).map(Day::from_epoch_days).map_err(|_| unreadable("day"))
}

/// An instant as a `timestamp`.
pub(super) fn instant(at: Timestamp) -> CqlTimestamp {
    CqlTimestamp(at.as_millis())
}

/// A notice's id as it is stored: sixteen bytes.
pub(super) fn notice_blob(notice: NoticeId) -> [u8; 16] {
    notice.as_u128().to_be_bytes()
}

/// The notice's id in a blob.
pub(super) fn notice(bytes: &[u8]) -> Result<NoticeId, PortError> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| unreadable("notice"))?;
    Ok(NoticeId::from_u128(u128::from_be_bytes(bytes)))
}

/// A position as it is stored.
pub(super) fn position_columns(position: LogPosition) -> Result<(i64, i64), PortError> {
    let offset = i64::try_from(position.offset)
        .map_err(|_| store_error(format_args!("offset {} is beyond what a log can have", position.offset)))?;
    Ok((i64::from(position.partition), offset))
}

/// The position in two columns.
pub(super) fn position(partition: i64, offset: i64) -> Result<LogPosition, PortError> {
    Ok(LogPosition {
        partition: u32::try_from(partition).map_err(|_| unreadable("log_partition"))?,
        offset: u64::try_from(offset).map_err(|_| unreadable("log_offset"))?,
    })
}

/// The word or code in `column`. What the engine wrote is always of its form; what somebody else wrote is an error that
/// names the column and not the value.
pub(super) fn word<T: FromStr>(text: &str, column: &str) -> Result<T, PortError> {
    text.parse().map_err(|_| unreadable(column))
}

/// `column` has something that this program does not write.
pub(super) fn unreadable(column: &str) -> PortError {
    store_error(format_args!("column {column}: not of the form that this program writes"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_and_earlier_ones_win() {
        let stamps = Stamps::default();
        let (first, second) = (stamps.next(), stamps.next());
        let several: Vec<Written> = stamps.next_of(3).collect();
        assert_eq!(several.len(), 3);
        let rising = [vec![first, second], several, vec![stamps.next()]].concat();
        assert!(rising.is_sorted_by(|one, next| one < next), "{rising:?}");
        let later = Written { us: first.us + 1_000 };
        assert!(later.first_wins() < first.first_wins());
        assert!((1..first.us).contains(&first.first_wins()), "in the past, and positive");
    }

    /// Nothing is written before 1970; what says so must not overflow where it is read.
    #[test]
    fn an_entry_of_a_damaged_time_of_writing_is_refused() {
        let line = Line {
            written_desc: -1,
            pupil: "P1".to_owned(),
            guardian: "G1".to_owned(),
            channel: "sms".to_owned(),
            kind: "arrival".to_owned(),
            day: date(Day::from_epoch_days(20_339)),
            tap_at: CqlTimestamp(0),
            happened_at: CqlTimestamp(0),
            order_code: None,
            gateway: None,
            gateway_id: None,
            reason: None,
        };
        let refused = WrittenEntry::from_row((0, 0, vec![0; 16], "expired".to_owned(), 0, line));
        assert!(refused.unwrap_err().to_string().contains("written_desc"));
    }

    #[test]
    fn every_day_has_its_date() {
        for days in [i32::MIN, -1, 0, 20_339, i32::MAX] {
            assert_eq!(day(date(Day::from_epoch_days(days))).unwrap(), Day::from_epoch_days(days));
        }
        assert_eq!(date(Day::from_epoch_days(0)), CqlDate(1 << 31));
    }
}
