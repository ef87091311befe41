//! How fast messages come.
//!
//! Owns: the measure of the agreed rate, as a token bucket of `burst` and of what arrives within the jitter allowed.
//! What does not fit is an *overrun*, whether or not it is throttled.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Limits;

/// The measure of one gateway.
#[derive(Debug)]
pub(crate) struct RateMeter {
    rate_per_s: f64,
    capacity: f64,
    tokens: f64,
    measured: Instant,
    last_second: VecDeque<(Instant, usize)>,
    in_last_second: usize,
    peak_per_s: usize,
}

impl RateMeter {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        let rate_per_s = f64::from(limits.rate_per_s);
        let capacity = f64::from(limits.burst) + rate_per_s * f64::from(limits.jitter_ms) / 1000.0;
        Self {
            rate_per_s,
            capacity,
            tokens: capacity,
            measured: now,
            last_second: VecDeque::new(),
            in_last_second: 0,
            peak_per_s: 0,
        }
    }

    /// `messages` come at `now`: how many of them are too many. With `takes_overruns` they count all the same; else none
    /// of them is taken when one is too many.
    pub(crate) fn count(&mut self, messages: usize, now: Instant, takes_overruns: bool) -> usize {
        let elapsed = now.saturating_duration_since(self.measured).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate_per_s).min(self.capacity);
        self.measured = self.measured.max(now);
        // A hundredth of a message is rounding, not haste.
        let fitting = (self.tokens + 0.01).max(0.0) as usize;
        let overrun = messages.saturating_sub(fitting);
        if overrun > 0 && !takes_overruns {
            return overrun;
        }
        // What was too many uses up nothing: each message beyond the rate counts once.
        self.tokens = (self.tokens - (messages - overrun) as f64).max(0.0);
        self.last_second.push_back((now, messages));
        self.in_last_second += messages;
        while let Some((at, count)) = self.last_second.front().copied() {
            if now.saturating_duration_since(at) < Duration::from_secs(1) {
                break;
            }
            self.last_second.pop_front();
            self.in_last_second -= count;
        }
        self.peak_per_s = self.peak_per_s.max(self.in_last_second);
        overrun
    }

    /// Most messages within one second so far.
    pub(crate) fn peak_per_s(&self) -> usize {
        self.peak_per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_flow_at_the_rate_is_never_an_overrun_and_a_faster_one_is() {
        let limits = Limits { rate_per_s: 100, burst: 1, jitter_ms: 0, ..Limits::default() };
        let start = Instant::now();
        let overruns_at = |gap_ms: u64| {
            let mut meter = RateMeter::new(&limits, start);
            (0..1000u32)
                .map(|n| meter.count(1, start + Duration::from_millis(gap_ms) * n, true))
                .sum::<usize>()
        };
        assert_eq!(overruns_at(10), 0);
        assert_eq!(overruns_at(20), 0);
        assert!((400..=510).contains(&overruns_at(5)), "{}", overruns_at(5));
    }

    #[test]
    fn what_is_throttled_uses_nothing_up() {
        let limits = Limits { rate_per_s: 10, burst: 10, jitter_ms: 0, ..Limits::default() };
        let start = Instant::now();
        let mut meter = RateMeter::new(&limits, start);
        assert_eq!(meter.count(11, start, false), 1);
        assert_eq!(meter.count(10, start, false), 0);
        assert_eq!(meter.count(1, start, false), 1);
        assert_eq!(meter.count(1, start + Duration::from_millis(100), false), 0);
        assert_eq!(meter.peak_per_s(), 11);
    }
}
