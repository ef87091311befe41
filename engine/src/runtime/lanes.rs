//! Drives the lanes: one task each, between the shards and a channel connector.
//!
//! A notice walks through a lane like this: (SMS) *queued* by priority and deadline → *claimed*, a little ahead of need →
//! *ready*, by priority and deadline again → looked at once more and *on the wire*, as the limiter and the window allow →
//! *recorded*, which settles it.
//! What an answer means is decided in [`crate::lane::attempt`]; the single steps against ports are in
//! [`sending`](super::sending). This file owns the order of things: who waits for what, and that every wait has an end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::holdings::Endings;
use super::last_look::Outgoing;
use super::pending::{Delayed, INTAKE_MAX, Pending};
use super::sending::{self, Answered, ClaimStep, LaneContext};
use super::status::LaneState;
use crate::invariants::Invariant;
use crate::invariants::predicates::{self, SentAccount};
use crate::lane::attempt::{LanePause, NextStep};
use crate::lane::limiter::Limiter;
use crate::lane::queue::LaneQueue;
use crate::ledger::{Event, LedgerEntry};
use crate::notice::{Notice, Priority};
use crate::shard::NoticeStart;
use crate::time::Timestamp;

/// Entries in one append to the ledger: so many that stores which write by partition get batches worth the name.
const FLUSH_ENTRIES_MAX: usize = 4_000;
/// Appends to the ledger at once.
const FLUSHES_MAX: usize = 4;
/// Ended notices whose entries wait for the ledger; beyond that the lane sends nothing new.
const UNFLUSHED_MAX: usize = 20_000;
/// Wait before the ledger is asked again after an error, in real time.
const LEDGER_RETRY: Duration = Duration::from_millis(500);
/// Least wait of a lane that must not send what its limiter has let go, in real time.
const HELD_BACK_WAIT: Duration = Duration::from_millis(10);
/// How often a lane that holds looks whether it may go on.
const HOLD_CHECK: Duration = Duration::from_millis(100);
/// Claims ahead of need cover so much of the rate, so that the ledger's latency costs no throughput.
const CLAIM_AHEAD_MS: u64 = 500;

/// An ended notice whose entry is not durable yet.
struct Finished {
    entry: LedgerEntry,
    item: Box<Pending>,
}

impl Finished {
    /// In flight until it is durable: whoever owns the partition next must find the entry in the ledger.
    fn waiting(entry: LedgerEntry, item: Box<Pending>) -> Self {
        item.tenure.take_off();
        Self { entry, item }
    }
}

/// The ledger has the end of `item`.
fn recorded(item: &Pending) {
    item.settle();
    item.tenure.land();
}

/// Why the lane sends nothing for a while.
#[derive(Clone, Debug)]
enum Pause {
    Throttled,
    Down { reason: String },
}

/// One lane's task. See the module.
pub(crate) struct Lane {
    context: Arc<LaneContext>,
    intake: mpsc::Receiver<Pending>,
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
    recording: FuturesUnordered<BoxFuture<'static, Result<Box<Pending>, Box<Pending>>>>,
    finished: Vec<Finished>,
    #[expect(clippy::vec_box, reason = "they come in boxes, and to unbox them would move every one")]
    flushing: FuturesUnordered<BoxFuture<'static, Vec<Box<Pending>>>>,
    paused: Option<(Duration, Pause)>,
    down_streak: u32,
    stopping: bool,
}

