//! A lane's rate: never more than the gateway allows in any window, and nothing saved up from before the start (L1).

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::ports::clock::Clock;

/// governor's view of the monotonic clock that was handed in.
#[derive(Clone, Debug)]
struct MonotonicClock(Arc<dyn Clock>);

impl GovernorClock for MonotonicClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.monotonic())
    }
}

/// A token bucket over this process's share of one gateway's rate.
#[derive(Debug)]
pub struct Limiter {
    bucket: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Nanos>>,
    clock: MonotonicClock,
}

impl Limiter {
    /// One message each `interval` on the average, and `burst` at once after a pause. Starts empty: whoever restarts must
    /// not grant a second burst within the same window.
    pub fn new(interval: Duration, burst: u32, clock: Arc<dyn Clock>) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let clock = MonotonicClock(clock);
        let quota = Quota::with_period(interval.max(Duration::from_nanos(1)))
            .expect("the interval is not zero")
            .allow_burst(burst);
        let bucket = RateLimiter::direct_with_clock(quota, clock.clone());
        // The whole burst fits by definition, so taking it cannot be refused.
        let _emptied = bucket.check_n(burst);
        Self { bucket, clock }
    }

    /// Takes up to `wanted` permits that are due now, at least one, or says how long until the next one is.
    pub fn take(&self, wanted: usize) -> Result<usize, Duration> {
        if let Err(denied) = self.bucket.check() {
            let wait: Duration = denied.earliest_possible().duration_since(self.clock.now()).into();
            return Err(wait.max(Duration::from_nanos(1)));
        }
        Ok(1 + (1..wanted).take_while(|_| self.bucket.check().is_ok()).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::clock::ScaledClock;
    use crate::time::Timestamp;

    fn clock() -> Arc<dyn Clock> {
        Arc::new(ScaledClock::starting_at(Timestamp::from_millis(0), 1.0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_limiter_starts_empty() {
        let limiter = Limiter::new(Duration::from_millis(100), 5, clock());
        assert!(limiter.take(5).is_err());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(limiter.take(5), Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_than_rate_and_burst() {
        let limiter = Limiter::new(Duration::from_millis(10), 7, clock());
        let mut sent_at_ms = Vec::new();
        for step in 0..4000u64 {
            // An uneven caller: sometimes busy, sometimes away for long.
            let away = if step % 97 == 0 { 350 } else { step % 3 };
            tokio::time::advance(Duration::from_millis(away)).await;
            let now_ms = limiter.clock.0.monotonic().as_millis();
            sent_at_ms.extend(std::iter::repeat_n(now_ms, limiter.take(3).unwrap_or(0)));
        }
        assert!(sent_at_ms.len() > 500, "too few sent to mean anything: {}", sent_at_ms.len());
        for (first, start_ms) in sent_at_ms.iter().enumerate() {
            for (last, end_ms) in sent_at_ms.iter().enumerate().skip(first) {
                let allowed = 7 + (end_ms - start_ms) / 10;
                assert!(
                    (last - first + 1) as u128 <= allowed,
                    "{} in {} ms",
                    last - first + 1,
                    end_ms - start_ms
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_it_names_is_enough() {
        let limiter = Limiter::new(Duration::from_nanos(33_333_334), 1, clock());
        for _ in 0..50 {
            if let Err(wait) = limiter.take(1) {
                tokio::time::advance(wait).await;
                assert_eq!(limiter.take(1), Ok(1));
            }
        }
    }
}
