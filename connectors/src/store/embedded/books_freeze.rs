//! Freezing: lines of the bill become final, one by one after a cancellation or all of them when a term is
//! closed.
//!
//! A line is computed and frozen inside one write transaction, so no charge slips in between: what is booked
//! before counts in the line, what is booked after is `adjusted`. A frozen line is never written again.

use compact_str::CompactString;
use gatebell_engine::billing::BillLine;
use gatebell_engine::ports::PortError;
use gatebell_engine::time::Timestamp;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::books::{Books, ClosedTerm, TermBooks, term_books};

/// Who freezes, when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Who.
    pub by: CompactString,
    /// When.
    pub at: Timestamp,
}

/// What came of closing a term.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closing {
    /// It is closed now.
    Closed {
        /// All its lines, those that were final before included.
        lines: usize,
    },
    /// It had been closed before; nothing was changed.
    ClosedBefore(ClosedTerm),
}

impl Books {
    /// Freezes the lines of `term` that `due` picks from the books as they stand. Those already frozen stay
    /// as they are. Gives the number frozen just now.
    pub fn freeze(
        &self,
        term: &str,
        signature: &Signature,
        due: impl FnOnce(&TermBooks) -> Vec<BillLine>,
    ) -> Result<usize, PortError> {
        self.in_transaction(|transaction| {
            let books = term_books(transaction, term)?;
            write_lines(transaction, term, signature, &due(&books))
        })
    }

    /// Closes `term`: freezes `lines` of the books as they stand, and from now on whatever is delivered is
    /// `adjusted`.
    pub fn close(
        &self,
        term: &str,
        signature: &Signature,
        forced: bool,
        lines: impl FnOnce(&TermBooks) -> Vec<BillLine>,
    ) -> Result<Closing, PortError> {
        self.in_transaction(|transaction| {
            let books = term_books(transaction, term)?;
            if let Some(closed) = books.closed {
                return Ok(Closing::ClosedBefore(closed));
            }
            let before = books.frozen.len();
            let frozen = write_lines(transaction, term, signature, &lines(&books))?;
            transaction.execute(
                "INSERT INTO closed_terms (term, closed_at, closed_by, forced) VALUES (?1, ?2, ?3, ?4)",
                params![term, signature.at.as_millis(), signature.by.as_str(), forced],
            )?;
            Ok(Closing::Closed { lines: before + frozen })
        })
    }

    fn in_transaction<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, PortError> {
        let mut connection = self.file.connect()?;
        let attempt = || -> rusqlite::Result<T> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        attempt().map_err(|error| self.file.error(&error))
    }
}

