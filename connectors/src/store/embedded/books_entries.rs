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

use super::books::{Books, counters};
use super::ledger_rows::{ENTRY_COLUMNS, entry, text, word};

/// Entries in memory at once.
const PAGE_ENTRIES_MAX: usize = 4096;

/// Entries of some days in the order written, as many as there were when reading began.
#[derive(Debug)]
pub struct Entries<'books> {
    books: &'books Books,
    days: RangeInclusive<Day>,
    after_seq: i64,
    last_seq: i64,
    page: vec::IntoIter<LedgerEntry>,
}

impl Books {
    /// Every entry about notices of `days`.
    pub fn entries(&self, days: RangeInclusive<Day>) -> Result<Entries<'_>, PortError> {
        let bounds: (Option<i64>, Option<i64>) = self.readers.read_blocking(|connection| {
            connection.query_row(
                "SELECT min(first_seq), max(last_seq) FROM ledger_days WHERE day BETWEEN ?1 AND ?2",
                params![days.start().epoch_days(), days.end().epoch_days()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })?;
        // An empty stretch where no day has entries.
        let (first_seq, last_seq) = (bounds.0.unwrap_or(1), bounds.1.unwrap_or(0));
        Ok(Entries { books: self, days, after_seq: first_seq - 1, last_seq, page: Vec::new().into_iter() })
    }

    /// Every entry about notices of `days` and one pupil, in the order written.
    pub fn entries_of_pupil(
        &self,
        days: RangeInclusive<Day>,
        pupil: &PupilId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        self.readers.read_blocking(|connection| {
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

    /// Derives charges and counters from the ledger and gives every difference from what is stored. Days on
    /// which nothing tells the term are taken for days of `term_otherwise`. Needs the memory of one day's
    /// SMS.
    pub fn recount(&self, term_otherwise: &str) -> Result<Vec<Difference>, PortError> {
        self.readers.read_blocking(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let mut recount = Recount::new();
            for day in days(&snapshot)? {
                let term = term_of(&snapshot, day)?.unwrap_or_else(|| CompactString::new(term_otherwise));
                recount.add(&term, &charge_evidence(&snapshot, day)?, &booked_charges(&snapshot, day)?);
            }
            Ok(recount.finish(&counters(&snapshot)?))
        })
    }

    fn page_after(
        &self,
        days: &RangeInclusive<Day>,
        after_seq: i64,
        last_seq: i64,
    ) -> Result<Vec<(i64, LedgerEntry)>, PortError> {
        self.readers.read_blocking(|connection| {
            // The `+` keeps to the order written, which an index by day would have to be sorted back into.
            let sql = format!(
                "SELECT {ENTRY_COLUMNS}, seq FROM entries
                 WHERE seq > ?1 AND seq <= ?2 AND +day BETWEEN ?3 AND ?4 ORDER BY seq LIMIT ?5"
            );
            let (first, last) = (days.start().epoch_days(), days.end().epoch_days());
            connection
                .prepare_cached(&sql)?
                .query_map(params![after_seq, last_seq, first, last, PAGE_ENTRIES_MAX], |row| {
                    Ok((row.get(16)?, entry(row)?))
                })?
                .collect()
        })
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<LedgerEntry, PortError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.page.next() {
            return Some(Ok(entry));
        }
        if self.after_seq >= self.last_seq {
            return None;
        }
        let page = match self.books.page_after(&self.days, self.after_seq, self.last_seq) {
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
    use gatebell_engine::ledger::Event;
    use gatebell_engine::ports::ledger::Ledger as _;
    use gatebell_engine::testing::contract::ledger::{TERM, charge, entry, sms_notice};

    use super::super::store_fixture::open;
    use super::*;
    use crate::data_dir::DataDir;

    fn books_in(directory: &tempfile::TempDir) -> Books {
        Books::open(&DataDir::open(directory.path()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn entries_come_in_the_order_written_over_many_pages() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        let count = u64::try_from(PAGE_ENTRIES_MAX).unwrap() * 2 + 17;
        let all: Vec<_> = (0..count).map(|number| entry(number, Event::Accepted, 0)).collect();
        ledger.append(all.clone()).await.unwrap();
        let books = books_in(&directory);

        let (first, last) = (sms_notice(0).day, sms_notice(89).day);
        let read: Vec<_> = books.entries(first..=last).unwrap().map(Result::unwrap).collect();
        assert_eq!(read, all);

        let some_days = sms_notice(3).day..=sms_notice(5).day;
        let read: Vec<_> = books.entries(some_days.clone()).unwrap().map(Result::unwrap).collect();
        let expected: Vec<_> = all.iter().filter(|entry| some_days.contains(&entry.day)).cloned().collect();
        assert_eq!(read, expected);
        assert!(expected.len() > 100, "the case is not empty");

        let none = last.next()..=last.next();
        assert_eq!(books.entries(none).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_pupil_is_looked_up_over_days() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        let mut sibling = entry(1, Event::Accepted, 0);
        sibling.pupil = PupilId::new("P2").unwrap();
        let late = entry(1, Event::Delivered, 900_000_000);
        ledger
            .append(vec![entry(2, Event::Submitted, 0), sibling, entry(5, Event::Submitted, 0), late.clone()])
            .await
            .unwrap();
        let books = books_in(&directory);
        let days = sms_notice(1).day..=sms_notice(3).day;
        let found = books.entries_of_pupil(days, &PupilId::new("P1").unwrap()).unwrap();
        assert_eq!(found, [entry(2, Event::Submitted, 0), late]);
    }

    #[tokio::test]
    async fn counters_equal_the_recount_whatever_is_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        for number in [1, 2, 3, 2, 1, 40] {
            ledger.append(vec![charge(number).proof]).await.unwrap();
            ledger.charge(charge(number)).await.unwrap();
        }
        let books = books_in(&directory);
        assert_eq!(books.recount(TERM).unwrap(), []);
        assert_eq!(books.term(TERM).unwrap().delivered[&charge(0).order], 4);
    }

    #[tokio::test]
    async fn a_book_that_was_tampered_with_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        for number in 1..4 {
            ledger.append(vec![charge(number).proof]).await.unwrap();
            ledger.charge(charge(number)).await.unwrap();
        }
        let books = books_in(&directory);
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
