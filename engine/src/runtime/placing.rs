//! Finds the notices of receipts that came before their message id was known.
//!
//! A receipt that names nothing but the gateway's message id is placed at once where the id is known; where it overtook the
//! submit's answer it was parked. One task a lane looks whether the id has come. A young receipt is looked at often, since
//! answers come within seconds; an old one now and then: its message may be of an attempt in doubt that is sent again, or of
//! somebody else who uses the same account. Every process looks at all of them; that two place the same receipt changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::retrying;
use super::status::{Status, as_gauge};
use crate::ids::LaneName;
use crate::ports::clock::Clock;
use crate::ports::message_ids::{MessageIds, ParkedReceipt};
use crate::ports::receipts::ReceiptLog;
use crate::time::Timestamp;

/// How often young receipts are looked at, in real time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Every so many looks all are looked at.
const LOOKS_PER_WHOLE_LOOK: u32 = 60;
/// How long a receipt is young, by the wall clock: longer than any submit waits for its answer.
const YOUNG_FOR: Duration = Duration::from_secs(5 * 60);
/// How long a receipt whose id does not come is kept, by the wall clock.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Receipts read together.
const PAGE_MAX: usize = 256;

/// What placing needs.
pub(crate) struct PlacingContext {
    pub(crate) lane: LaneName,
    pub(crate) message_ids: Arc<dyn MessageIds>,
    pub(crate) receipts: Arc<dyn ReceiptLog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) status: Arc<Status>,
}

/// What a look has found.
#[derive(Default)]
struct Look {
    /// The last of the receipts at the front that are no longer young: younger ones come after it.
    old_until: u64,
    /// Receipts up to there, and after it, that still wait.
    old_waiting: usize,
    young_waiting: usize,
}

/// Places the parked receipts of one lane until `stop`.
pub(crate) async fn run(context: PlacingContext, stop: CancellationToken) {
    let mut whole = Look::default();
    for looks in (0..LOOKS_PER_WHOLE_LOOK).cycle() {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let after = if looks == 0 { 0 } else { whole.old_until };
        let look = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            look = look(&context, after) => look,
        };
        let waiting = if looks == 0 { 0 } else { whole.old_waiting } + look.old_waiting + look.young_waiting;
        metrics::gauge!("gatebell_unplaced_receipts", "lane" => context.lane.to_string())
            .set(as_gauge(waiting));
        if looks == 0 {
            whole = look;
        }
    }
}

/// Looks once at all that was parked after `after`.
async fn look(context: &PlacingContext, after: u64) -> Look {
    let now = context.clock.now();
    let mut look = Look { old_until: after, ..Look::default() };
    let mut last = after;
    loop {
        let page =
            retrying(&context.status, "message ids", || context.message_ids.parked(last, PAGE_MAX)).await;
        let Some(newest) = page.last() else { return look };
        last = newest.sequence;
        let mut over = Vec::new();
        for parked in page {
            let is_young = parked.receipt.arrived > now.minus(YOUNG_FOR);
            if !is_young && look.young_waiting == 0 {
                look.old_until = parked.sequence;
            }
            if is_over(context, &parked, now).await {
                over.push(parked.sequence);
            } else if is_young {
                look.young_waiting += 1;
            } else {
                look.old_waiting += 1;
            }
        }
        if !over.is_empty() {
            retrying(&context.status, "message ids", || context.message_ids.unpark(over.clone())).await;
        }
    }
}

/// Whether a receipt need not wait any more: it was placed, or has waited for too long.
async fn is_over(context: &PlacingContext, parked: &ParkedReceipt, now: Timestamp) -> bool {
    let receipt = &parked.receipt;
    let place =
        retrying(&context.status, "message ids", || context.message_ids.find(&receipt.gateway_id)).await;
    if let Some(place) = place {
        let placed = receipt.clone().placed(&context.lane, place);
        retrying(&context.status, "receipts", || context.receipts.append(vec![placed.clone()])).await;
        count(context, "placed");
        return true;
    }
    let is_too_old = receipt.arrived < now.minus(KEPT_FOR);
    if is_too_old {
        count(context, "given_up");
        tracing::warn!(lane = %context.lane, "a receipt's message id was not known for a day");
    }
    is_too_old
}

