//! The ledger as commands read it: streamed in the order written, looked up by pupil, recounted day by day.
//!
//! Entries are read in pages with no transaction held open in between, so that an export of a whole term
//! neither needs the memory of one nor keeps a running engine's write-ahead log from being folded back.

use std::ops::RangeInclusive;
use std::vec;

use compact_str::CompactString;
use gatebell_engine::ids::PupilId;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::ports::PortError;
use gatebell_engine::recount::{BookedCharge, ChargeKey, Difference, Recount};
use gatebell_engine::time::Day;
use rusqlite::{Connection, OptionalExtension, params};

use super::books::counters;
use super::ledger_rows::{ENTRY_COLUMN_COUNT, ENTRY_COLUMNS, entry, text, word};
use crate::sqlite::Readers;

/// Entries in memory at once.
const PAGE_ENTRIES_MAX: usize = 4096;

/// Entries of some days in the order written, as many as there were when reading began.
pub(super) struct EntryPages<'books> {
    readers: &'books Readers,
    days: RangeInclusive<Day>,
    after_seq: i64,
    last_seq: i64,
    page: vec::IntoIter<LedgerEntry>,
}

/// Every entry about notices of `days`.
pub(super) fn entries(readers: &Readers, days: RangeInclusive<Day>) -> Result<EntryPages<'_>, PortError> {
    let bounds: (Option<i64>, Option<i64>) = readers.read_blocking(|connection| {
        connection.query_row(
            "SELECT min(first_seq), max(last_seq) FROM ledger_days WHERE day BETWEEN ?1 AND ?2",
            params![days.start().epoch_days(), days.end().epoch_days()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    })?;
    // An empty stretch where no day has entries.
    let (first_seq, last_seq) = (bounds.0.unwrap_or(1), bounds.1.unwrap_or(0));
    Ok(EntryPages { readers, days, after_seq: first_seq - 1, last_seq, page: Vec::new().into_iter() })
}

/// Every entry about notices of `days` and one pupil, in the order written.
pub(super) fn entries_of_pupil(
    readers: &Readers,
    days: &RangeInclusive<Day>,
    pupil: &PupilId,
) -> Result<Vec<LedgerEntry>, PortError> {
    readers.read_blocking(|connection| {
        // `CROSS JOIN` keeps the days outside: one look into the index by day and pupil for each day.
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE seq IN (
                 SELECT entries.seq FROM ledger_days CROSS JOIN entries INDEXED BY entries_by_pupil
                 WHERE ledger_days.day BETWEEN ?1 AND ?2
                     AND entries.day = ledger_days.day AND entries.pupil = ?3
             ) ORDER BY seq"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let (first, last) = (days.start().epoch_days(), days.end().epoch_days());
        statement.query_map(params![first, last, pupil.as_str()], entry)?.collect()
    })
}

/// Derives charges and counters from the ledger and compares them, day by day. Needs the memory of one day's SMS.
pub(super) fn recount(readers: &Readers, term_otherwise: &str) -> Result<Vec<Difference>, PortError> {
    readers.read_blocking(|connection| {
        let snapshot = connection.unchecked_transaction()?;
        let mut recount = Recount::new();
        for day in days(&snapshot)? {
            let term = term_of(&snapshot, day)?.unwrap_or_else(|| CompactString::new(term_otherwise));
            recount.add(&term, &charge_evidence(&snapshot, day)?, &booked_charges(&snapshot, day)?);
        }
        Ok(recount.finish(&counters(&snapshot)?))
    })
}

impl EntryPages<'_> {
    fn next_page(&self) -> Result<Vec<(i64, LedgerEntry)>, PortError> {
        self.readers.read_blocking(|connection| {
            // The `+` keeps to the order written, which an index by day would have to be sorted back into.
            let sql = format!(
                "SELECT {ENTRY_COLUMNS}, seq FROM entries
                 WHERE seq > ?1 AND seq <= ?2 AND +day BETWEEN ?3 AND ?4 ORDER BY seq LIMIT ?5"
            );
            let (first, last) = (self.days.start().epoch_days(), self.days.end().epoch_days());
            connection
                .prepare_cached(&sql)?
                .query_map(params![self.after_seq, self.last_seq, first, last, PAGE_ENTRIES_MAX], |row| {
                    Ok((row.get(ENTRY_COLUMN_COUNT)?, entry(row)?))
                })?
                .collect()
        })
    }
}

