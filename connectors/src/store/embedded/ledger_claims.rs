//! Claims: the one sender of an SMS. A row is inserted once and changed only where it still holds what was
//! expected.

use gatebell_engine::ids::LogPosition;
use gatebell_engine::ledger::{Claim, ClaimKey, ClaimStamp, ClaimState, OwnerToken};
use gatebell_engine::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::ledger_rows::{notice, notice_blob, optional_text, text, word};

/// What came of a compare-and-set.
pub(super) enum Swap {
    /// The row is now as asked, or was so already.
    Done,
    /// The row holds something else.
    Held(Box<Claim>),
    /// There is no row, where one was expected. Claims are never deleted, so this is a row of another
    /// database.
    Missing,
}

/// The claim under `key`.
pub(super) fn read(connection: &Connection, key: &ClaimKey) -> rusqlite::Result<Option<Claim>> {
    connection
        .prepare_cached(
            "SELECT notice, partition, offset, owner, attempt, lane, claimed_at, deadline, state, gateway_id,
                    end_event, end_reason
             FROM claims WHERE day = ?1 AND term = ?2 AND pupil = ?3 AND guardian = ?4 AND kind = ?5",
        )?
        .query_row(
            params![
                key.day.epoch_days(),
                key.term.as_str(),
                key.pupil.as_str(),
                key.guardian.as_str(),
                key.kind.name()
            ],
            |row| claim(row, key),
        )
        .optional()
}

/// Makes the row `claim` where it holds `expected` (`None`: where there is none), inside the caller's
/// transaction.
pub(super) fn swap(
    connection: &Connection,
    expected: Option<&ClaimStamp>,
    claim: &Claim,
) -> rusqlite::Result<Swap> {
    let held = read(connection, &claim.key)?;
    let replaces = match (&held, expected) {
        (Some(held), _) if held == claim => return Ok(Swap::Done),
        (Some(held), Some(expected)) => held.stamp() == *expected,
        (Some(_), None) => false,
        (None, None) => true,
        (None, Some(_)) => return Ok(Swap::Missing),
    };
    match held {
        Some(held) if !replaces => Ok(Swap::Held(Box::new(held))),
        _ => write(connection, claim).map(|()| Swap::Done),
    }
}

fn write(connection: &Connection, claim: &Claim) -> rusqlite::Result<()> {
    let (state, gateway_id, end_event, end_reason) = match &claim.state {
        ClaimState::Open => ("open", None, None, None),
        ClaimState::Refused => ("refused", None, None, None),
        ClaimState::Submitted { gateway_id } => ("submitted", Some(gateway_id.as_str()), None, None),
        ClaimState::Ended { event, reason } => ("ended", None, Some(event.name()), reason.as_deref()),
    };
    connection
        .prepare_cached(
            "INSERT INTO claims (day, term, pupil, guardian, kind, notice, partition, offset, owner, attempt, lane,
                                 claimed_at, deadline, state, gateway_id, end_event, end_reason)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (day, term, pupil, guardian, kind) DO UPDATE SET
                 notice = excluded.notice, partition = excluded.partition, offset = excluded.offset,
                 owner = excluded.owner, attempt = excluded.attempt, lane = excluded.lane,
                 claimed_at = excluded.claimed_at, deadline = excluded.deadline,
                 state = excluded.state, gateway_id = excluded.gateway_id,
                 end_event = excluded.end_event, end_reason = excluded.end_reason",
        )?
        .execute(params![
            claim.key.day.epoch_days(),
            claim.key.term.as_str(),
            claim.key.pupil.as_str(),
            claim.key.guardian.as_str(),
            claim.key.kind.name(),
            notice_blob(claim.notice),
            claim.position.partition,
            claim.position.offset,
            claim.owner.0.to_be_bytes(),
            claim.attempt,
            claim.lane.as_str(),
            claim.claimed_at.as_millis(),
            claim.deadline.as_millis(),
            state,
            gateway_id,
            end_event,
            end_reason,
        ])?;
    Ok(())
}

fn claim(row: &Row<'_>, key: &ClaimKey) -> rusqlite::Result<Claim> {
    let owner: [u8; 16] = row.get(3)?;
    let state = match row.get_ref(8)?.as_str()? {
        "refused" => ClaimState::Refused,
        "submitted" => ClaimState::Submitted { gateway_id: text(row, 9)? },
        "ended" => ClaimState::Ended { event: word(row, 10)?, reason: optional_text(row, 11)? },
        // The table allows these four words only.
        _ => ClaimState::Open,
    };
    Ok(Claim {
        key: key.clone(),
        notice: notice(row, 0)?,
        position: LogPosition { partition: row.get(1)?, offset: row.get(2)? },
        owner: OwnerToken(u128::from_be_bytes(owner)),
        attempt: row.get(4)?,
        lane: word(row, 5)?,
        claimed_at: Timestamp::from_millis(row.get(6)?),
        deadline: Timestamp::from_millis(row.get(7)?),
        state,
    })
}
