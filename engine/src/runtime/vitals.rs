//! Whether this process still knows what it must know before it sends anything.
//!
//! A process that slept, or that lost its registry feed, may hold bindings that were lifted and partitions that have
//! another owner. So lanes send only while both have been confirmed within [`CONFIRMED_FOR`], and go on by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::ports::clock::Clock;
use crate::registry::CHANGE_LEAD;
use crate::time::Timestamp;

/// How long a confirmation counts, in real time.
pub const CONFIRMED_FOR: Duration = Duration::from_secs(5);

const NEVER: u64 = u64::MAX;

/// When the registry feed and the partition assignment were last confirmed.
#[derive(Debug)]
pub(crate) struct Vitals {
    clock: Arc<dyn Clock>,
    registry_ms: AtomicU64,
    assignment_ms: AtomicU64,
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
            registry_read_until_ms: AtomicI64::new(i64::MIN),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(NEVER - 1)
    }

    /// The registry feed, asked at `asked_at` (wall clock), had nothing that the index lacks.
    pub(crate) fn registry_confirmed(&self, asked_at: Timestamp) {
        self.registry_ms.store(self.now_ms(), Ordering::SeqCst);
        self.registry_read_until_ms.fetch_max(asked_at.as_millis(), Ordering::SeqCst);
    }

    /// Whether the index has every change that counts for a tap received at `received`: changes count from
    /// [`CHANGE_LEAD`] after they are written on.
    pub(crate) fn registry_covers(&self, received: Timestamp) -> bool {
        let read_until = Timestamp::from_millis(self.registry_read_until_ms.load(Ordering::SeqCst));
        received < read_until.plus(CHANGE_LEAD.mul_f64(self.clock.speed()))
    }

    /// The assignment was ours just now.
    pub(crate) fn assignment_confirmed(&self) {
        self.assignment_ms.store(self.now_ms(), Ordering::SeqCst);
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

    /// Whether lanes may send.
    pub(crate) fn may_send(&self) -> bool {
        self.registry_is_fresh() && self.assignment_is_fresh()
    }
}
