//! How a lane puts on the wire what is ready, and what it does with the answers.
//!
//! Limiter, window and order are kept here (L1, L2), and whatever leaves is looked up once more (N3, N4).

use std::sync::Arc;
use std::time::Duration;

use super::super::last_look::Outgoing;
use super::super::pending::Pending;
use super::super::sending::{self, Answered, LaneContext};
use super::super::status::LaneState;
use super::Lane;
use super::ending::UNFLUSHED_MAX;
use crate::index::RecipientQuestion;
use crate::invariants::{Invariant, predicates};
use crate::lane::attempt::{LanePause, NextStep};
use crate::lane::limiter::Limiter;
use crate::ledger::Event;
use crate::notice::Notice;
use crate::shard::NoticeStart;
use crate::time::Timestamp;

/// Least wait of a lane that must not send what its limiter has let go, in real time.
const HELD_BACK_WAIT: Duration = Duration::from_millis(10);

/// Why the lane sends nothing for a while.
#[derive(Clone, Debug)]
pub(super) enum Pause {
    Throttled,
    Down { reason: String },
}

impl Lane {
    /// Whether anything may be sent now; shows the state.
    pub(super) fn may_send(&mut self) -> bool {
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
        self.unflushed() < UNFLUSHED_MAX
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
    ///
    /// What was answered and is being recorded no longer counts against the window, which is the gateway's; but with as much
    /// unrecorded as the window holds nothing more leaves, as a crash would leave all of it in doubt.
    pub(super) fn start_submits(&mut self) -> Option<Duration> {
        if self.stopping {
            return None;
        }
        self.begin_seating();
        let window = self.context.connector.profile().window_share();
        let batch_max = self.context.connector.profile().batch_max;
        while !self.ready.is_empty() && self.may_send() {
            // A gateway that was down gets one message at a time until it takes one.
            let (window, batch_max) = if self.down_streak > 0 { (1, 1) } else { (window, batch_max) };
            if self.on_wire.len() >= window || self.recording.len() >= window * batch_max {
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
    pub(super) fn hold_back(&mut self, batch: &mut Vec<Outgoing>, now: Duration) {
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
    pub(super) fn watch_order(&self, leaving: &Pending) {
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
            let taken = self.take_due(wanted - batch.len(), now);
            if taken.is_empty() {
                break;
            }
            let asked: Vec<RecipientQuestion> = taken.iter().map(|item| item.asks_for_recipient()).collect();
            let recipients = self.context.index.recipients(&asked, now, &mut self.looking_up);
            for (item, recipient) in taken.into_iter().zip(recipients) {
                match recipient {
                    Ok(recipient) => {
                        let message = sending::message(&self.context, &item, recipient, now);
                        batch.push(Outgoing { item, message, looked_up_on: now, looked_up_at });
                    }
                    Err(suppression) => self.end_suppressed(item, suppression.reason()),
                }
            }
        }
        batch
    }

    /// Takes at most `wanted` notices from what is ready and of use at `now`.
    #[expect(clippy::vec_box, reason = "they come in boxes, and to unbox them would move every one")]
    fn take_due(&mut self, wanted: usize, now: Timestamp) -> Vec<Box<Pending>> {
        let mut due = Vec::with_capacity(wanted);
        while due.len() < wanted {
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
            due.push(item);
        }
        due
    }

    /// The gateway has answered a request: the lane learns from it at once, and what is claimed is recorded.
    pub(super) fn take_answers(&mut self, answers: Vec<Answered>) {
        self.messages_on_wire = self.messages_on_wire.saturating_sub(answers.len());
        let (now, speed) = (self.context.clock.now(), self.context.clock.speed());
        let submitted = answers.iter().filter(|answered| matches!(answered.step, NextStep::Submitted { .. }));
        let took = submitted.map(|answered| now.since(answered.item.notice.received).div_f64(speed));
        self.context.status.answered(self.context.connector.profile().channel, took);
        for mut answered in answers {
            answered.item.tries += 1;
            self.learn(&answered.step);
            if answered.item.claim.is_some() {
                self.recording.push(Box::pin(sending::record(Arc::clone(&self.context), answered)));
            } else {
                self.go_on(answered);
            }
        }
    }

    /// What the answer for one message says of the gateway.
    fn learn(&mut self, step: &NextStep) {
        match step {
            NextStep::Submitted { .. } => {
                self.down_streak = 0;
                self.paused = None;
            }
            NextStep::Fail { .. } => self.down_streak = 0,
            NextStep::RetryAnew { lane, reason, .. } | NextStep::RetrySame { lane, reason, .. } => {
                self.pause(*lane, reason);
            }
            NextStep::InDoubt { .. } => {}
        }
    }

    /// An answer that has been recorded, or needs no claim: ends of such are written down together.
    pub(super) fn go_on(&mut self, answered: Answered) {
        let Answered { mut item, step } = answered;
        let is_recorded = item.claim.is_some();
        let tenure = Arc::clone(&item.tenure);
        match step {
            NextStep::Submitted { .. } | NextStep::Fail { .. } if is_recorded => item.settle(),
            // In flight until the ledger has it.
            NextStep::Submitted { gateway_id } => return self.end_accepted(item, gateway_id),
            NextStep::Fail { reason } => self.end(item, Event::Failed, Some(&reason)),
            NextStep::RetryAnew { delay, .. } => {
                item.attempt += 1;
                item.expected = item.claim.take().map(|claim| Box::new(claim.stamp()));
                item.in_doubt = false;
                self.delay(item, delay);
            }
            NextStep::RetrySame { delay, .. } => self.delay(item, delay),
            NextStep::InDoubt { delay, reason: _ } => {
                item.in_doubt = true;
                self.delay(item, delay);
            }
        }
        tenure.land();
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
}

/// With nothing saved up at `now`.
pub(super) fn empty_limiter(context: &LaneContext, now: Duration) -> Limiter {
    let profile = context.connector.profile();
    Limiter::new(profile.message_interval(), profile.burst_share(), now)
}
