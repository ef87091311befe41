//! Drives the lanes: one task each, between the shards and a channel connector.
//!
//! A notice walks through a lane like this: (SMS) *queued* by priority and deadline → *claimed*, a little ahead of need →
//! *ready*, by priority and deadline again → looked at once more and *on the wire*, as the limiter and the window allow →
//! *recorded*, which settles it.
//! What an answer means is decided in [`crate::lane::attempt`]; the single steps against ports are in
//! [`sending`](super::sending). This file owns the order of things: who waits for what, and that every wait has an end. What a
//! lane does of each kind is beside it: [`claiming`], [`submitting`], [`ending`].

mod claiming;
mod ending;
mod submitting;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::ending::Unflushed;
use self::submitting::{Pause, empty_limiter};
use super::holdings::Endings;
use super::pending::{Delayed, INTAKE_MAX, Pending};
use super::sending::{self, Answered, ClaimStep, LaneContext};
use crate::index::RecipientRoom;
use crate::invariants::predicates::SentAccount;
use crate::lane::limiter::Limiter;
use crate::lane::queue::LaneQueue;

/// Wait before the ledger is asked again after an error, in real time.
const LEDGER_RETRY: Duration = Duration::from_millis(500);
/// How often a lane that holds looks whether it may go on.
const HOLD_CHECK: Duration = Duration::from_millis(100);

/// One lane's task. See the module.
pub(crate) struct Lane {
    context: Arc<LaneContext>,
    intake: mpsc::Receiver<Box<Pending>>,
    /// Says when tenures have ended.
    endings: Endings,
    limiter: Limiter,
    /// What left, by an account that the limiter does not keep (L1).
    sent: SentAccount,
    /// The taking of the seat that the limiter belongs to.
    seating: u64,
    queue: LaneQueue<Box<Pending>>,
    delayed: BinaryHeap<Reverse<Delayed>>,
    next_sequence: u64,
    claiming: FuturesUnordered<BoxFuture<'static, (Box<Pending>, ClaimStep)>>,
    ready: LaneQueue<Box<Pending>>,
    on_wire: FuturesUnordered<BoxFuture<'static, Vec<Answered>>>,
    messages_on_wire: usize,
    /// Answers for claimed messages that are being made durable.
    recording: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Ends that go through a claim.
    ending: FuturesUnordered<BoxFuture<'static, Result<Box<Pending>, Box<Pending>>>>,
    facts: Unflushed,
    decisions: Unflushed,
    looking_up: RecipientRoom,
    paused: Option<(Duration, Pause)>,
    down_streak: u32,
    stopping: bool,
}

impl Lane {
    pub(crate) fn new(
        context: Arc<LaneContext>,
        intake: mpsc::Receiver<Box<Pending>>,
        endings: Endings,
    ) -> Self {
        let now = context.clock.monotonic();
        let limiter = empty_limiter(&context, now);
        let seating = context.vitals.seatings();
        let profile = context.connector.profile();
        let sent = SentAccount::new(profile.message_interval(), profile.burst_share()).spent_at(now);
        Self {
            context,
            intake,
            endings,
            limiter,
            sent,
            seating,
            queue: LaneQueue::default(),
            delayed: BinaryHeap::new(),
            next_sequence: 0,
            claiming: FuturesUnordered::new(),
            ready: LaneQueue::default(),
            on_wire: FuturesUnordered::new(),
            messages_on_wire: 0,
            recording: FuturesUnordered::new(),
            ending: FuturesUnordered::new(),
            facts: Unflushed::default(),
            decisions: Unflushed::default(),
            looking_up: RecipientRoom::default(),
            paused: None,
            down_streak: 0,
            stopping: false,
        }
    }

