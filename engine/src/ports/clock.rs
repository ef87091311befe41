//! Time, handed in.

use std::fmt::Debug;
use std::time::Duration;

use crate::time::Timestamp;

/// The two clocks of a process.
///
/// *Wall* time stamps taps and entries and is what deadlines are compared with; it may jump, and in a demo it runs faster
/// than the real one. *Monotonic* time never goes back and is real: limiters and time-outs are measured with it. Waiting
/// goes through tokio's timer, so that a simulation on a paused clock moves both.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Real time since some fixed moment of this process.
    fn monotonic(&self) -> Duration;

    /// How many times faster than real time the wall clock runs; 1 in production.
    fn speed(&self) -> f64 {
        1.0
    }

    /// How much real time will pass until the wall clock shows `at`; zero when it already does.
    fn real_time_until(&self, at: Timestamp) -> Duration {
        at.since(self.now()).div_f64(self.speed())
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Duration,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    pub fn new() -> Self {
        Self { origin: since_boot() }
    }
}

/// Real time since the machine was started. Also that in which it was suspended, which `std::time::Instant` leaves out:
/// what was confirmed before is no longer fresh after.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.origin)
    }
}

/// A wall clock that started at a chosen instant and runs a fixed number of times faster than real time, on tokio's
/// timer: for the demo, and on a paused runtime for simulations.
#[derive(Debug)]
pub struct ScaledClock {
    origin: tokio::time::Instant,
    start: Timestamp,
    speed: f64,
}

impl ScaledClock {
    /// Shows `start` now and runs `speed` times faster than real time.
    pub fn starting_at(start: Timestamp, speed: f64) -> Self {
        Self { origin: tokio::time::Instant::now(), start, speed }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.origin.elapsed().mul_f64(self.speed))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn speed(&self) -> f64 {
        self.speed
    }
}
