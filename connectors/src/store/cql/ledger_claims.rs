//! Claims: the one sender of an SMS, decided by compare-and-set and nothing else.
//!
//! *Order of writes.* The row first, then the `claimed` entry, then `Won`. A loser must leave no entry, so the entry cannot
//! come first. A crash between the two leaves an open claim without its entry, under which nothing has left: nobody was
//! told `Won`. Recovery, which looks for entries, does not list that notice as in doubt; but it is not settled either, so
//! its successor claims it, is told who holds the row, waits until the former owner's request would be over, takes the row
//! over and writes the entry. The notice is then in doubt like any other, and is sent under the same reference. What is
//! never possible is the dangerous half: a request that left, and no row.
//!
//! *An answer that did not come* (a time-out, a broken connection) may hide a compare-and-set that was applied, or that
//! will be: a serial read completes what is under way and tells. The row as asked means won. The row as it was means that
//! the same compare-and-set is tried again, which is harmless: it finds its own row, or applies. After
//! [`ROUNDS_MAX`] rounds the caller is told that nothing is known, and asks again.

use std::sync::Arc;

use compact_str::CompactString;
use gatebell_engine::ledger::{Claim, ClaimKey, ClaimStamp, ClaimState, OwnerToken};
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::ledger::ClaimVerdict;
use gatebell_engine::time::Timestamp;
use scylla::value::{CqlDate, CqlTimestamp};
use scylla::{DeserializeRow, SerializeRow};

use super::error::store_error;
use super::ledger_rows::{date, instant, notice, notice_blob, position, position_columns, unreadable, word};
use super::session::{CqlSession, Read, Swap, pause_after};

/// Rounds of compare-and-set and serial read before nothing is known.
const ROUNDS_MAX: u32 = 4;

/// The claims of all terms.
#[derive(Debug)]
pub(super) struct Claims {
    session: Arc<CqlSession>,
    insert: Swap,
    replace: Swap,
    select: Read,
}

/// A claim as it is read.
#[derive(DeserializeRow)]
struct ClaimRow {
    notice: Vec<u8>,
    log_partition: i64,
    log_offset: i64,
    owner: Vec<u8>,
    attempt: i64,
    lane: String,
    claimed_at: CqlTimestamp,
    deadline: CqlTimestamp,
    state: String,
    gateway_id: String,
    end_event: String,
    end_reason: String,
}

impl Claims {
    pub(super) async fn new(session: Arc<CqlSession>) -> Result<Self, PortError> {
        let insert = session.prepare_swap(
            "INSERT INTO keyspace.claims (term, pupil, guardian, kind, day, notice, log_partition, log_offset, owner, attempt, lane,
                                 claimed_at, deadline, state, gateway_id, end_event, end_reason)
             VALUES (:term, :pupil, :guardian, :kind, :day, :notice, :log_partition, :log_offset, :owner, :attempt, :lane,
                     :claimed_at, :deadline, :state, :gateway_id, :end_event, :end_reason)
             IF NOT EXISTS",
        );
        let replace = session.prepare_swap(
            "UPDATE keyspace.claims SET notice = :notice, log_partition = :log_partition, log_offset = :log_offset,
                               owner = :owner, attempt = :attempt, lane = :lane, claimed_at = :claimed_at,
                               deadline = :deadline, state = :state, gateway_id = :gateway_id,
                               end_event = :end_event, end_reason = :end_reason
             WHERE term = :term AND pupil = :pupil AND guardian = :guardian AND kind = :kind AND day = :day
             IF owner = :expected_owner AND attempt = :expected_attempt AND state = :expected_state
                AND gateway_id = :expected_gateway_id",
        );
        let select = session.prepare_serial_read(
            "SELECT notice, log_partition, log_offset, owner, attempt, lane, claimed_at, deadline, state, gateway_id,
                    end_event, end_reason
             FROM keyspace.claims WHERE term = ? AND pupil = ? AND guardian = ? AND kind = ? AND day = ?",
        );
        Ok(Self { insert: insert.await?, replace: replace.await?, select: select.await?, session })
    }

    /// The claim under `key`, every compare-and-set before this read completed.
    pub(super) async fn read(&self, key: &ClaimKey) -> Result<Option<Claim>, PortError> {
        let values =
            (key.term.as_str(), key.pupil.as_str(), key.guardian.as_str(), key.kind.name(), date(key.day));
        let row: Option<ClaimRow> = self.session.row(&self.select, values).await?;
        row.map(|row| claim(row, key)).transpose()
    }

    /// Makes the row `claim` where it holds `expected` (`None`: where there is none). A row that is `claim` already was
    /// made so by an earlier call.
    pub(super) async fn swap(
        &self,
        expected: Option<&ClaimStamp>,
        claim: &Claim,
    ) -> Result<ClaimVerdict, PortError> {
        let mut last_error = None;
        for round in 1..=ROUNDS_MAX {
            match self.swap_once(expected, claim).await {
                Ok(true) => return Ok(ClaimVerdict::Won),
                Ok(false) => {}
                Err(error) => last_error = Some(error),
            }
            match self.read(&claim.key).await {
                Ok(Some(held)) if held == *claim => return Ok(ClaimVerdict::Won),
                Ok(Some(held)) if expected != Some(&held.stamp()) => {
                    return Ok(ClaimVerdict::Held(Box::new(held)));
                }
                Ok(None) if expected.is_some() => {
                    return Err(store_error(
                        "the claim to be moved on is not in the store: is this the keyspace that it was made in?",
                    ));
                }
                // As it was before: not applied, and nobody else's.
                Ok(_) => {}
                Err(error) => last_error = Some(error),
            }
            tokio::time::sleep(pause_after(round)).await;
        }
        Err(last_error.unwrap_or_else(|| store_error("a claim stays contested")))
    }

    async fn swap_once(&self, expected: Option<&ClaimStamp>, claim: &Claim) -> Result<bool, PortError> {
        let row = NewRow::of(claim)?;
        let Some(expected) = expected else {
            return self.session.swap(&self.insert, row).await;
        };
        let (expected_state, expected_gateway_id) = state_columns(&expected.state);
        let replacement = Replacement {
            row,
            expected_owner: expected.owner.0.to_be_bytes(),
            expected_attempt: i64::from(expected.attempt),
            expected_state,
            expected_gateway_id,
        };
        self.session.swap(&self.replace, replacement).await
    }
}

