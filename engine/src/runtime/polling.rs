//! Asks gateways for receipts that have not come, and gives up on those that never will.
//!
//! What a gateway says goes through the receipt log like any callback, so there is one way to settle.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::retrying;
use super::sending::LaneContext;
use crate::ledger::{Event, LedgerEntry};
use crate::ports::receipts::{ReceiptLog, ReceiptStatus};
use crate::term::Term;
use crate::time::{Day, Timestamp};

/// Submitted notices asked for at once: what gateways take in one query.
const QUERY_MAX: usize = 100;
/// Pause between two rounds, in real time.
const ROUND_EVERY: Duration = Duration::from_secs(10);
/// After so long without a receipt a notice ends as failed, by the wall clock; proof may still overturn it.
const RECEIPT_PATIENCE: Duration = Duration::from_secs(72 * 3600);
/// How far back rounds look at least, in days: past the patience, with a day to spare.
const LOOK_BACK_DAYS: i32 = 5;

/// Polls one lane's gateway until `stop`.
pub(crate) async fn run(context: Arc<LaneContext>, receipts: Arc<dyn ReceiptLog>, stop: CancellationToken) {
    let Some(poll_after) = context.connector.profile().poll_after else { return };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round(&context, &*receipts, poll_after) => {}
        }
    }
}

async fn round(context: &LaneContext, receipts: &dyn ReceiptLog, poll_after: Duration) {
    let now = context.clock.now();
    let since = looks_back_to(&context.term, now);
    let due_before = now.minus(poll_after.mul_f64(context.clock.speed()));
    let mut last: Option<LedgerEntry> = None;
    loop {
        let page = retrying(&context.status, "ledger", || {
            context.ledger.awaiting_receipt(
                &context.connector.profile().name,
                since,
                last.as_ref(),
                QUERY_MAX,
            )
        })
        .await;
        let Some(newest) = page.last() else {
            // Whatever the gateway did not answer has been told by its callbacks.
            context.status.recovered("query");
            return;
        };
        last = Some(newest.clone());
        give_up(context, &page, now).await;
        let due: Vec<LedgerEntry> = page.into_iter().filter(|entry| entry.time <= due_before).collect();
        if due.is_empty() {
            // Oldest first: what follows is younger still.
            return;
        }
        match context.connector.query(&due).await {
            Ok(learnt) => {
                context.status.recovered("query");
                let learnt: Vec<_> =
                    learnt.into_iter().filter(|receipt| receipt.status != ReceiptStatus::Underway).collect();
                if !learnt.is_empty() {
                    retrying(&context.status, "receipts", || receipts.append(learnt.clone())).await;
                }
            }
            Err(cause) => {
                context.status.trouble("query", &cause);
                return;
            }
        }
    }
}

/// The first day whose notices are looked at: the term's first, since a process that was down over the holidays finds
/// notices that are older than its patience and must end all the same.
fn looks_back_to(term: &Term, now: Timestamp) -> Day {
    let lately = Day::from_epoch_days(term.day_of(now).epoch_days() - LOOK_BACK_DAYS);
    lately.min(term.first_day)
}

/// Ends what nobody will ever hear of.
async fn give_up(context: &LaneContext, page: &[LedgerEntry], now: Timestamp) {
    let too_old = now.minus(RECEIPT_PATIENCE);
    for entry in page.iter().filter(|entry| entry.time < too_old) {
        let _settling = context.settling.of(entry.notice).await;
        let known =
            retrying(&context.status, "ledger", || context.ledger.entries_of(entry.position, entry.notice))
                .await;
        if !known.iter().any(|known| known.event.is_end()) {
            let over = entry.followed_by(Event::Failed, now).because("no_receipt");
            super::sending::append(context, std::slice::from_ref(&over)).await;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_through_a_long_holiday_is_still_looked_at() {
        let term = Term::parse(Term::built_in("114-1").unwrap()).unwrap();
        let before: Day = "2025-09-26".parse().unwrap();
        let back: Day = "2025-10-13".parse().unwrap();
        assert!(looks_back_to(&term, term.midnight(back)) <= before);
        // In the first days of a term the last of the term before.
        assert!(looks_back_to(&term, term.midnight(term.first_day)) < term.first_day);
    }
}
