//! A lane's rate: never more than the gateway allows in any window, and nothing saved up from before the start (L1).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// governor's clock: shows what it was told last, so that all that happens in one call happens at one instant.
#[derive(Clone, Default, Debug)]
struct ToldClock(Arc<AtomicU64>);

impl ToldClock {
    fn tell(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ToldClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::SeqCst))
    }
}

/// A token bucket over this process's share of one gateway's rate.
#[derive(Debug)]
pub struct Limiter {
    bucket: RateLimiter<NotKeyed, InMemoryState, ToldClock, NoOpMiddleware<Nanos>>,
    clock: ToldClock,
}

impl Limiter {
    /// One message each `interval` on the average, and `burst` at once after a pause. Starts empty at `now`, on the
    /// monotonic clock: whoever restarts must not grant a second burst within the same window.
    pub fn new(interval: Duration, burst: u32, now: Duration) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let clock = ToldClock::default();
        clock.tell(now);
        let quota = Quota::with_period(interval.max(Duration::from_nanos(1)))
            .expect("the interval is not zero")
            .allow_burst(burst);
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        // The whole burst fits by definition, so taking it cannot be refused.
        let _emptied = bucket.check_n(burst);
        Self { bucket, clock }
    }

    /// Takes up to `wanted` permits that are due at `now`, on the monotonic clock, at least one, or says how long until the
    /// next one is.
    pub fn take(&self, wanted: usize, now: Duration) -> Result<usize, Duration> {
        self.clock.tell(now);
        if let Err(denied) = self.bucket.check() {
            let wait: Duration = denied.earliest_possible().duration_since(self.clock.now()).into();
            return Err(wait.max(Duration::from_nanos(1)));
        }
        Ok(1 + (1..wanted).take_while(|_| self.bucket.check().is_ok()).count())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::invariants::predicates::{SentAccount, within_rate};
    use proptest::prelude::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_fresh_limiter_starts_empty() {
        let limiter = Limiter::new(ms(100), 5, ms(7));
        assert_eq!(limiter.take(5, ms(7)), Err(ms(100)));
        assert_eq!(limiter.take(5, ms(107)), Ok(1));
    }

    #[test]
    fn no_window_holds_more_than_rate_and_burst() {
        let limiter = Limiter::new(ms(10), 7, ms(0));
        let mut now = ms(0);
        let mut sent_at = Vec::new();
        for step in 0..4000u64 {
            // An uneven caller: sometimes busy, sometimes away for long.
            now += ms(if step % 97 == 0 { 350 } else { step % 3 });
            sent_at.extend(std::iter::repeat_n(now, limiter.take(3, now).unwrap_or(0)));
        }
        assert!(sent_at.len() > 500, "too few sent to mean anything: {}", sent_at.len());
        assert!(within_rate(sent_at, ms(10), 7));
    }

    #[test]
    fn the_wait_it_names_is_enough() {
        let limiter = Limiter::new(Duration::from_nanos(33_333_334), 1, ms(0));
        let mut now = ms(0);
        for _ in 0..50 {
            if let Err(wait) = limiter.take(1, now) {
                now += wait;
                assert_eq!(limiter.take(1, now), Ok(1));
            }
        }
    }

    proptest! {
        #[test]
        fn the_account_that_watches_it_allows_what_it_allows_and_no_more(
            steps in prop::collection::vec((0u64..90, 1u32..6), 1..60),
            interval_ms in 1u64..40,
            burst in 1u32..6,
        ) {
            let limiter = Limiter::new(ms(interval_ms), burst, ms(0));
            let mut account = SentAccount::new(ms(interval_ms), burst).spent_at(ms(0));
            let mut now = ms(0);
            for (away_ms, wanted) in steps {
                now += ms(away_ms);
                let permits = limiter.take(wanted as usize, now).unwrap_or(0);
                let permits = u32::try_from(permits).unwrap();
                prop_assert_eq!(permits, account.due_at(now).min(wanted));
                account.sent(permits, now);
            }
        }
    }
}
