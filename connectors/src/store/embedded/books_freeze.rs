//! Freezing: lines of the bill become final, one by one after a cancellation or all of them when a term is
//! closed.
//!
//! A line is computed and frozen inside one write transaction, so no charge slips in between: what is booked
//! before counts in the line, what is booked after is `adjusted`. A frozen line is never written again.

use gatebell_engine::billing::BillLine;
use gatebell_engine::ports::PortError;
use rusqlite::{Transaction, TransactionBehavior, params};

use super::books::term_books;
use crate::sqlite::DatabaseFile;
use crate::store::books::{Closing, PickLines, Signature};

/// Freezes the lines of `term` that `due` picks; gives the number frozen just now.
pub(super) fn freeze(
    file: &DatabaseFile,
    term: &str,
    signature: &Signature,
    due: PickLines<'_>,
) -> Result<usize, PortError> {
    in_transaction(file, |transaction| {
        let books = term_books(transaction, term)?;
        write_lines(transaction, term, signature, &due(&books))
    })
}

/// Closes `term`, freezing its `lines`.
pub(super) fn close(
    file: &DatabaseFile,
    term: &str,
    signature: &Signature,
    forced: bool,
    lines: PickLines<'_>,
) -> Result<Closing, PortError> {
    in_transaction(file, |transaction| {
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
    file: &DatabaseFile,
    change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, PortError> {
    let mut connection = file.connect()?;
    let attempt = || -> rusqlite::Result<T> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = change(&transaction)?;
        transaction.commit()?;
        Ok(result)
    };
    attempt().map_err(|error| file.error(&error))
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
