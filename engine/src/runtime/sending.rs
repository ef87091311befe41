//! The single steps of sending one notice, each against a port: claim, message, submit, record.
//!
//! Order is everything here: the claim (and with it the reference) is durable before the request leaves, and an answer is
//! durable before the notice counts as settled. A step that a crash interrupts leaves something that its successor can
//! read: no claim (nothing was sent), a claim without outcome (*in doubt*), or an outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;

use super::last_look::{self, Leaving, Outgoing};
use super::pending::Pending;
use super::settling::Settling;
use super::status::{LaneStatus, Status};
use super::vitals::Vitals;
use super::{charging, retrying, settling};
use crate::index::{Recipient, RegistryIndex};
use crate::lane::attempt::{LanePause, NextStep, Standing, after_answer};
use crate::ledger::{Claim, ClaimKey, ClaimState, ClientReference, Event, LedgerEntry};
use crate::notice::{Channel, Notice};
use crate::ports::channel::{ChannelConnector, Message, SubmitOutcome};
use crate::ports::clock::Clock;
use crate::ports::ledger::{ClaimVerdict, Ledger};
use crate::ports::message_ids::{MessageIds, NoticePlace};
use crate::template::{Templates, Told};
use crate::term::Term;
use crate::time::Timestamp;

/// What a lane's steps need.
pub(crate) struct LaneContext {
    pub(crate) connector: Arc<dyn ChannelConnector>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) index: Arc<RegistryIndex>,
    pub(crate) term: Arc<Term>,
    pub(crate) templates: Arc<Templates>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) status: Arc<Status>,
    pub(crate) lane_status: Arc<LaneStatus>,
    pub(crate) settling: Arc<Settling>,
    /// Where the gateway's receipts name a message by its own id only: what its ids stand for.
    pub(crate) message_ids: Option<Arc<dyn MessageIds>>,
}

/// What came of an attempt to claim.
#[derive(Debug)]
pub(crate) enum ClaimStep {
    /// The claim is ours: send.
    Ready,
    /// Another notice has it.
    SentElsewhere,
    /// This notice was submitted or ended by somebody before.
    AlreadySettled,
    /// Its former owner's request may still be on the wire.
    WaitFor(Duration),
    /// Nothing is known.
    LedgerFailed,
    /// No longer our concern.
    Dropped,
}

/// Compare-and-set rounds before a contested claim is left for later.
const CLAIM_ROUNDS_MAX: usize = 4;

/// Claims an SMS notice, or finds out who did.
pub(crate) async fn claim(context: Arc<LaneContext>, mut item: Box<Pending>) -> (Box<Pending>, ClaimStep) {
    let step = match item.claim {
        // Still ours from the try before.
        Some(_) if item.in_doubt => recheck_doubt(&context, &item).await,
        Some(_) => ClaimStep::Ready,
        None => claim_anew(&context, &mut item).await,
    };
    (item, step)
}

/// Whether a receipt has ended the doubt meanwhile.
async fn recheck_doubt(context: &LaneContext, item: &Pending) -> ClaimStep {
    match context.ledger.entries_of(item.notice.position, item.notice.id).await {
        Ok(entries) if entries.iter().any(|entry| entry.event.settles()) => ClaimStep::AlreadySettled,
        Ok(_) => ClaimStep::Ready,
        Err(cause) => {
            context.status.trouble("ledger", &cause);
            ClaimStep::LedgerFailed
        }
    }
}

async fn claim_anew(context: &LaneContext, item: &mut Pending) -> ClaimStep {
    for _ in 0..CLAIM_ROUNDS_MAX {
        let wanted = wanted_claim(context, item);
        let entry = LedgerEntry::of(&item.notice, Event::Claimed, wanted.claimed_at)
            .through(&wanted.lane, wanted.attempt);
        let held = match context
            .ledger
            .claim(item.expected.as_deref().cloned(), wanted.clone(), entry.clone())
            .await
        {
            Ok(ClaimVerdict::Won) => {
                context.status.recovered("ledger");
                context.status.count_entries(std::slice::from_ref(&entry));
                item.claim = Some(Box::new(wanted));
                return if item.in_doubt { recheck_doubt(context, item).await } else { ClaimStep::Ready };
            }
            Ok(ClaimVerdict::Held(held)) => held,
            Err(cause) => {
                context.status.trouble("ledger", &cause);
                return ClaimStep::LedgerFailed;
            }
        };
        if held.notice != item.notice.id {
            return ClaimStep::SentElsewhere;
        }
        match held.state {
            ClaimState::Ended { .. } | ClaimState::Submitted { .. } => {
                repaired(context, item, &held).await;
                return ClaimStep::AlreadySettled;
            }
            ClaimState::Refused => {
                item.attempt = held.attempt + 1;
                item.in_doubt = false;
            }
            ClaimState::Open => {
                let wait = answer_due_in(context, item, &held);
                if held.owner != item.tenure.owner() && !wait.is_zero() {
                    return ClaimStep::WaitFor(wait);
                }
                item.attempt = held.attempt;
                // Our own was written by a call whose answer was lost: nothing has left under it.
                item.in_doubt |= held.owner != item.tenure.owner();
            }
        }
        item.expected = Some(Box::new(held.stamp()));
    }
    ClaimStep::WaitFor(Duration::from_secs(1))
}

