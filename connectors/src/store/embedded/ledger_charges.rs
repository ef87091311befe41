//! Charges and counters: a charge is a row that is inserted at most once, a counter the number of an order's
//! charges, written as the whole total so that writing it again, or late, changes nothing.

use gatebell_engine::ledger::{Charge, Event};
use gatebell_engine::ports::ledger::ChargeVerdict;
use rusqlite::{Connection, OptionalExtension, params};

use super::ledger_entries;
use super::ledger_rows::notice_blob;

/// Books `charge` inside the caller's transaction: row, entry and counter together.
pub(super) fn book(connection: &Connection, charge: &Charge) -> rusqlite::Result<ChargeVerdict> {
    if let Some(first_verdict) = booked(connection, charge)? {
        return Ok(first_verdict);
    }
    let adjusted = is_frozen(connection, charge)?;
    connection
        .prepare_cached(
            "INSERT INTO charges (term, pupil, guardian, order_code, day, kind, notice, adjusted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            charge.term.as_str(),
            charge.pupil.as_str(),
            charge.guardian.as_str(),
            charge.order.as_str(),
            charge.day.epoch_days(),
            charge.kind.name(),
            notice_blob(charge.proof.notice),
            adjusted,
        ])?;
    let event = if adjusted { Event::Adjusted } else { Event::Charged };
    ledger_entries::append(connection, &[charge.proof.followed_by(event, charge.proof.time)])?;
    if adjusted {
        return Ok(ChargeVerdict::Adjusted);
    }
    count(connection, charge)?;
    Ok(ChargeVerdict::Charged)
}

fn booked(connection: &Connection, charge: &Charge) -> rusqlite::Result<Option<ChargeVerdict>> {
    connection
        .prepare_cached(
            "SELECT adjusted FROM charges
             WHERE term = ?1 AND pupil = ?2 AND guardian = ?3 AND order_code = ?4 AND day = ?5 AND kind = ?6",
        )?
        .query_row(
            params![
                charge.term.as_str(),
                charge.pupil.as_str(),
                charge.guardian.as_str(),
                charge.order.as_str(),
                charge.day.epoch_days(),
                charge.kind.name(),
            ],
            |row| Ok(if row.get(0)? { ChargeVerdict::Adjusted } else { ChargeVerdict::Charged }),
        )
        .optional()
}

fn is_frozen(connection: &Connection, charge: &Charge) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM closed_terms WHERE term = ?1)
                 OR EXISTS (SELECT 1 FROM frozen_lines WHERE term = ?1 AND order_code = ?2)",
        )?
        .query_row(params![charge.term.as_str(), charge.order.as_str()], |row| row.get(0))
}

fn count(connection: &Connection, charge: &Charge) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO counters (term, pupil, guardian, order_code, delivered)
             SELECT ?1, ?2, ?3, ?4, count(*) FROM charges
                 WHERE term = ?1 AND pupil = ?2 AND guardian = ?3 AND order_code = ?4 AND adjusted = 0
             ON CONFLICT (term, pupil, guardian, order_code)
                 DO UPDATE SET delivered = max(delivered, excluded.delivered)",
        )?
        .execute(params![
            charge.term.as_str(),
            charge.pupil.as_str(),
            charge.guardian.as_str(),
            charge.order.as_str(),
        ])?;
    Ok(())
}
