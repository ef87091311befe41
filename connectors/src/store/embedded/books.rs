//! The books in `store.db`.
//!
//! Owns a file handle of its own, with no writer thread: what is read is a snapshot of one instant. The ledger's
//! entries are read in `books_entries`, lines are frozen in `books_freeze`.

use std::ops::RangeInclusive;

use gatebell_engine::billing::BillLine;
use gatebell_engine::ids::PupilId;
use gatebell_engine::ledger::LedgerEntry;
use gatebell_engine::money::Dollars;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::Counter;
use gatebell_engine::recount::Difference;
use gatebell_engine::time::{Day, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::ledger_rows::{text, word};
use super::ledger_schema::LEDGER;
use super::{books_entries, books_freeze};
use crate::data_dir::DataDir;
use crate::sqlite::{DatabaseFile, Readers};
use crate::store::books::{Books, ClosedTerm, Closing, Entries, PickLines, Signature, TermBooks};

/// The books in a data directory.
#[derive(Debug)]
pub struct EmbeddedBooks {
    pub(super) file: DatabaseFile,
    pub(super) readers: Readers,
}

impl EmbeddedBooks {
    /// Opens the books in `directory`; an engine may be running on it or not.
    pub fn open(directory: &DataDir) -> Result<Self, PortError> {
        let file = DatabaseFile::open(&directory.store(), "store", &LEDGER)?;
        let readers = Readers::new(file.clone(), 1);
        Ok(Self { file, readers })
    }
}

impl Books for EmbeddedBooks {
    fn term(&self, term: &str) -> Result<TermBooks, PortError> {
        self.readers.read_blocking(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            term_books(&snapshot, term)
        })
    }

    fn counters(&self) -> Result<Vec<Counter>, PortError> {
        self.readers.read_blocking(counters)
    }

    fn entries(&self, days: RangeInclusive<Day>) -> Result<Entries<'_>, PortError> {
        Ok(Box::new(books_entries::entries(&self.readers, days)?))
    }

    fn entries_of_pupil(
        &self,
        days: RangeInclusive<Day>,
        pupil: &PupilId,
    ) -> Result<Vec<LedgerEntry>, PortError> {
        books_entries::entries_of_pupil(&self.readers, &days, pupil)
    }

    fn recount(&self, term_otherwise: &str) -> Result<Vec<Difference>, PortError> {
        books_entries::recount(&self.readers, term_otherwise)
    }

    fn freeze(&self, term: &str, signature: &Signature, due: PickLines<'_>) -> Result<usize, PortError> {
        books_freeze::freeze(&self.file, term, signature, due)
    }

    fn close(
        &self,
        term: &str,
        signature: &Signature,
        forced: bool,
        lines: PickLines<'_>,
    ) -> Result<Closing, PortError> {
        books_freeze::close(&self.file, term, signature, forced, lines)
    }
}

pub(super) fn counters(connection: &Connection) -> rusqlite::Result<Vec<Counter>> {
    connection
        .prepare_cached("SELECT term, pupil, guardian, order_code, delivered FROM counters")?
        .query_map([], |row| {
            Ok(Counter {
                term: text(row, 0)?,
                pupil: word(row, 1)?,
                guardian: word(row, 2)?,
                order: word(row, 3)?,
                delivered: row.get(4)?,
            })
        })?
        .collect()
}

pub(super) fn term_books(connection: &Connection, term: &str) -> rusqlite::Result<TermBooks> {
    let delivered = connection
        .prepare_cached(
            "SELECT order_code, sum(delivered) FROM counters WHERE term = ?1 GROUP BY order_code",
        )?
        .query_map([term], |row| Ok((word(row, 0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let frozen = connection
        .prepare_cached(
            "SELECT order_code, school, pupil, guardian, plan, state, prepaid, delivered, fee, waived, refund
             FROM frozen_lines WHERE term = ?1",
        )?
        .query_map([term], |row| frozen_line(row).map(|line| (line.order.clone(), line)))?
        .collect::<rusqlite::Result<_>>()?;
    let closed = connection
        .prepare_cached("SELECT closed_at, closed_by, forced FROM closed_terms WHERE term = ?1")?
        .query_row([term], |row| {
            Ok(ClosedTerm { at: Timestamp::from_millis(row.get(0)?), by: text(row, 1)?, forced: row.get(2)? })
        })
        .optional()?;
    let of_other_terms = connection
        .prepare_cached(
            "SELECT order_code FROM counters WHERE term <> ?1
             UNION SELECT order_code FROM frozen_lines WHERE term <> ?1 AND state IN ('approved', 'cancelled')",
        )?
        .query_map([term], |row| word(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(TermBooks { delivered, frozen, closed, of_other_terms })
}

fn frozen_line(row: &Row<'_>) -> rusqlite::Result<BillLine> {
    Ok(BillLine {
        order: word(row, 0)?,
        school: word(row, 1)?,
        pupil: word(row, 2)?,
        guardian: word(row, 3)?,
        plan: word(row, 4)?,
        state: word(row, 5)?,
        prepaid: Dollars(row.get(6)?),
        delivered: row.get(7)?,
        fee: Dollars(row.get(8)?),
        waived: Dollars(row.get(9)?),
        refund: Dollars(row.get(10)?),
    })
}

#[cfg(test)]
mod tests {
    use super::super::store_fixture::books_stage;
    use crate::store::books_contract::books_contract;

    books_contract!(contract, super::books_stage);
}
