//! Asks gateways for receipts that have not come, and gives up on those that never will.
//!
//! What a gateway says goes through the receipt log like any callback, so there is one way to settle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::holdings::Holdings;
use super::retrying;
use super::sending::LaneContext;
use super::tenure::Tenure;
use crate::ids::NoticeId;
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

/// Longest wait, in doublings of the lane's `poll_after`, until a gateway is asked again for the same receipt.
const DOUBLINGS_MAX: u32 = 6;

/// When a gateway is asked for a receipt next, and how often it was.
#[derive(Clone, Copy, Debug)]
struct NextAsk {
    at: Timestamp,
    asked: u32,
}

/// What was asked for and has not come: a phone that is off for a day must not be asked for every round.
type Asked = BTreeMap<NoticeId, NextAsk>;

/// Polls one lane's gateway about the partitions that are ours, until `stop`.
pub(crate) async fn run(
    context: Arc<LaneContext>,
    holdings: Arc<Holdings>,
    receipts: Arc<dyn ReceiptLog>,
    stop: CancellationToken,
) {
    let Some(poll_after) = context.connector.profile().poll_after else { return };
    let mut asked: BTreeMap<u32, Asked> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
        let tenures = holdings.all();
        asked.retain(|partition, _| tenures.iter().any(|tenure| tenure.partition() == *partition));
        for tenure in tenures {
            let asked = asked.entry(tenure.partition()).or_default();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tenure.over() => {}
                still_asked = round(&context, &tenure, &*receipts, poll_after, asked) => *asked = still_asked,
            }
        }
    }
}

/// One look at all of a partition that awaits a receipt; what is to be asked for again, and when.
async fn round(
    context: &LaneContext,
    tenure: &Tenure,
    receipts: &dyn ReceiptLog,
    poll_after: Duration,
    asked: &Asked,
) -> Asked {
    let now = context.clock.now();
    let since = looks_back_to(&context.term, now);
    // Deadlines and ages are the wall clock's, and so is what they are compared with.
    let wait = poll_after.mul_f64(context.clock.speed());
    let mut still_asked = Asked::new();
    let mut last: Option<LedgerEntry> = None;
    loop {
        let page = retrying(&context.status, "ledger", || {
            context.ledger.awaiting_receipt(
                tenure.partition(),
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
            return still_asked;
        };
        // Oldest first: what follows is younger still, and nothing of it is due.
        let is_last_page = newest.time.plus(wait) > now;
        last = Some(newest.clone());
        give_up(context, &page, now).await;
        let mut due = Vec::new();
        for entry in page {
            let next =
                asked.get(&entry.notice).copied().unwrap_or(NextAsk { at: entry.time.plus(wait), asked: 0 });
            if next.at <= now {
                still_asked.insert(entry.notice, asked_again(next, now, wait));
                due.push(entry);
            } else {
                still_asked.insert(entry.notice, next);
            }
        }
        if due.is_empty() && is_last_page {
            return still_asked;
        }
        if due.is_empty() {
            continue;
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
                // Asked in vain: the next round asks for all of it again.
                return asked.clone();
            }
        }
    }
}

/// The wait doubles with each time that the gateway had nothing to say.
fn asked_again(before: NextAsk, now: Timestamp, wait: Duration) -> NextAsk {
    let doublings = before.asked.min(DOUBLINGS_MAX);
    NextAsk { at: now.plus(wait.saturating_mul(1 << doublings)), asked: before.asked.saturating_add(1) }
}

/// The first day whose notices are looked at: the term's first, since a process that was down over the holidays finds
/// notices that are older than its patience and must end all the same.
fn looks_back_to(term: &Term, now: Timestamp) -> Day {
    let lately = Day::from_epoch_days(term.day_of(now).epoch_days() - LOOK_BACK_DAYS);
    lately.min(term.first_day)
}

/// Ends what nobody will ever hear of, unless the partition may have another owner, who will end it.
async fn give_up(context: &LaneContext, page: &[LedgerEntry], now: Timestamp) {
    if !context.vitals.assignment_is_fresh() {
        return;
    }
    let too_old = now.minus(RECEIPT_PATIENCE);
    for entry in page.iter().filter(|entry| entry.time < too_old) {
        let _settling = context.settling.of(entry.notice).await;
        let known =
            retrying(&context.status, "ledger", || context.ledger.entries_of(entry.position, entry.notice))
                .await;
        context.status.watch().check_history(entry.position, known.iter().map(|known| known.event));
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
    fn a_receipt_that_does_not_come_is_asked_for_less_and_less_often() {
        let wait = Duration::from_secs(300);
        let mut next = NextAsk { at: Timestamp::from_millis(0), asked: 0 };
        let mut waits_s = Vec::new();
        for _ in 0..9 {
            let now = next.at;
            next = asked_again(next, now, wait);
            waits_s.push(next.at.since(now).as_secs());
        }
        assert_eq!(waits_s, [300, 600, 1200, 2400, 4800, 9600, 19200, 19200, 19200]);
    }

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