/// A claim as it is written.
#[derive(SerializeRow)]
struct NewRow<'claim> {
    term: &'claim str,
    pupil: &'claim str,
    guardian: &'claim str,
    kind: &'claim str,
    day: CqlDate,
    notice: [u8; 16],
    log_partition: i64,
    log_offset: i64,
    owner: [u8; 16],
    attempt: i64,
    lane: &'claim str,
    claimed_at: CqlTimestamp,
    deadline: CqlTimestamp,
    state: &'static str,
    gateway_id: &'claim str,
    end_event: &'static str,
    end_reason: &'claim str,
}

impl<'claim> NewRow<'claim> {
    fn of(claim: &'claim Claim) -> Result<Self, PortError> {
        let (log_partition, log_offset) = position_columns(claim.position)?;
        let (state, gateway_id) = state_columns(&claim.state);
        let (end_event, end_reason) = match &claim.state {
            ClaimState::Ended { event, reason } => (event.name(), reason.as_deref().unwrap_or_default()),
            _ => ("", ""),
        };
        Ok(Self {
            term: claim.key.term.as_str(),
            pupil: claim.key.pupil.as_str(),
            guardian: claim.key.guardian.as_str(),
            kind: claim.key.kind.name(),
            day: date(claim.key.day),
            notice: notice_blob(claim.notice),
            log_partition,
            log_offset,
            owner: claim.owner.0.to_be_bytes(),
            attempt: i64::from(claim.attempt),
            lane: claim.lane.as_str(),
            claimed_at: instant(claim.claimed_at),
            deadline: instant(claim.deadline),
            state,
            gateway_id,
            end_event,
            end_reason,
        })
    }
}

/// A claim, and what the row must hold for it to be written.
#[derive(SerializeRow)]
struct Replacement<'claim> {
    #[scylla(flatten)]
    row: NewRow<'claim>,
    expected_owner: [u8; 16],
    expected_attempt: i64,
    expected_state: &'static str,
    expected_gateway_id: &'claim str,
}

/// The state's word, and the gateway's id or nothing.
fn state_columns(state: &ClaimState) -> (&'static str, &str) {
    match state {
        ClaimState::Open => ("open", ""),
        ClaimState::Refused => ("refused", ""),
        ClaimState::Submitted { gateway_id } => ("submitted", gateway_id.as_str()),
        ClaimState::Ended { .. } => ("ended", ""),
    }
}

fn claim(row: ClaimRow, key: &ClaimKey) -> Result<Claim, PortError> {
    let owner: [u8; 16] = row.owner.try_into().map_err(|_| unreadable("owner"))?;
    let state = match row.state.as_str() {
        "open" => ClaimState::Open,
        "refused" => ClaimState::Refused,
        "submitted" => ClaimState::Submitted { gateway_id: CompactString::from(row.gateway_id) },
        "ended" => ClaimState::Ended {
            event: word(&row.end_event, "end_event")?,
            reason: (!row.end_reason.is_empty()).then(|| CompactString::from(row.end_reason)),
        },
        _ => return Err(unreadable("state")),
    };
    Ok(Claim {
        key: key.clone(),
        notice: notice(&row.notice)?,
        position: position(row.log_partition, row.log_offset)?,
        owner: OwnerToken(u128::from_be_bytes(owner)),
        attempt: u32::try_from(row.attempt).map_err(|_| unreadable("attempt"))?,
        lane: word(&row.lane, "lane")?,
        claimed_at: Timestamp::from_millis(row.claimed_at.0),
        deadline: Timestamp::from_millis(row.deadline.0),
        state,
    })
}