fn count(context: &PlacingContext, result: &'static str) {
    metrics::counter!("gatebell_unplaced_receipts_total", "lane" => context.lane.to_string(), "result" => result)
        .increment(1);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::vitals::Vitals;
    use super::*;
    use crate::ports::clock::ScaledClock;
    use crate::testing::contract::ledger::lane;
    use crate::testing::contract::message_ids::{place, unplaced};
    use crate::testing::fakes::{FakeMessageIds, FakeReceiptLog};

    /// A lane's task on a paused clock, with what it works on.
    struct Lane {
        ids: FakeMessageIds,
        receipts: FakeReceiptLog,
        clock: Arc<ScaledClock>,
        stop: CancellationToken,
    }

    impl Lane {
        fn start() -> Self {
            let (ids, receipts) = (FakeMessageIds::default(), FakeReceiptLog::default());
            let clock = Arc::new(ScaledClock::starting_at(Timestamp::from_millis(1_757_287_867_000), 1.0));
            let vitals = Arc::new(Vitals::new(Arc::clone(&clock) as Arc<dyn Clock>));
            let context = PlacingContext {
                lane: lane(),
                message_ids: Arc::new(ids.clone()),
                receipts: Arc::new(receipts.clone()),
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                status: Arc::new(Status::new(vitals, [])),
            };
            let stop = CancellationToken::new();
            tokio::spawn(run(context, stop.clone()));
            Self { ids, receipts, clock, stop }
        }

        async fn park(&self, number: u64) {
            let receipt =
                crate::ports::message_ids::UnplacedReceipt { arrived: self.clock.now(), ..unplaced(number) };
            self.ids.park(receipt).await.unwrap();
        }

        async fn remember(&self, number: u64) {
            self.ids.remember(&format!("M{number}"), place(number), self.clock.now()).await.unwrap();
        }

        /// Positions of what was placed so far.
        fn placed(&self) -> Vec<u64> {
            self.receipts.arrived().into_iter().map(|receipt| receipt.position.offset).collect()
        }
    }

    impl Drop for Lane {
        fn drop(&mut self) {
            self.stop.cancel();
        }
    }

    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_receipt_is_placed_shortly_after_its_id_has_come() {
        let lane = Lane::start();
        lane.park(1).await;
        lane.park(2).await;
        pass(Duration::from_secs(30)).await;
        assert!(lane.placed().is_empty());
        lane.remember(2).await;
        pass(LOOK_EVERY + Duration::from_secs(1)).await;
        assert_eq!(lane.placed(), [place(2).position.offset]);
        lane.remember(1).await;
        pass(LOOK_EVERY + Duration::from_secs(1)).await;
        assert_eq!(lane.placed().len(), 2);
        assert!(lane.ids.has_none_parked());
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_receipt_is_placed_with_the_next_whole_look() {
        let lane = Lane::start();
        lane.park(1).await;
        pass(Duration::from_secs(3600)).await;
        lane.remember(1).await;
        pass(LOOK_EVERY * (LOOKS_PER_WHOLE_LOOK + 1)).await;
        assert_eq!(lane.placed(), [place(1).position.offset]);
    }

    #[tokio::test(start_paused = true)]
    async fn old_receipts_do_not_hide_the_young_ones_behind_them() {
        let lane = Lane::start();
        for number in 0..600 {
            lane.park(number).await;
        }
        pass(Duration::from_secs(3600)).await;
        lane.park(700).await;
        lane.remember(700).await;
        pass(LOOK_EVERY + Duration::from_secs(10)).await;
        assert_eq!(lane.placed(), [place(700).position.offset]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_receipt_whose_id_does_not_come_for_a_day_is_given_up() {
        let lane = Lane::start();
        lane.park(1).await;
        pass(KEPT_FOR - Duration::from_secs(600)).await;
        assert!(!lane.ids.has_none_parked());
        pass(Duration::from_secs(600) + LOOK_EVERY * (LOOKS_PER_WHOLE_LOOK + 1)).await;
        assert!(lane.ids.has_none_parked());
        assert!(lane.placed().is_empty());
    }
}