/// How long a request under somebody else's claim may still be on the wire: that owner may have sent it long after it
/// claimed, but not after this tenure began.
fn answer_due_in(context: &LaneContext, item: &Pending, held: &Claim) -> Duration {
    let submit_timeout = context.connector.profile().submit_timeout;
    let since_claim = held.claimed_at.plus(submit_timeout.mul_f64(context.clock.speed()));
    let since_tenure = item.tenure.began_at() + submit_timeout;
    let monotonic = context.clock.monotonic();
    context.clock.real_time_until(since_claim).max(since_tenure.saturating_sub(monotonic))
}

fn wanted_claim(context: &LaneContext, item: &Pending) -> Claim {
    Claim {
        key: ClaimKey::of(&context.term.name, &item.notice),
        notice: item.notice.id,
        position: item.notice.position,
        owner: item.tenure.owner(),
        attempt: item.attempt,
        lane: context.connector.profile().name.clone(),
        claimed_at: context.clock.now(),
        deadline: item.notice.deadline,
        state: ClaimState::Open,
    }
}

/// Whether `held`, a claim of this very notice, says what became of it; if so, the ledger does now too.
async fn repaired(context: &LaneContext, item: &Pending, held: &Claim) -> bool {
    match &held.state {
        ClaimState::Ended { event, reason } => {
            repair_ended(context, item, held, *event, reason.clone()).await;
            true
        }
        ClaimState::Submitted { gateway_id } => {
            repair_submitted(context, item, held, gateway_id).await;
            true
        }
        ClaimState::Open | ClaimState::Refused => false,
    }
}

/// The claim says submitted, so the ledger must too. Entries are written before claims, so it does, and its former owner has
/// counted it; what may be missing is what that one would have done next.
async fn repair_submitted(context: &LaneContext, item: &Pending, held: &Claim, gateway_id: &str) {
    remember_id(context, &item.notice, gateway_id).await;
    let event = if context.connector.profile().gives_receipts { Event::Submitted } else { Event::Accepted };
    let entry = LedgerEntry::of(&item.notice, event, context.clock.now())
        .through(&held.lane, held.attempt)
        .known_as(gateway_id);
    retrying(&context.status, "ledger", || context.ledger.append(vec![entry.clone()])).await;
    charging::charge_if_proven(&context.status, &*context.ledger, &context.term.name, &entry).await;
}

/// The claim says that the notice has ended, so the ledger must too: a crash can fall between the two.
async fn repair_ended(
    context: &LaneContext,
    item: &Pending,
    held: &Claim,
    event: Event,
    reason: Option<CompactString>,
) {
    let entry = LedgerEntry::of(&item.notice, event, context.clock.now()).through(&held.lane, held.attempt);
    let _settling = context.settling.of(item.notice.id).await;
    settling::append_unless_overtaken(&context.status, &*context.ledger, LedgerEntry { reason, ..entry })
        .await;
}

/// Gives back a claim whose reference was certainly not used. Best effort: otherwise its successor finds it in doubt.
pub(crate) async fn release(context: &LaneContext, item: &Pending) {
    let Some(claim) = &item.claim else { return };
    let refused = Claim { state: ClaimState::Refused, ..Claim::clone(claim) };
    if let Err(cause) = context.ledger.advance(claim.stamp(), refused, Vec::new()).await {
        tracing::warn!(%cause, "a claim that was not used stays in doubt");
    }
}

/// The message for `item`, in the words of its reader, to leave at `now`.
pub(crate) fn message(
    context: &LaneContext,
    item: &Pending,
    recipient: Recipient,
    now: Timestamp,
) -> Message {
    let notice = &item.notice;
    let text = context.templates.text(
        notice.channel,
        notice.kind,
        recipient.language,
        Told { pupil_name: &recipient.pupil_name, place: &recipient.place_name, at: notice.at },
        &context.term,
    );
    Message {
        notice: notice.id,
        position: notice.position,
        reference: ClientReference::new(notice.id, item.attempt),
        address: recipient.address,
        text,
        language: recipient.language,
        kind: notice.kind,
        pupil: notice.pupil.clone(),
        guardian: notice.guardian.clone(),
        at: notice.at,
        valid_for: notice.deadline.since(now).div_f64(context.clock.speed()),
    }
}

