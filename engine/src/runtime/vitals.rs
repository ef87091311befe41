//! Whether this process still knows what it must know before it sends anything.
//!
//! A process that slept, or that lost its registry feed, may hold bindings that were lifted, partitions that have another
//! owner, and a seat that another process sits on. So lanes send only while all three have been confirmed within
//! [`CONFIRMED_FOR`], and go on by themselves. A confirmation counts from when it was asked for: an answer may have lain
//! somewhere while the process slept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::ports::clock::Clock;
use crate::registry::CHANGE_LEAD;
use crate::time::Timestamp;

/// How long a confirmation counts, in real time.
pub const CONFIRMED_FOR: Duration = Duration::from_secs(5);

/// How often one that waits for a seat looks, in real time.
const SEAT_CHECK: Duration = Duration::from_millis(50);

const NEVER: u64 = u64::MAX;

/// When the registry feed, the partition assignment and the seat were last confirmed.
#[derive(Debug)]
pub(crate) struct Vitals {
    clock: Arc<dyn Clock>,
    registry_ms: AtomicU64,
    assignment_ms: AtomicU64,
    seat_ms: AtomicU64,
    /// How often a seat was taken anew.
    seatings: AtomicU64,
    /// Every registry change written before this instant (wall clock) is in the index.
    registry_read_until_ms: AtomicI64,
}

impl Vitals {
    /// Nothing is confirmed yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            registry_ms: AtomicU64::new(NEVER),
            assignment_ms: AtomicU64::new(NEVER),
            seat_ms: AtomicU64::new(NEVER),
            seatings: AtomicU64::new(0),
            registry_read_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The registry feed, asked at `asked_at` (monotonic clock; `asked_on` the wall), had nothing that the index lacks.
    pub(crate) fn registry_confirmed(&self, asked_at: Duration, asked_on: Timestamp) {
        confirm(&self.registry_ms, asked_at);
        self.registry_read_until_ms.fetch_max(asked_on.as_millis(), Ordering::SeqCst);
    }

    /// Whether the index has every change that counts for a tap received at `received`: changes count from
    /// [`CHANGE_LEAD`] after they are written on.
    pub(crate) fn registry_covers(&self, received: Timestamp) -> bool {
        let read_until = Timestamp::from_millis(self.registry_read_until_ms.load(Ordering::SeqCst));
        received < read_until.plus(CHANGE_LEAD.mul_f64(self.clock.speed()))
    }

    /// The assignment was ours when this was asked, by the monotonic clock.
    pub(crate) fn assignment_confirmed(&self, asked_at: Duration) {
        confirm(&self.assignment_ms, asked_at);
    }

    /// A seat was ours when this was asked, by the monotonic clock.
    pub(crate) fn seat_confirmed(&self, asked_at: Duration) {
        if !self.seat_is_fresh() {
            self.seatings.fetch_add(1, Ordering::SeqCst);
        }
        confirm(&self.seat_ms, asked_at);
    }

    /// Changes whenever a seat is taken anew, perhaps from somebody who has just spent what it allows.
    pub(crate) fn seatings(&self) -> u64 {
        self.seatings.load(Ordering::SeqCst)
    }

    /// There is no seat for this process.
    pub(crate) fn seat_lost(&self) {
        self.seat_ms.store(NEVER, Ordering::SeqCst);
    }

    fn is_fresh(&self, confirmed_ms: u64) -> bool {
        confirmed_ms != NEVER
            && self.now_ms().saturating_sub(confirmed_ms)
                < u64::try_from(CONFIRMED_FOR.as_millis()).unwrap_or(NEVER)
    }

    /// Whether the registry was confirmed lately.
    pub(crate) fn registry_is_fresh(&self) -> bool {
        self.is_fresh(self.registry_ms.load(Ordering::SeqCst))
    }

    /// Whether the assignment was confirmed lately.
    pub(crate) fn assignment_is_fresh(&self) -> bool {
        self.is_fresh(self.assignment_ms.load(Ordering::SeqCst))
    }

    /// Whether a seat was confirmed lately.
    pub(crate) fn seat_is_fresh(&self) -> bool {
        self.is_fresh(self.seat_ms.load(Ordering::SeqCst))
    }

    /// Whether this process never had a seat, or there was none for it when it last heard of them. A store that does not
    /// answer says neither.
    pub(crate) fn has_no_seat(&self) -> bool {
        self.seat_ms.load(Ordering::SeqCst) == NEVER
    }

    /// Waits until a seat is confirmed.
    pub(crate) async fn seated(&self) {
        while !self.seat_is_fresh() {
            tokio::time::sleep(SEAT_CHECK).await;
        }
    }

    /// Whether lanes may send.
    pub(crate) fn may_send(&self) -> bool {
        self.registry_is_fresh() && self.assignment_is_fresh() && self.seat_is_fresh()
    }
}

/// Moves `confirmed_ms` on to `asked_at`, never back.
fn confirm(confirmed_ms: &AtomicU64, asked_at: Duration) {
    let asked_ms = u64::try_from(asked_at.as_millis()).unwrap_or(NEVER - 1);
    let later = |known: u64| (known == NEVER || known < asked_ms).then_some(asked_ms);
    // An error says that a later confirmation is known already.
    let _known = confirmed_ms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::clock::ScaledClock;

    #[tokio::test(start_paused = true)]
    async fn a_confirmation_that_lay_in_a_queue_counts_from_when_it_was_asked_for() {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(Timestamp::from_millis(0), 1.0));
        let vitals = Vitals::new(Arc::clone(&clock));
        let asked_at = clock.monotonic();
        tokio::time::advance(CONFIRMED_FOR + Duration::from_secs(1)).await;
        vitals.assignment_confirmed(asked_at);
        assert!(!vitals.assignment_is_fresh(), "the process was asleep meanwhile");
        vitals.assignment_confirmed(clock.monotonic());
        vitals.assignment_confirmed(asked_at);
        assert!(vitals.assignment_is_fresh(), "an older answer takes nothing back");
    }

    #[tokio::test(start_paused = true)]
    async fn lanes_may_send_only_while_registry_assignment_and_seat_are_all_confirmed() {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(Timestamp::from_millis(0), 1.0));
        let vitals = Vitals::new(Arc::clone(&clock));
        vitals.registry_confirmed(clock.monotonic(), clock.now());
        vitals.assignment_confirmed(clock.monotonic());
        assert!(!vitals.may_send());
        vitals.seat_confirmed(clock.monotonic());
        assert!(vitals.may_send());
        vitals.seat_lost();
        assert!(!vitals.may_send());
    }

    #[tokio::test(start_paused = true)]
    async fn a_seat_that_was_not_confirmed_for_a_while_is_taken_anew() {
        let clock: Arc<dyn Clock> = Arc::new(ScaledClock::starting_at(Timestamp::from_millis(0), 1.0));
        let vitals = Vitals::new(Arc::clone(&clock));
        vitals.seat_confirmed(clock.monotonic());
        let first = vitals.seatings();
        tokio::time::advance(Duration::from_secs(1)).await;
        vitals.seat_confirmed(clock.monotonic());
        assert_eq!(vitals.seatings(), first, "renewed");
        vitals.seat_lost();
        vitals.seat_confirmed(clock.monotonic());
        assert_ne!(vitals.seatings(), first, "somebody else may have had it");
        let second = vitals.seatings();
        tokio::time::advance(CONFIRMED_FOR).await;
        vitals.seat_confirmed(clock.monotonic());
        assert_ne!(vitals.seatings(), second, "it may have lapsed");
    }
}
