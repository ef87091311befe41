//! How a lane claims SMS notices, a little ahead of need.

use std::sync::Arc;

use super::super::pending::Pending;
use super::super::sending::{self, ClaimStep};
use super::{LEDGER_RETRY, Lane};
use crate::ledger::Event;
use crate::notice::Priority;
use crate::shard::NoticeStart;

/// Claims ahead of need cover so much of the rate, so that the ledger's latency costs no throughput.
const CLAIM_AHEAD_MS: u64 = 500;

impl Lane {
    fn claim_ahead_max(&self) -> usize {
        let profile = self.context.connector.profile();
        let burst = usize::try_from(profile.burst_share()).unwrap_or(usize::MAX);
        let ahead =
            u64::from(profile.rate_per_s) * CLAIM_AHEAD_MS / 1000 / u64::from(profile.shared_by.get());
        usize::try_from(ahead).unwrap_or(usize::MAX).max(profile.batch_max.min(burst)).max(8)
    }

    /// Whether another notice may be claimed ahead. What is more urgent than a passage need not wait for passages that are
    /// claimed already (L2): it has as much room again.
    fn may_claim_ahead(&self) -> bool {
        let ahead_max = self.claim_ahead_max();
        let urgent = self.queue.peek().is_some_and(|next| next.priority < Priority::Passage);
        self.ready.len() + self.claiming.len() < if urgent { 2 * ahead_max } else { ahead_max }
    }

    pub(super) fn start_claims(&mut self) {
        if self.stopping || !self.may_send() {
            return;
        }
        while self.may_claim_ahead() {
            let Some(item) = self.queue.pop() else { return };
            if item.tenure.has_ended() {
                self.release(item);
                continue;
            }
            if item.start == NoticeStart::Expired {
                self.end(item, Event::Expired, None);
                continue;
            }
            // Nothing is claimed for somebody who gets nothing.
            if let Err(suppression) = self.context.index.recipient(&item.notice, self.context.clock.now()) {
                self.end_suppressed(item, suppression.reason());
                continue;
            }
            let context = Arc::clone(&self.context);
            self.claiming.push(Box::pin(sending::claim(context, item)));
        }
    }

    pub(super) fn take_claim(&mut self, item: Box<Pending>, step: ClaimStep) {
        match step {
            ClaimStep::Ready if self.stopping || item.tenure.has_ended() => self.release(item),
            ClaimStep::Ready => self.ready.push(item.rank(), item),
            ClaimStep::SentElsewhere => self.end(item, Event::Suppressed, Some("sent_elsewhere")),
            ClaimStep::AlreadySettled => item.settle(),
            ClaimStep::WaitFor(wait) => self.delay(item, wait),
            ClaimStep::LedgerFailed => self.delay(item, LEDGER_RETRY),
            ClaimStep::Dropped => {}
        }
    }
}