impl Lane {
    pub(crate) fn new(context: Arc<LaneContext>, intake: mpsc::Receiver<Pending>, endings: Endings) -> Self {
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
            finished: Vec::new(),
            flushing: FuturesUnordered::new(),
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
                Some(ended) = self.recording.next(), if !self.recording.is_empty() => self.take_end(ended),
                Some(flushed) = self.flushing.next(), if !self.flushing.is_empty() => {
                    flushed.iter().for_each(|item| recorded(item));
                }
                () = self.endings.next(), if !self.stopping => self.let_go(),
                arrived = self.intake.recv_many(&mut arrivals, room), if room > 0 && !self.stopping => {
                    if arrived == 0 {
                        self.stop();
                    }
                    arrivals.drain(..).for_each(|item| self.enqueue(Box::new(item)));
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
        let held = self.waiting() + self.recording.len() + self.finished.len();
        self.context.connector.profile().queue_max.saturating_sub(held).min(INTAKE_MAX)
    }

    fn is_idle(&self) -> bool {
        self.claiming.is_empty()
            && self.on_wire.is_empty()
            && self.recording.is_empty()
            && self.finished.is_empty()
            && self.flushing.is_empty()
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

    /// Ends whatever has outlived its use (N4); what is delayed comes back by its deadline and ends then. Not while the
    /// partitions may have other owners: what has expired here may have been delivered there.
    fn end_expired(&mut self) {
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
    fn expire(&mut self, item: Box<Pending>) {
        if item.in_doubt {
            self.end(item, Event::Failed, Some("unknown"));
        } else {
            self.end(item, Event::Expired, None);
        }
    }

    /// A notice has ended, or its claim is somebody else's: then the notice is ended once more, if it is still ours.
    fn take_end(&mut self, ended: Result<Box<Pending>, Box<Pending>>) {
        match ended {
            Ok(item) => item.settle(),
            Err(mut item) if !item.tenure.has_ended() => {
                item.claim = None;
                item.expected = None;
                item.in_doubt = true;
                self.delay(item, LEDGER_RETRY);
            }
            Err(_) => {}
        }
    }

    /// Ends a notice: through its claim where it has one or may have one, else with the next flush.
    fn end(&mut self, item: Box<Pending>, event: Event, reason: Option<&str>) {
        if item.tenure.has_ended() {
            self.release(item);
            return;
        }
        let mut entry = LedgerEntry::of(&item.notice, event, self.context.clock.now());
        if let Some(reason) = reason {
            entry = entry.because(reason);
        }
        if item.tries > 0 || item.claim.is_some() {
            entry = entry.through(&self.context.connector.profile().name, item.attempt);
        }
        // In doubt without a claim of its own: a receipt may be ending it just now.
        if item.claim.is_some() || (item.in_doubt && sending::needs_claim(item.notice.channel)) {
            let context = Arc::clone(&self.context);
            self.recording.push(Box::pin(sending::end_claim(context, item, entry)));
            return;
        }
        self.finished.push(Finished::waiting(entry, item));
    }

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

    fn start_claims(&mut self) {
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

    /// Nothing more is sent. What is in doubt stays so: only the gateway knows.
    fn end_suppressed(&mut self, item: Box<Pending>, reason: &str) {
        if item.in_doubt {
            self.end(item, Event::Failed, Some("unknown"));
        } else {
            self.end(item, Event::Suppressed, Some(reason));
        }
    }

    fn take_claim(&mut self, item: Box<Pending>, step: ClaimStep) {
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

    /// Whether anything may be sent now; shows the state.
    fn may_send(&mut self) -> bool {
        if !self.context.vitals.may_send() {
            self.context.lane_status.set_state(LaneState::Holding);
            return false;
        }
        if let Some((until, pause)) = &self.paused {
            if self.context.clock.monotonic() < *until {
                self.context.lane_status.set_state(match pause {
                    Pause::Throttled => LaneState::Throttled,
                    Pause::Down { reason } => LaneState::Down { reason: reason.clone() },
                });
                return false;
            }
            if matches!(pause, Pause::Throttled) {
                self.paused = None;
            }
        }
        if self.down_streak == 0 {
            self.context.lane_status.set_state(LaneState::Sending);
        }
        self.finished.len() < UNFLUSHED_MAX
    }

    /// With a seat taken anew nothing is saved up (L1): whoever sat there before may just have sent a burst.
    fn begin_seating(&mut self) {
        let seating = self.context.vitals.seatings();
        if seating != self.seating {
            self.seating = seating;
            let now = self.context.clock.monotonic();
            self.limiter = empty_limiter(&self.context, now);
            self.sent = self.sent.spent_at(now);
        }
    }

    /// Puts on the wire what limiter and window allow. Returns how long until the next permit, where one is lacking.
    fn start_submits(&mut self) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        self.begin_seating();
        let window = self.context.connector.profile().window_share();
        let batch_max = self.context.connector.profile().batch_max;
        while !self.ready.is_empty() && self.may_send() {
            // A gateway that was down gets one message at a time until it takes one.
            let (window, batch_max) = if self.down_streak > 0 { (1, 1) } else { (window, batch_max) };
            if self.on_wire.len() >= window {
                return None;
            }
            let now = self.context.clock.monotonic();
            let permits = match self.limiter.take(self.ready.len().min(batch_max), now) {
                Ok(permits) => permits,
                Err(wait) => return Some(wait),
            };
            let mut batch = self.take_batch(permits);
            if batch.is_empty() {
                continue;
            }
            self.hold_back(&mut batch, now);
            if batch.is_empty() {
                return Some(self.sent.due_in(now).max(HELD_BACK_WAIT));
            }
            self.sent.sent(u32::try_from(batch.len()).unwrap_or(u32::MAX), now);
            self.context.lane_status.permits_taken(batch.len());
            self.messages_on_wire += batch.len();
            batch.iter().for_each(|outgoing| outgoing.item.tenure.take_off());
            self.on_wire.push(Box::pin(sending::submit(Arc::clone(&self.context), batch, self.down_streak)));
        }
        None
    }

    /// Puts back what limiter and window should not have let go: a defect, and the gateway must not feel it (L1).
    fn hold_back(&mut self, batch: &mut Vec<Outgoing>, now: Duration) {
        let Some(first) = batch.first() else { return };
        let profile = self.context.connector.profile();
        let fits = predicates::within_window(self.on_wire.len() + 1, profile.window_share());
        let due = if fits { usize::try_from(self.sent.due_at(now)).unwrap_or(usize::MAX) } else { 0 };
        let position = first.item.notice.position;
        let watch = self.context.status.watch();
        watch.check_lane(Invariant::L1, batch.len() <= due, &profile.name, position);
        for outgoing in batch.drain(due.min(batch.len())..) {
            self.ready.push(outgoing.item.rank(), outgoing.item);
        }
    }

    /// What leaves is the most urgent of what is ready (L2).
    fn watch_order(&self, leaving: &Pending) {
        let is_first = predicates::most_urgent_first(leaving.rank(), self.ready.peek());
        let lane = &self.context.connector.profile().name;
        self.context.status.watch().check_lane(Invariant::L2, is_first, lane, leaving.notice.position);
    }

    /// Whether a repeated reference might be taken for a new message: the gateway recognises references for so long only.
    /// (One that never does is asked to send again all the same, and the message is billed once.)
    fn gateway_has_forgotten(&self, notice: &Notice, now: Timestamp) -> bool {
        let recognised_for = self.context.connector.profile().deduplicates_for;
        recognised_for.is_some_and(|recognised_for| notice.received.plus(recognised_for) <= now)
    }

    /// Takes at most `wanted` messages from what is ready, looking each up once more (N3, N4).
    fn take_batch(&mut self, wanted: usize) -> Vec<Outgoing> {
        let mut batch = Vec::with_capacity(wanted);
        let (now, looked_up_at) = (self.context.clock.now(), self.context.clock.monotonic());
        while batch.len() < wanted {
            let Some(item) = self.ready.pop() else { break };
            if item.tenure.has_ended() {
                self.release(item);
                continue;
            }
            self.watch_order(&item);
            if item.start == NoticeStart::Expired || item.notice.deadline <= now {
                self.expire(item);
                continue;
            }
            if item.in_doubt && self.gateway_has_forgotten(&item.notice, now) {
                self.end(item, Event::Failed, Some("unknown"));
                continue;
            }
            match self.context.index.recipient(&item.notice, now) {
                Ok(recipient) => {
                    let message = sending::message(&self.context, &item, recipient);
                    batch.push(Outgoing { item, message, looked_up_on: now, looked_up_at });
                }
                Err(suppression) => self.end_suppressed(item, suppression.reason()),
            }
        }
        batch
    }

    fn take_answers(&mut self, answers: Vec<Answered>) {
        self.messages_on_wire = self.messages_on_wire.saturating_sub(answers.len());
        for answered in answers {
            let tenure = Arc::clone(&answered.item.tenure);
            self.take_answer(answered);
            tenure.land();
        }
    }

    fn take_answer(&mut self, answered: Answered) {
        let Answered { mut item, step, ledger_has_it } = answered;
        item.tries += 1;
        match step {
            NextStep::Submitted { gateway_id } => {
                self.down_streak = 0;
                self.paused = None;
                let took = self.context.clock.monotonic().saturating_sub(item.read_at);
                self.context.status.answered(item.notice.channel, took);
                if ledger_has_it {
                    item.settle();
                    return;
                }
                let entry = LedgerEntry::of(&item.notice, Event::Accepted, self.context.clock.now())
                    .through(&self.context.connector.profile().name, item.attempt)
                    .known_as(&gateway_id);
                self.finished.push(Finished::waiting(entry, item));
            }
            NextStep::Fail { .. } if ledger_has_it => {
                self.down_streak = 0;
                item.settle();
            }
            NextStep::Fail { reason } => {
                self.down_streak = 0;
                self.end(item, Event::Failed, Some(&reason));
            }
            NextStep::RetryAnew { delay, lane, reason } => {
                self.pause(lane, &reason);
                item.attempt += 1;
                item.expected = item.claim.take().map(|claim| claim.stamp());
                item.in_doubt = false;
                self.delay(item, delay);
            }
            NextStep::RetrySame { delay, lane, reason } => {
                self.pause(lane, &reason);
                self.delay(item, delay);
            }
            NextStep::InDoubt { delay, reason: _ } => {
                item.in_doubt = true;
                self.delay(item, delay);
            }
        }
    }

    fn pause(&mut self, pause: LanePause, reason: &str) {
        let now = self.context.clock.monotonic();
        let (wait, pause) = match pause {
            LanePause::None => return,
            LanePause::Throttled(wait) => (wait, Pause::Throttled),
            // Further answers of the same outage say nothing new.
            LanePause::Down(_) if self.is_down(now) => return,
            LanePause::Down(wait) => {
                self.down_streak = self.down_streak.saturating_add(1);
                (wait, Pause::Down { reason: reason.to_owned() })
            }
        };
        self.paused = Some((now + wait, pause));
    }

    fn is_down(&self, now: Duration) -> bool {
        matches!(&self.paused, Some((until, Pause::Down { .. })) if *until > now)
    }

    fn start_flushes(&mut self) {
        while self.flushing.len() < FLUSHES_MAX && !self.finished.is_empty() {
            // What ends while one is under way waits for it, unless that is as much as an append may have.
            if !self.flushing.is_empty() && self.finished.len() < FLUSH_ENTRIES_MAX {
                return;
            }
            let ended = self.finished.drain(..self.finished.len().min(FLUSH_ENTRIES_MAX));
            let (entries, items): (Vec<LedgerEntry>, Vec<_>) =
                ended.map(|Finished { entry, item }| (entry, item)).unzip();
            let context = Arc::clone(&self.context);
            self.flushing.push(Box::pin(async move {
                sending::append(&context, &entries).await;
                items
            }));
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

fn empty_limiter(context: &LaneContext, now: Duration) -> Limiter {
    let profile = context.connector.profile();
    Limiter::new(profile.message_interval(), profile.burst_share(), now)
}

async fn sleep(wait: Option<Duration>) {
    if let Some(wait) = wait {
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests;
