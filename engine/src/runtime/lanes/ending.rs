//! How a lane ends notices: through their claims, or with the next append to the ledger.
//!
//! What needs no claim ends in the lane's memory first, and counts as in flight until the ledger has it: whoever owns the
//! partition next must find the entry there. Only then is the notice settled.

use std::sync::Arc;

use compact_str::CompactString;

use super::super::pending::Pending;
use super::super::retrying;
use super::super::sending::{self, LaneContext};
use super::{LEDGER_RETRY, Lane};
use crate::ids::LaneName;
use crate::ledger::{Event, LedgerEntry};
use crate::time::Timestamp;

/// Entries in one append to the ledger: so many that stores which write by partition get batches worth the name.
const FLUSH_ENTRIES_MAX: usize = 4_000;
/// Appends to the ledger at once.
const FLUSHES_MAX: usize = 4;
/// Ended notices whose entries wait for the ledger; beyond that the lane sends nothing new.
pub(super) const UNFLUSHED_MAX: usize = 20_000;

/// An ended notice whose entry is not durable yet; it is in flight.
pub(super) struct Finished {
    item: Box<Pending>,
    end: End,
}

/// How a notice ended. Its entry says no more than this and the notice do, and is five times as large: it is made when it is
/// written.
struct End {
    event: Event,
    time: Timestamp,
    /// Whether the lane had anything to do with it.
    is_through_lane: bool,
    gateway_id: Option<CompactString>,
    reason: Option<CompactString>,
}

impl End {
    fn entry(&self, item: &Pending, lane: &LaneName) -> LedgerEntry {
        let entry = LedgerEntry {
            gateway_id: self.gateway_id.clone(),
            reason: self.reason.clone(),
            ..LedgerEntry::of(&item.notice, self.event, self.time)
        };
        if self.is_through_lane { entry.through(lane, item.attempt) } else { entry }
    }
}

/// Writes the ends down; gives them back when the ledger has them.
async fn flush(context: Arc<LaneContext>, ended: Vec<Finished>) -> Vec<Finished> {
    let lane = &context.connector.profile().name;
    let entries = || ended.iter().map(|Finished { item, end }| end.entry(item, lane)).collect();
    retrying(&context.status, "ledger", || context.ledger.append(entries())).await;
    context.status.count_events(ended.iter().map(|ended| (ended.item.notice.channel, ended.end.event)));
    ended
}

impl Lane {
    /// The ledger has the ends of `ended`.
    pub(super) fn take_flushed(ended: &[Finished]) {
        for Finished { item, .. } in ended {
            item.settle();
            item.tenure.land();
        }
    }

    /// Ends whatever has outlived its use (N4); what is delayed comes back by its deadline and ends then. Not while the
    /// partitions may have other owners: what has expired here may have been delivered there.
    pub(super) fn end_expired(&mut self) {
        if !self.context.vitals.assignment_is_fresh() {
            return;
        }
        let now = self.context.clock.now();
        while let Some(item) = self.queue.pop_expired(now) {
            self.expire(item);
        }
        while let Some(item) = self.ready.pop_expired(now) {
            self.expire(item);
        }
    }

    /// An attempt in doubt may have reached the phone: that is *failed, unknown*, not *expired*.
    pub(super) fn expire(&mut self, item: Box<Pending>) {
        if item.in_doubt {
            self.end(item, Event::Failed, Some("unknown"));
        } else {
            self.end(item, Event::Expired, None);
        }
    }

    /// A notice has ended, or its claim is not what it was taken for: then the notice is ended once more, if it is still ours.
    pub(super) fn take_end(&mut self, ended: Result<Box<Pending>, Box<Pending>>) {
        match ended {
            Ok(item) => item.settle(),
            Err(item) if !item.tenure.has_ended() => self.delay(item, LEDGER_RETRY),
            Err(_) => {}
        }
    }

    /// Ends a notice: through its claim where it has one or may have one, else with the next flush.
    pub(super) fn end(&mut self, item: Box<Pending>, event: Event, reason: Option<&str>) {
        if item.tenure.has_ended() {
            self.release(item);
            return;
        }
        let end = End {
            event,
            time: self.context.clock.now(),
            is_through_lane: item.tries > 0 || item.claim.is_some(),
            gateway_id: None,
            reason: reason.map(CompactString::new),
        };
        // In doubt without a claim of its own: a receipt may be ending it just now.
        if item.claim.is_some() || (item.in_doubt && sending::needs_claim(item.notice.channel)) {
            let entry = end.entry(&item, &self.context.connector.profile().name);
            let context = Arc::clone(&self.context);
            self.ending.push(Box::pin(sending::end_claim(context, item, entry)));
            return;
        }
        item.tenure.take_off();
        self.finished.push_back(Finished { item, end });
    }

    /// Nothing more is sent. What is in doubt stays so: only the gateway knows.
    pub(super) fn end_suppressed(&mut self, item: Box<Pending>, reason: &str) {
        if item.in_doubt {
            self.end(item, Event::Failed, Some("unknown"));
        } else {
            self.end(item, Event::Suppressed, Some(reason));
        }
    }

    /// A free channel's gateway has the message of `item`, which stays in flight until the ledger says so too.
    pub(super) fn end_accepted(&mut self, item: Box<Pending>, gateway_id: CompactString) {
        let time = self.context.clock.now();
        let end = End {
            event: Event::Accepted,
            time,
            is_through_lane: true,
            gateway_id: Some(gateway_id),
            reason: None,
        };
        self.finished.push_back(Finished { item, end });
    }

    pub(super) fn start_flushes(&mut self) {
        while self.flushing.len() < FLUSHES_MAX && !self.finished.is_empty() {
            // What ends while one is under way waits for it, unless that is as much as an append may have.
            if !self.flushing.is_empty() && self.finished.len() < FLUSH_ENTRIES_MAX {
                return;
            }
            let ended: Vec<Finished> =
                self.finished.drain(..self.finished.len().min(FLUSH_ENTRIES_MAX)).collect();
            self.flushing.push(Box::pin(flush(Arc::clone(&self.context), ended)));
        }
    }
}