    /// Sends until `stop`; then drops what is queued, and ends once what is on the wire has been answered and recorded.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut arrivals = Vec::new();
        loop {
            self.bring_back_delayed();
            self.end_expired();
            self.start_claims();
            let wait_for_permit = self.start_submits();
            self.start_flushes();
            self.show();
            if self.stopping && self.is_idle() {
                return;
            }
            let wake = self.next_wake(wait_for_permit);
            let room = self.room();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.stopping => self.stop(),
                Some(answers) = self.on_wire.next(), if !self.on_wire.is_empty() => self.take_answers(answers),
                Some((item, step)) = self.claiming.next(), if !self.claiming.is_empty() => self.take_claim(item, step),
                Some(recorded) = self.recording.next(), if !self.recording.is_empty() => self.go_on(recorded),
                Some(ended) = self.ending.next(), if !self.ending.is_empty() => self.take_end(ended),
                Some(flushed) = self.facts.under_way.next(), if !self.facts.under_way.is_empty() => Self::take_flushed(&flushed),
                Some(flushed) = self.decisions.under_way.next(), if !self.decisions.under_way.is_empty() => Self::take_flushed(&flushed),
                () = self.endings.next(), if !self.stopping => self.let_go(),
                arrived = self.intake.recv_many(&mut arrivals, room), if room > 0 && !self.stopping => {
                    if arrived == 0 {
                        self.stop();
                    }
                    arrivals.drain(..).for_each(|item| self.enqueue(item));
                }
                () = sleep(wake), if wake.is_some() => {}
            }
        }
    }

    fn waiting(&self) -> usize {
        self.queue.len() + self.delayed.len() + self.ready.len() + self.claiming.len()
    }

    /// How many more notices the lane takes in. What has ended takes up room until the ledger has it: else a lane whose
    /// ledger is lost would go on collecting what expires.
    fn room(&self) -> usize {
        let held = self.waiting() + self.ending.len() + self.unflushed();
        self.context.connector.profile().queue_max.saturating_sub(held).min(INTAKE_MAX)
    }

    fn is_idle(&self) -> bool {
        self.claiming.is_empty()
            && self.on_wire.is_empty()
            && self.recording.is_empty()
            && self.ending.is_empty()
            && self.facts.is_empty()
            && self.decisions.is_empty()
    }

    fn show(&self) {
        self.context.lane_status.set_depth(self.waiting(), self.messages_on_wire);
    }

    fn stop(&mut self) {
        self.stopping = true;
        let delayed = std::mem::take(&mut self.delayed);
        delayed.into_iter().for_each(|Reverse(waiting)| self.release(waiting.item));
        // What waits to be tried again may hold the claim of a request that never left.
        while let Some(item) = self.queue.pop().or_else(|| self.ready.pop()) {
            self.release(item);
        }
    }

    /// Drops what belongs to partitions that are no longer ours: its next owner has it from the log.
    fn let_go(&mut self) {
        let gone = |item: &Pending| item.tenure.has_ended();
        let (ended, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.delayed).into_iter().partition(|Reverse(delayed)| gone(&delayed.item));
        self.delayed = BinaryHeap::from(kept);
        let mut dropped: Vec<_> = ended.into_iter().map(|Reverse(delayed)| delayed.item).collect();
        dropped.extend(self.queue.extract(|item| gone(item)));
        dropped.extend(self.ready.extract(|item| gone(item)));
        dropped.into_iter().for_each(|item| self.release(item));
    }

    /// Gives a claim back that was certainly not used, so that its successor need not wait or doubt. Also after the tenure
    /// has ended: whoever has taken the claim over meanwhile has changed it, and keeps it.
    fn release(&mut self, item: Box<Pending>) {
        if item.claim.is_some() && !item.in_doubt {
            let context = Arc::clone(&self.context);
            // Not settled: the notice is still owed. The future only keeps the lane from ending too early.
            self.claiming.push(Box::pin(async move {
                sending::release(&context, &item).await;
                (item, ClaimStep::Dropped)
            }));
        }
    }

    fn delay(&mut self, item: Box<Pending>, wait: Duration) {
        if self.stopping || item.tenure.has_ended() {
            self.release(item);
            return;
        }
        let useful_for = self.context.clock.real_time_until(item.notice.deadline);
        let due = self.context.clock.monotonic() + wait.min(useful_for);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.delayed.push(Reverse(Delayed { due, sequence, item }));
    }

    /// What needs no claim is ready as it comes.
    fn enqueue(&mut self, item: Box<Pending>) {
        let queue = if sending::needs_claim(item.notice.channel) { &mut self.queue } else { &mut self.ready };
        queue.push(item.rank(), item);
    }

    fn bring_back_delayed(&mut self) {
        let now = self.context.clock.monotonic();
        while self.delayed.peek().is_some_and(|Reverse(first)| first.due <= now) {
            if let Some(Reverse(due)) = self.delayed.pop() {
                self.enqueue(due.item);
            }
        }
    }

    /// When the lane must look again by itself: a permit, a delayed item, a deadline, the end of a pause.
    fn next_wake(&self, wait_for_permit: Option<Duration>) -> Option<Duration> {
        let now = self.context.clock.monotonic();
        let mut wakes = Vec::with_capacity(5);
        wakes.extend(wait_for_permit);
        if let Some(Reverse(first)) = self.delayed.peek() {
            wakes.push(first.due.saturating_sub(now));
        }
        let has_work = !self.queue.is_empty() || !self.ready.is_empty();
        if has_work
            && !self.stopping
            && let Some((until, _)) = &self.paused
            && *until > now
        {
            wakes.push(*until - now);
        }
        // Also without work: an idle lane that may send again must say so.
        if !self.stopping && !self.context.vitals.may_send() {
            wakes.push(HOLD_CHECK);
        }
        let deadlines = [self.queue.first_deadline(), self.ready.first_deadline()];
        // While the assignment is not confirmed nothing is ended, and the lane looks again by HOLD_CHECK.
        if let Some(deadline) = deadlines.into_iter().flatten().min()
            && self.context.vitals.assignment_is_fresh()
        {
            wakes.push(self.context.clock.real_time_until(deadline) + Duration::from_millis(1));
        }
        wakes.into_iter().min()
    }
}

async fn sleep(wait: Option<Duration>) {
    if let Some(wait) = wait {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests;