impl Iterator for EntryPages<'_> {
    type Item = Result<LedgerEntry, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.page.next() {
            return Some(Ok(entry));
        }
        if self.after_seq >= self.last_seq {
            return None;
        }
        let page = match self.next_page() {
            Ok(page) => page,
            Err(error) => {
                self.after_seq = self.last_seq;
                return Some(Err(error));
            }
        };
        self.after_seq = page.last().map_or(self.last_seq, |(seq, _)| *seq);
        self.page = page.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>().into_iter();
        self.page.next().map(Ok)
    }
}

/// Every day that the ledger or the charges know.
fn days(connection: &Connection) -> rusqlite::Result<Vec<Day>> {
    connection
        .prepare_cached("SELECT day FROM ledger_days UNION SELECT day FROM charges ORDER BY day")?
        .query_map([], |row| row.get(0).map(Day::from_epoch_days))?
        .collect()
}

/// An entry does not name its term; what was claimed or charged on its day does.
fn term_of(connection: &Connection, day: Day) -> rusqlite::Result<Option<CompactString>> {
    connection
        .prepare_cached(
            "SELECT term FROM charges WHERE day = ?1 UNION ALL SELECT term FROM claims WHERE day = ?1 LIMIT 1",
        )?
        .query_row([day.epoch_days()], |row| text(row, 0))
        .optional()
}

/// The entries of SMS of `day` that bear on a charge.
fn charge_evidence(connection: &Connection, day: Day) -> rusqlite::Result<Vec<LedgerEntry>> {
    let sql = format!(
        "SELECT {ENTRY_COLUMNS} FROM entries WHERE day = ?1 AND channel = 'sms'
         AND event IN ('accepted', 'delivered', 'charged', 'adjusted')"
    );
    connection.prepare_cached(&sql)?.query_map([day.epoch_days()], entry)?.collect()
}

fn booked_charges(connection: &Connection, day: Day) -> rusqlite::Result<Vec<BookedCharge>> {
    connection
        .prepare_cached(
            "SELECT term, pupil, guardian, order_code, kind, adjusted FROM charges WHERE day = ?1",
        )?
        .query_map([day.epoch_days()], |row| {
            let key = ChargeKey {
                term: text(row, 0)?,
                pupil: word(row, 1)?,
                guardian: word(row, 2)?,
                order: word(row, 3)?,
                day,
                kind: word(row, 4)?,
            };
            Ok(BookedCharge { key, adjusted: row.get(5)? })
        })?
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ports::ledger::Ledger as _;
    use gatebell_engine::testing::contract::ledger::{TERM, charge};

    use super::super::books::EmbeddedBooks;
    use super::super::store_fixture::open;
    use super::*;
    use crate::data_dir::DataDir;
    use crate::store::books::Books as _;

    #[tokio::test]
    async fn a_book_that_was_tampered_with_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        for number in 1..4 {
            ledger.append(vec![charge(number).proof]).await.unwrap();
            ledger.charge(charge(number)).await.unwrap();
        }
        let books = EmbeddedBooks::open(&DataDir::open(directory.path()).unwrap()).unwrap();
        let connection = books.file.connect().unwrap();
        let day = charge(2).day.epoch_days();
        connection.execute("DELETE FROM charges WHERE day = ?1", [day]).unwrap();
        assert!(matches!(books.recount(TERM).unwrap()[..], [Difference::NotBooked(_)]));
        connection.execute("UPDATE counters SET delivered = 7", []).unwrap();
        assert!(matches!(
            books.recount(TERM).unwrap()[..],
            [Difference::NotBooked(_), Difference::Counter { stored: 7, derived: 3, .. }]
        ));
    }
}
