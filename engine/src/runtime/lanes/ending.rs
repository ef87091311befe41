//! How a lane ends notices: through their claims, or with the next append to the ledger.
//!
//! What needs no claim ends in the lane's memory first, and counts as in flight until the ledger has it: whoever owns the
//! partition next must find the entry there. Only then is the notice settled.
//!
//! That a gateway has accepted a message is a fact, and is written however long it takes. Every other end is decided here and
//! counts only while the partition is ours: once another process owns it, that one decides, and may have sent what was given
//! up here.

use std::collections::VecDeque;
use std::sync::Arc;

use compact_str::CompactString;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::super::pending::Pending;
use super::super::sending::{self, LaneContext};
use super::super::{PORT_RETRY, retrying};
use super::{HOLD_CHECK, LEDGER_RETRY, Lane};
use crate::ids::LaneName;
use crate::ledger::{Event, LedgerEntry};
use crate::time::Timestamp;

/// Entries in one append to the ledger: so many that stores which write by partition get batches worth the name.
const FLUSH_ENTRIES_MAX: usize = 4_000;
/// Appends to the ledger at once, of each kind of end.
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

impl Finished {
    fn is_fact(&self) -> bool {
        self.end.event == Event::Accepted
    }
}

/// What has ended and is not written down yet, of one kind.
#[derive(Default)]
pub(super) struct Unflushed {
    waiting: VecDeque<Finished>,
    pub(super) under_way: FuturesUnordered<BoxFuture<'static, Flushed>>,
}

impl Unflushed {
    /// How many wait for an append to begin.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// Begins to write down what waits, by `write`.
    fn start<F>(&mut self, write: impl Fn(Vec<Finished>) -> F)
    where
        F: Future<Output = Flushed> + Send + 'static,
    {
        while self.under_way.len() < FLUSHES_MAX && !self.waiting.is_empty() {
            // What ends while one is under way waits for it, unless that is as much as an append may have.
            if !self.under_way.is_empty() && self.waiting.len() < FLUSH_ENTRIES_MAX {
                return;
            }
            let ended: Vec<Finished> =
                self.waiting.drain(..self.waiting.len().min(FLUSH_ENTRIES_MAX)).collect();
            self.under_way.push(Box::pin(write(ended)));
        }
    }
}

/// Ends after an append.
#[derive(Default)]
pub(super) struct Flushed {
    /// The ledger has them.
    written: Vec<Finished>,
    /// Their partitions went meanwhile; they are their next owner's to end.
    lapsed: Vec<Finished>,
}

fn entries(context: &LaneContext, ended: &[Finished]) -> Vec<LedgerEntry> {
    let lane = &context.connector.profile().name;
    ended.iter().map(|Finished { item, end }| end.entry(item, lane)).collect()
}

fn count(context: &LaneContext, written: &[Finished]) {
    context.status.count_events(written.iter().map(|ended| (ended.item.notice.channel, ended.end.event)));
}

/// Writes facts down.
async fn flush_facts(context: Arc<LaneContext>, facts: Vec<Finished>) -> Flushed {
    retrying(&context.status, "ledger", || context.ledger.append(entries(&context, &facts))).await;
    count(&context, &facts);
    Flushed { written: facts, lapsed: Vec::new() }
}

/// Writes down what was decided here, as far and as long as it is ours to decide. Asked before every try: the ledger may be
/// away for long, and the process may have slept.
async fn flush_decisions(context: Arc<LaneContext>, mut decided: Vec<Finished>) -> Flushed {
    let mut lapsed = Vec::new();
    loop {
        lapsed.extend(decided.extract_if(.., |decided| decided.item.tenure.has_ended()));
        if decided.is_empty() {
            return Flushed { written: Vec::new(), lapsed };
        }
        if !context.vitals.assignment_is_fresh() {
            tokio::time::sleep(HOLD_CHECK).await;
            continue;
        }
        match context.ledger.append(entries(&context, &decided)).await {
            Ok(()) => {
                context.status.recovered("ledger");
                count(&context, &decided);
                return Flushed { written: decided, lapsed };
            }
            Err(cause) => {
                context.status.trouble("ledger", &cause);
                tokio::time::sleep(PORT_RETRY).await;
            }
        }
    }
}

impl Lane {
    /// An append is over.
    pub(super) fn take_flushed(flushed: &Flushed) {
        for Finished { item, .. } in &flushed.written {
            item.settle();
            item.tenure.land();
        }
        flushed.lapsed.iter().for_each(|Finished { item, .. }| item.tenure.land());
    }

    fn finish(&mut self, item: Box<Pending>, end: End) {
        let finished = Finished { item, end };
        let kind = if finished.is_fact() { &mut self.facts } else { &mut self.decisions };
        kind.waiting.push_back(finished);
    }

    /// How many ends wait for an append to begin.
    pub(super) fn unflushed(&self) -> usize {
        self.facts.waiting() + self.decisions.waiting()
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
        self.finish(item, end);
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
        self.finish(item, end);
    }

    pub(super) fn start_flushes(&mut self) {
        self.facts.start(|facts| flush_facts(Arc::clone(&self.context), facts));
        self.decisions.start(|decided| flush_decisions(Arc::clone(&self.context), decided));
    }
}
