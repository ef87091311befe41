//! The last look at a message: what must hold as it leaves, whatever its lane has decided before (N2, N3, N4).
//!
//! What is found here is a defect, or a process that was put to sleep between the lane's decision and the request. Either
//! way the message does not leave: it goes back to its lane, which decides anew, and at its deadline it ends.

use std::time::Duration;

use super::pending::Pending;
use super::sending::{LaneContext, needs_claim};
use super::vitals::CONFIRMED_FOR;
use crate::invariants::{Invariant, predicates};
use crate::ports::channel::Message;
use crate::ports::clock::Clock;
use crate::time::Timestamp;

/// A message on its way to the wire.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) item: Box<Pending>,
    pub(crate) message: Message,
    /// When binding and protection were looked up, and the message was made, on the wall clock.
    pub(crate) looked_up_on: Timestamp,
    /// The same on the monotonic clock.
    pub(crate) looked_up_at: Duration,
}

/// When a batch leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    /// On the wall clock.
    on: Timestamp,
    /// On the monotonic clock.
    at: Duration,
}

impl Leaving {
    /// Now.
    pub(crate) fn now(clock: &dyn Clock) -> Self {
        Self { on: clock.now(), at: clock.monotonic() }
    }
}

/// Whether `outgoing` may leave with a batch that does so at `leaving`. What does not hold is counted.
pub(crate) fn may_leave(context: &LaneContext, outgoing: &Outgoing, leaving: Leaving) -> bool {
    let Outgoing { item, message, looked_up_on, looked_up_at } = outgoing;
    let notice = &item.notice;
    let owner = item.tenure.owner();
    let is_claimed = !needs_claim(notice.channel)
        || predicates::leaves_under_its_claim(item.claim.as_deref(), notice.id, owner, &message.reference);
    let is_known = predicates::is_known(*looked_up_at, leaving.at, CONFIRMED_FOR);
    let is_ordered = predicates::is_ordered(notice.channel, notice.kind, notice.order.is_some());
    let valid_for = message.valid_for.mul_f64(context.clock.speed());
    let is_in_time = predicates::sent_in_time(leaving.on, Duration::ZERO, notice.deadline)
        && predicates::sent_in_time(*looked_up_on, valid_for, notice.deadline);

    let lane = &context.connector.profile().name;
    let watch = context.status.watch();
    // Each is asked, also where another one does not hold.
    [(Invariant::N2, is_claimed), (Invariant::N3, is_ordered && is_known), (Invariant::N4, is_in_time)]
        .into_iter()
        .fold(true, |may_leave, (invariant, holds)| {
            watch.check_lane(invariant, holds, lane, notice.position) && may_leave
        })
}

#[cfg(test)]
mod tests;