/// One message's way back from the gateway. Nothing of it is durable yet.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) item: Box<Pending>,
    pub(crate) step: NextStep,
}

/// Wait of a message that must not leave before its lane looks at it again, in real time.
const WITHHELD_WAIT: Duration = Duration::from_secs(1);

/// Hands a batch to the gateway and hears what it says. What must not leave comes back as it is.
pub(crate) async fn submit(
    context: Arc<LaneContext>,
    batch: Vec<Outgoing>,
    down_streak: u32,
) -> Vec<Answered> {
    let mut answered = Vec::with_capacity(batch.len());
    let (mut items, mut messages) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    let leaving = Leaving::now(&*context.clock);
    for outgoing in batch {
        if last_look::may_leave(&context, &outgoing, leaving) {
            items.push(outgoing.item);
            messages.push(outgoing.message);
            continue;
        }
        let step = NextStep::RetrySame {
            delay: WITHHELD_WAIT,
            lane: LanePause::None,
            reason: CompactString::const_new("withheld"),
        };
        answered.push(Answered { item: outgoing.item, step });
    }
    if items.is_empty() {
        return answered;
    }
    let started = context.clock.monotonic();
    let timeout = context.connector.profile().submit_timeout;
    let outcomes = match tokio::time::timeout(timeout, context.connector.submit(&messages)).await {
        Ok(outcomes) => outcomes,
        Err(_) => vec![SubmitOutcome::Unknown { reason: CompactString::const_new("timeout") }; items.len()],
    };
    let took = context.clock.monotonic().saturating_sub(started);
    let lane = context.connector.profile().name.to_string();
    metrics::histogram!("gatebell_submit_seconds", "lane" => lane.clone()).record(took.as_secs_f64());
    // A connector that answers for fewer messages than it was given leaves the others in doubt.
    let missing = SubmitOutcome::Unknown { reason: CompactString::const_new("no_answer") };
    let outcomes = outcomes.into_iter().chain(std::iter::repeat(missing));
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (item, outcome) in items.into_iter().zip(outcomes) {
        *counts.entry(outcome_label(&outcome)).or_default() += 1;
        let standing = Standing {
            attempt: item.attempt,
            tries: item.tries,
            in_doubt: item.in_doubt,
            is_claimed: item.claim.is_some(),
            down_streak,
        };
        answered.push(Answered { item, step: after_answer(outcome, standing) });
    }
    for (outcome, count) in counts {
        metrics::counter!("gatebell_submits_total", "lane" => lane.clone(), "outcome" => outcome)
            .increment(count);
    }
    answered
}

fn outcome_label(outcome: &SubmitOutcome) -> &'static str {
    match outcome {
        SubmitOutcome::Accepted { duplicate: false, .. } => "accepted",
        SubmitOutcome::Accepted { duplicate: true, .. } => "recognised",
        SubmitOutcome::Throttled { .. } => "throttled",
        SubmitOutcome::RetryLater { .. } => "retry_later",
        SubmitOutcome::Refused { .. } => "refused",
        SubmitOutcome::GatewayDown { .. } => "gateway_down",
        SubmitOutcome::NotSent { .. } => "not_sent",
        SubmitOutcome::Unknown { .. } => "unknown",
    }
}

/// Makes the answer for a claimed message durable: its claim moves on, and its entry is written with it. What an answer
/// leaves as it was needs no writing.
pub(crate) async fn record(context: Arc<LaneContext>, mut answered: Answered) -> Answered {
    let Answered { item, step } = &answered;
    let Some(claim) = item.claim.clone() else { return answered };
    let entry =
        |event| LedgerEntry::of(&item.notice, event, context.clock.now()).through(&claim.lane, claim.attempt);
    let (state, entry) = match step {
        NextStep::Submitted { gateway_id } => {
            remember_id(&context, &item.notice, gateway_id).await;
            let receipts = context.connector.profile().gives_receipts;
            let event = if receipts { Event::Submitted } else { Event::Accepted };
            (
                ClaimState::Submitted { gateway_id: gateway_id.clone() },
                Some(entry(event).known_as(gateway_id)),
            )
        }
        NextStep::Fail { reason } => {
            let failed = entry(Event::Failed).because(reason);
            (ClaimState::Ended { event: failed.event, reason: failed.reason.clone() }, Some(failed))
        }
        NextStep::RetryAnew { .. } => (ClaimState::Refused, None),
        NextStep::RetrySame { .. } | NextStep::InDoubt { .. } => return answered,
    };
    let moved = Claim { state, ..*claim };
    advance(&context, item, &moved, entry.as_ref()).await;
    if let Some(entry) = &entry {
        charging::charge_if_proven(&context.status, &*context.ledger, &context.term.name, entry).await;
    }
    answered.item.claim = Some(Box::new(moved));
    answered
}

