//! Settles receipts: reads an owned partition's receipts in order, writes what they prove to the ledger, charges.
//!
//! One task an owned partition; it ends with the tenure, and its successor reads on from the last commit.
//!
//! Receipts may come in any order, repeated, late, and before the submit's own answer; the totals are the same (B3). Only
//! proof of delivery overturns *failed* or *expired*; nothing overturns *delivered* (N1).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use super::settling::Settling;
use super::status::Status;
use super::tenure::Tenure;
use super::{PORT_RETRY, charging, retrying};
use crate::ledger::{Event, LedgerEntry};
use crate::ports::clock::Clock;
use crate::ports::ledger::Ledger;
use crate::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog, ReceiptStatus};
use crate::term::Term;

/// Receipts read and settled together.
const BATCH_MAX: usize = 256;
/// Receipts settled at once.
const CONCURRENCY_MAX: usize = 16;
/// How often parked receipts are tried again, in real time.
const PARKED_EVERY: Duration = Duration::from_secs(5);
/// How long a receipt that matches nothing is kept, by the wall clock.
const PARKED_FOR: Duration = Duration::from_secs(24 * 3600);

/// What the settling of receipts needs.
pub(crate) struct ReceiptContext {
    pub(crate) term: Arc<Term>,
    pub(crate) receipts: Arc<dyn ReceiptLog>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) status: Arc<Status>,
    pub(crate) settling: Arc<Settling>,
}

/// What became of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settlement {
    /// Written, or known before.
    Settled,
    /// Its notice or its gateway's id is not known (yet).
    Unmatched,
    /// Its gateway's id contradicts what the gateway told us: not believed.
    Mismatched,
}

/// Settles the receipts of one partition for as long as it is ours.
pub(crate) async fn run(context: Arc<ReceiptContext>, tenure: Arc<Tenure>) {
    let partition = tenure.partition();
    tokio::select! {
        biased;
        () = tenure.over() => {}
        () = settle_on(&context, partition) => {}
    }
    context.receipts.release(partition);
}

/// Settles without an end. What is being settled when this is dropped is settled again by the next owner: that changes
/// nothing.
async fn settle_on(context: &ReceiptContext, partition: u32) {
    let mut done = retrying(&context.status, "receipts", || context.receipts.committed(partition)).await;
    let mut parked = tokio::time::interval(PARKED_EVERY);
    parked.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = parked.tick() => retry_parked(context, partition).await,
            read = context.receipts.read(partition, done, BATCH_MAX) => match read {
                Ok(receipts) => {
                    context.status.recovered("receipts");
                    done = settle_all(context, partition, receipts, done).await;
                }
                Err(cause) => {
                    context.status.trouble("receipts", &cause);
                    tokio::time::sleep(PORT_RETRY).await;
                }
            },
        }
    }
}

async fn settle_all(
    context: &ReceiptContext,
    partition: u32,
    receipts: Vec<LoggedReceipt>,
    done: u64,
) -> u64 {
    let last = receipts.last().map_or(done, |logged| logged.sequence);
    let settlements: Vec<(Receipt, Settlement)> = futures::stream::iter(receipts)
        .map(|logged| async {
            let settlement = settle(context, &logged.receipt).await;
            (logged.receipt, settlement)
        })
        .buffered(CONCURRENCY_MAX)
        .collect()
        .await;
    let unmatched: Vec<Receipt> = settlements
        .into_iter()
        .filter(|(_, settlement)| *settlement == Settlement::Unmatched)
        .map(|(receipt, _)| receipt)
        .collect();
    if !unmatched.is_empty() {
        retrying(&context.status, "receipts", || context.receipts.park(unmatched.clone())).await;
    }
    retrying(&context.status, "receipts", || context.receipts.commit(partition, last)).await;
    last
}

/// Tries what is parked again; forgets what is settled, contradicted or too old.
async fn retry_parked(context: &ReceiptContext, partition: u32) {
    let parked =
        retrying(&context.status, "receipts", || context.receipts.parked(partition, BATCH_MAX)).await;
    let too_old = context.clock.now().minus(PARKED_FOR);
    let mut over = Vec::new();
    for logged in parked {
        let settlement = settle(context, &logged.receipt).await;
        if settlement != Settlement::Unmatched {
            over.push(logged.sequence);
        } else if logged.receipt.arrived < too_old {
            metrics::counter!("gatebell_receipts_given_up_total").increment(1);
            tracing::warn!(notice = %logged.receipt.notice, "a receipt matched no notice for a day");
            over.push(logged.sequence);
        }
    }
    if !over.is_empty() {
        retrying(&context.status, "receipts", || context.receipts.unpark(partition, over.clone())).await;
    }
}

