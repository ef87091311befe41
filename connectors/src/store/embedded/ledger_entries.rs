//! Appending entries, and what is kept beside them: a day's place in the ledger, and who waits for a receipt.

use gatebell_engine::ledger::{Event, LedgerEntry};
use rusqlite::{Connection, OptionalExtension, params};

use super::ledger_rows::{checksum, notice_blob};

/// Appends `entries` inside the caller's transaction; those named like an earlier one are passed over.
pub(super) fn append(connection: &Connection, entries: &[LedgerEntry]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO entries (partition, offset, notice, event, attempt, pupil, guardian, channel, kind, day, at, time,
                              order_code, gateway, gateway_id, reason, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
         ON CONFLICT (partition, offset, notice, event, attempt) DO NOTHING",
    )?;
    // A batch is mostly of one day: its place is written once a run of equal days.
    let mut run: Option<DayRun> = None;
    for entry in entries {
        let is_new = insert.execute(params![
            entry.position.partition,
            entry.position.offset,
            notice_blob(entry.notice),
            entry.event.name(),
            entry.attempt,
            entry.pupil.as_str(),
            entry.guardian.as_str(),
            entry.channel.name(),
            entry.kind.name(),
            entry.day.epoch_days(),
            entry.at.as_millis(),
            entry.time.as_millis(),
            entry.order.as_ref().map(|order| order.as_str()),
            entry.gateway.as_ref().map(|lane| lane.as_str()),
            entry.gateway_id.as_deref(),
            entry.reason.as_deref(),
            checksum(entry),
        ])? > 0;
        if !is_new {
            continue;
        }
        let seq = connection.last_insert_rowid();
        let day = entry.day.epoch_days();
        run = match run {
            Some(same) if same.day == day => Some(DayRun { last_seq: seq, ..same }),
            finished => {
                write_day(connection, finished)?;
                Some(DayRun { day, first_seq: seq, last_seq: seq })
            }
        };
        follow_waiting(connection, entry, seq)?;
    }
    write_day(connection, run)
}

struct DayRun {
    day: i32,
    first_seq: i64,
    last_seq: i64,
}

fn write_day(connection: &Connection, run: Option<DayRun>) -> rusqlite::Result<()> {
    let Some(DayRun { day, first_seq, last_seq }) = run else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO ledger_days (day, first_seq, last_seq) VALUES (?1, ?2, ?3)
             ON CONFLICT (day) DO UPDATE SET last_seq = excluded.last_seq",
        )?
        .execute(params![day, first_seq, last_seq])?;
    Ok(())
}

/// A submitted notice waits for its receipt until its end, and never again after it, in whichever order they
/// are written.
fn follow_waiting(connection: &Connection, entry: &LedgerEntry, seq: i64) -> rusqlite::Result<()> {
    if entry.event.is_end() {
        connection
            .prepare_cached("DELETE FROM awaiting WHERE partition = ?1 AND offset = ?2 AND notice = ?3")?
            .execute(params![entry.position.partition, entry.position.offset, notice_blob(entry.notice)])?;
        return Ok(());
    }
    let Some(lane) = entry.gateway.as_ref().filter(|_| entry.event == Event::Submitted) else {
        return Ok(());
    };
    if has_ended(connection, entry)? {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO awaiting (partition, offset, notice, lane, day, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (partition, offset, notice) DO UPDATE SET lane = excluded.lane, seq = excluded.seq",
        )?
        .execute(params![
            entry.position.partition,
            entry.position.offset,
            notice_blob(entry.notice),
            lane.as_str(),
            entry.day.epoch_days(),
            seq,
        ])?;
    Ok(())
}

fn has_ended(connection: &Connection, entry: &LedgerEntry) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM entries WHERE partition = ?1 AND offset = ?2 AND notice = ?3
             AND event IN ('accepted', 'delivered', 'failed', 'expired', 'suppressed') LIMIT 1",
        )?
        .query_row(
            params![entry.position.partition, entry.position.offset, notice_blob(entry.notice)],
            |_| Ok(()),
        )
        .optional()
        .map(|found| found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_that_end_a_notice_are_those_of_the_query() {
        let ends: Vec<_> = Event::ALL.into_iter().filter(|event| event.is_end()).map(Event::name).collect();
        assert_eq!(ends, ["accepted", "delivered", "failed", "expired", "suppressed"]);
    }
}