fn write_lines(
    transaction: &Transaction<'_>,
    term: &str,
    signature: &Signature,
    lines: &[BillLine],
) -> rusqlite::Result<usize> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO frozen_lines (term, order_code, school, pupil, guardian, plan, state, prepaid, delivered, fee,
                                   waived, refund, frozen_at, frozen_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (term, order_code) DO NOTHING",
    )?;
    let mut frozen = 0;
    for line in lines {
        frozen += insert.execute(params![
            term,
            line.order.as_str(),
            line.school.as_str(),
            line.pupil.as_str(),
            line.guardian.as_str(),
            line.plan.name(),
            line.state.name(),
            line.prepaid.0,
            line.delivered,
            line.fee.0,
            line.waived.0,
            line.refund.0,
            signature.at.as_millis(),
            signature.by.as_str(),
        ])?;
    }
    Ok(frozen)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use gatebell_engine::ids::{GuardianId, PupilId, SchoolId};
    use gatebell_engine::ledger::Event;
    use gatebell_engine::money::Dollars;
    use gatebell_engine::notice::Passages;
    use gatebell_engine::ports::ledger::{ChargeVerdict, Ledger as _};
    use gatebell_engine::registry::OrderState;
    use gatebell_engine::testing::contract::ledger::{TERM, charge};
    use tempfile::TempDir;

    use super::super::ledger::EmbeddedLedger;
    use super::super::store_fixture::open;
    use super::*;
    use crate::data_dir::DataDir;

    fn books_in(directory: &TempDir) -> Books {
        Books::open(&DataDir::open(directory.path()).unwrap()).unwrap()
    }

    fn signature() -> Signature {
        Signature { by: CompactString::new("cashier"), at: Timestamp::from_millis(7) }
    }

    /// The line of the contract's order with as many messages as the books have.
    fn lines_of(books: &TermBooks) -> Vec<BillLine> {
        let order = charge(0).order;
        vec![BillLine {
            delivered: books.delivered.get(&order).copied().unwrap_or(0),
            order,
            school: SchoolId::new("353604").unwrap(),
            pupil: PupilId::new("P1").unwrap(),
            guardian: GuardianId::new("G1").unwrap(),
            plan: Passages::Both,
            state: OrderState::Cancelled,
            prepaid: Dollars(136),
            fee: Dollars(1),
            waived: Dollars(0),
            refund: Dollars(-135),
        }]
    }

    async fn deliver(ledger: &EmbeddedLedger, number: u64) -> ChargeVerdict {
        ledger.append(vec![charge(number).proof]).await.unwrap();
        ledger.charge(charge(number)).await.unwrap()
    }

    async fn last_event(ledger: &EmbeddedLedger, number: u64) -> Event {
        let proof = charge(number).proof;
        ledger.entries_of(proof.position, proof.notice).await.unwrap().last().unwrap().event
    }

    #[tokio::test]
    async fn what_is_delivered_after_a_line_is_frozen_is_adjusted_and_counted_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        let books = books_in(&directory);
        assert_eq!(deliver(&ledger, 1).await, ChargeVerdict::Charged);

        assert_eq!(books.freeze(TERM, &signature(), lines_of).unwrap(), 1);
        assert_eq!(deliver(&ledger, 2).await, ChargeVerdict::Adjusted);
        assert_eq!(last_event(&ledger, 2).await, Event::Adjusted);
        assert_eq!(
            ledger.charge(charge(1)).await.unwrap(),
            ChargeVerdict::Charged,
            "the first verdict again"
        );
        assert_eq!(
            ledger.charge(charge(2)).await.unwrap(),
            ChargeVerdict::Adjusted,
            "the first verdict again"
        );

        let term = books.term(TERM).unwrap();
        assert_eq!(term.delivered[&charge(0).order], 1);
        assert_eq!(term.frozen.into_values().collect::<Vec<_>>(), lines_of(&books.term(TERM).unwrap()));
        assert_eq!(books.recount(TERM).unwrap(), []);
    }

    #[tokio::test]
    async fn a_frozen_line_is_never_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let books = books_in(&directory);
        books.freeze(TERM, &signature(), lines_of).unwrap();
        let changed = |term: &TermBooks| {
            let mut lines = lines_of(term);
            lines[0].fee = Dollars(99);
            lines
        };
        assert_eq!(books.freeze(TERM, &signature(), changed).unwrap(), 0);
        assert_eq!(books.term(TERM).unwrap().frozen[&charge(0).order].fee, Dollars(1));
    }

    #[tokio::test]
    async fn a_closed_term_adjusts_every_order_and_closing_again_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        let books = books_in(&directory);
        assert_eq!(books.close(TERM, &signature(), true, |_| vec![]).unwrap(), Closing::Closed { lines: 0 });
        assert_eq!(deliver(&ledger, 1).await, ChargeVerdict::Adjusted);

        let closed = ClosedTerm { at: signature().at, by: signature().by, forced: true };
        let later = Signature { by: CompactString::new("somebody"), at: Timestamp::from_millis(8) };
        assert_eq!(
            books.close(TERM, &later, false, lines_of).unwrap(),
            Closing::ClosedBefore(closed.clone())
        );
        let term = books.term(TERM).unwrap();
        assert_eq!((term.closed, term.frozen.len()), (Some(closed), 0));
    }

    #[tokio::test]
    async fn another_term_is_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = open(&directory).ledger();
        let books = books_in(&directory);
        books.close("113-2", &signature(), false, lines_of).unwrap();
        assert_eq!(deliver(&ledger, 1).await, ChargeVerdict::Charged);
        let term = books.term(TERM).unwrap();
        assert_eq!((term.closed, term.frozen.len()), (None, 0));
        assert!(term.of_other_terms.contains(&charge(0).order));
    }
}