async fn settle(context: &ReceiptContext, receipt: &Receipt) -> Settlement {
    let _settling = context.settling.of(receipt.notice).await;
    let entries =
        retrying(&context.status, "ledger", || context.ledger.entries_of(receipt.position, receipt.notice))
            .await;
    context.status.watch().check_history(receipt.position, entries.iter().map(|entry| entry.event));
    let settlement = match standing(&entries, receipt) {
        Standing::Unknown => Settlement::Unmatched,
        Standing::Contradicted => Settlement::Mismatched,
        Standing::Matches(claimed) => {
            write(context, receipt, claimed, &entries).await;
            Settlement::Settled
        }
    };
    let status = match (settlement, &receipt.status) {
        (Settlement::Unmatched, _) => "unmatched",
        (Settlement::Mismatched, _) => "mismatched",
        (Settlement::Settled, ReceiptStatus::Delivered) => "delivered",
        (Settlement::Settled, ReceiptStatus::Failed { .. }) => "failed",
        (Settlement::Settled, ReceiptStatus::Underway) => "underway",
    };
    metrics::counter!("gatebell_receipts_total", "lane" => receipt.lane.to_string(), "status" => status)
        .increment(1);
    settlement
}

/// How a receipt stands to what the ledger has of its notice.
enum Standing<'a> {
    Unknown,
    Contradicted,
    Matches(&'a LedgerEntry),
}

/// A receipt is believed when its gateway's id is one that the gateway gave us for this notice, or when the last attempt has
/// no id yet (its answer is under way, or was lost) so that the id may be that attempt's.
fn standing<'a>(entries: &'a [LedgerEntry], receipt: &Receipt) -> Standing<'a> {
    let of_lane = |entry: &&LedgerEntry| entry.gateway.as_ref() == Some(&receipt.lane);
    let has_id = |entry: &&LedgerEntry| entry.gateway_id.as_ref() == Some(&receipt.gateway_id);
    if let Some(submitted) = entries.iter().filter(of_lane).find(has_id) {
        return Standing::Matches(submitted);
    }
    let claims = entries.iter().filter(of_lane).filter(|entry| entry.event == Event::Claimed);
    let Some(last) = claims.max_by_key(|claim| claim.attempt) else { return Standing::Unknown };
    let is_answered =
        entries.iter().any(|entry| entry.attempt == last.attempt && entry.event == Event::Submitted);
    if is_answered { Standing::Contradicted } else { Standing::Matches(last) }
}

async fn write(
    context: &ReceiptContext,
    receipt: &Receipt,
    of_attempt: &LedgerEntry,
    entries: &[LedgerEntry],
) {
    let now = context.clock.now();
    let delivered = entries.iter().find(|entry| entry.event == Event::Delivered);
    let entry = match &receipt.status {
        ReceiptStatus::Underway => return,
        ReceiptStatus::Failed { .. } if entries.iter().any(|entry| entry.event.is_end()) => return,
        ReceiptStatus::Failed { reason } => {
            of_attempt.followed_by(Event::Failed, now).known_as(&receipt.gateway_id).because(reason)
        }
        // Already written: what may be missing after a crash is the charge.
        ReceiptStatus::Delivered => match delivered {
            Some(known) => known.clone(),
            None => of_attempt.followed_by(Event::Delivered, now).known_as(&receipt.gateway_id),
        },
    };
    if delivered.is_none() {
        retrying(&context.status, "ledger", || context.ledger.append(vec![entry.clone()])).await;
        context.status.count_entries(std::slice::from_ref(&entry));
    }
    let charged = entries.iter().any(|entry| matches!(entry.event, Event::Charged | Event::Adjusted));
    if !charged {
        charging::charge_if_proven(&context.status, &*context.ledger, &context.term.name, &entry).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::NoticeKind;
    use crate::runtime::lane_fixture::LaneFixture;

    /// A gateway refused the first attempt, and the receipt of the second one came before its answer: the ledger said of the
    /// first that it had failed.
    #[test]
    fn a_receipt_ahead_of_the_answer_is_of_the_last_attempt() {
        let fixture = LaneFixture::new();
        let item = fixture.pending(0, NoticeKind::Arrival);
        let lane = fixture.context.connector.profile().name.clone();
        let now = fixture.context.clock.now();
        let claimed = |attempt| LedgerEntry::of(&item.notice, Event::Claimed, now).through(&lane, attempt);
        let receipt = Receipt {
            lane: lane.clone(),
            notice: item.notice.id,
            position: item.notice.position,
            gateway_id: "#2".into(),
            status: ReceiptStatus::Delivered,
            arrived: now,
        };
        let mut entries = vec![claimed(1), claimed(2)];
        assert!(matches!(standing(&entries, &receipt), Standing::Matches(of) if of.attempt == 2));

        let answer = LedgerEntry::of(&item.notice, Event::Submitted, now).through(&lane, 2).known_as("#3");
        entries.push(answer);
        assert!(matches!(standing(&entries, &receipt), Standing::Contradicted), "the first was refused");
    }
}
