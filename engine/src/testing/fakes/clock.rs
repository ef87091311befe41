//! Clocks of a simulated world: the monotonic one is tokio's, the wall clock may be set.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::locked;
use crate::ports::clock::Clock;
use crate::time::Timestamp;

/// How the wall clock stands to the monotonic one from some moment on.
#[derive(Clone, Copy, Debug)]
struct Setting {
    since: Duration,
    ahead_ms: i64,
}

/// A wall clock that somebody sets forward or back now and then; the monotonic one never notices.
#[derive(Debug)]
pub struct FakeClock {
    origin: Instant,
    start: Timestamp,
    settings: Mutex<Vec<Setting>>,
}

impl FakeClock {
    /// Shows `start` now.
    pub fn starting_at(start: Timestamp) -> Self {
        let right = Setting { since: Duration::ZERO, ahead_ms: 0 };
        Self { origin: Instant::now(), start, settings: Mutex::new(vec![right]) }
    }

    /// Sets the wall clock by so many milliseconds, back where negative.
    pub fn set_by_ms(&self, by_ms: i64) {
        let ahead_ms = self.ahead_ms().saturating_add(by_ms);
        locked(&self.settings).push(Setting { since: self.origin.elapsed(), ahead_ms });
    }

    fn ahead_ms(&self) -> i64 {
        locked(&self.settings).last().map_or(0, |setting| setting.ahead_ms)
    }

    /// When the wall clock showed `at`, on the monotonic clock: several times where it was set back.
    pub fn moments_of(&self, at: Timestamp) -> Vec<Duration> {
        let settings = locked(&self.settings).clone();
        let ends = settings.iter().skip(1).map(|next| next.since).chain([Duration::MAX]);
        let shown = settings.iter().zip(ends).filter_map(|(setting, end)| {
            let since_start_ms = at.as_millis().checked_sub(self.start.as_millis())?;
            let moment = Duration::from_millis(u64::try_from(since_start_ms - setting.ahead_ms).ok()?);
            // What is shown is cut to milliseconds.
            (moment + Duration::from_millis(1) >= setting.since && moment <= end).then_some(moment)
        });
        shown.collect()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let shown = self.start.plus(self.origin.elapsed());
        Timestamp::from_millis(shown.as_millis().saturating_add(self.ahead_ms()))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_shows_an_instant_twice() {
        let start = Timestamp::from_millis(0);
        let clock = FakeClock::starting_at(start);
        tokio::time::advance(Duration::from_secs(10)).await;
        clock.set_by_ms(-4000);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(16_000));
        let moments_s = |at_s: i64| -> Vec<u64> {
            clock.moments_of(Timestamp::from_millis(at_s * 1000)).iter().map(Duration::as_secs).collect()
        };
        assert_eq!(moments_s(5), [5]);
        assert_eq!(moments_s(8), [8, 12]);
        assert_eq!(moments_s(12), [16]);
    }
}