/// Writes down what the gateway calls the message, where its receipts say nothing else: before the submit is recorded, after
/// which nobody would do it any more.
async fn remember_id(context: &LaneContext, notice: &Notice, gateway_id: &str) {
    let Some(message_ids) = &context.message_ids else { return };
    let place = NoticePlace { position: notice.position, notice: notice.id };
    let accepted_at = context.clock.now();
    retrying(&context.status, "message ids", || message_ids.remember(gateway_id, place, accepted_at)).await;
}

/// Ends a notice that has a claim, its own or its predecessor's: nothing more is sent under it. Without a claim of its own
/// there was no time to take its predecessor's over; that stays as it is, so that nobody sends under it, but where it says
/// what became of the notice, that counts.
///
/// Such an end is decided here and no fact. Where somebody else has taken the claim over meanwhile, or has given it back
/// unused, nothing is written, and the answer is `Err`: in doubt or not as is known now, for the lane to end it anew.
pub(crate) async fn end_claim(
    context: Arc<LaneContext>,
    mut item: Box<Pending>,
    entry: LedgerEntry,
) -> Result<Box<Pending>, Box<Pending>> {
    if item.claim.is_none()
        && let Some(held) = former_claim(&context, &item).await
    {
        if held.state == ClaimState::Refused {
            item.in_doubt = false;
            return Err(item);
        }
        if repaired(&context, &item, &held).await {
            return Ok(item);
        }
    }
    let _settling = context.settling.of(item.notice.id).await;
    if let Some(claim) = &item.claim {
        let state = ClaimState::Ended { event: entry.event, reason: entry.reason.clone() };
        let ended = Claim { state, ..Claim::clone(claim) };
        let verdict = retrying(&context.status, "ledger", || {
            context.ledger.advance(claim.stamp(), ended.clone(), Vec::new())
        })
        .await;
        if verdict != ClaimVerdict::Won {
            item.claim = None;
            item.expected = None;
            item.in_doubt = true;
            return Err(item);
        }
    }
    // A receipt may have ended it meanwhile.
    settling::append_unless_overtaken(&context.status, &*context.ledger, entry).await;
    Ok(item)
}

/// The claim of this very notice that a former owner has left.
async fn former_claim(context: &LaneContext, item: &Pending) -> Option<Claim> {
    let key = ClaimKey::of(&context.term.name, &item.notice);
    let held = retrying(&context.status, "ledger", || context.ledger.claim_of(&key)).await;
    held.filter(|held| held.notice == item.notice.id)
}

/// Moves a claim on, trying again until the store has it: an answer that is known must not be forgotten. Losing the
/// compare-and-set is no error: a successor took the claim over, and the entry was written all the same, unless it is an end
/// and comes too late.
async fn advance(context: &LaneContext, item: &Pending, moved: &Claim, entry: Option<&LedgerEntry>) {
    let Some(claim) = &item.claim else { return };
    let _settling = context.settling.of(item.notice.id).await;
    let overtaken = match entry {
        // A receipt may have ended the doubt meanwhile, or a successor has settled it: a refusal may be long in coming to a
        // process that slept.
        Some(end) if end.event == Event::Failed || (item.in_doubt && end.event.is_end()) => {
            settling::is_overtaken(&context.status, &*context.ledger, end).await
        }
        _ => false,
    };
    let entries: Vec<LedgerEntry> = entry.filter(|_| !overtaken).into_iter().cloned().collect();
    let _verdict = retrying(&context.status, "ledger", || {
        context.ledger.advance(claim.stamp(), moved.clone(), entries.clone())
    })
    .await;
    context.status.count_entries(&entries);
}

/// Appends entries, trying again until the store has them.
pub(crate) async fn append(context: &LaneContext, entries: &[LedgerEntry]) {
    retrying(&context.status, "ledger", || context.ledger.append(entries.to_vec())).await;
    context.status.count_entries(entries);
}

/// Whether `channel` needs a claim before the wire: only SMS costs money and must not be doubled.
pub(crate) const fn needs_claim(channel: Channel) -> bool {
    matches!(channel, Channel::Sms)
}

#[cfg(test)]
mod tests;
