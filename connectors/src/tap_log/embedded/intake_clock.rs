//! Whether the clock can be believed when taps are stamped.
//!
//! The log's times of receipt never go back, so a clock that once ran ahead (wrong at boot, then set right)
//! would have every later tap stamped in the future until real time catches up: its notices would expire, or it
//! would count as stale, and nobody would be told. Such taps are refused instead, so that readers keep them and
//! readiness shows why. A small step back, as time synchronisation makes them, is no trouble: the last time of
//! receipt is used once more.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use gatebell_engine::time::Timestamp;
use rusqlite::Connection;

use super::rows;

/// How far the clock may be behind the last tap taken.
const BEHIND_MAX: Duration = Duration::from_secs(5 * 60);

/// The clock is too far behind the last tap taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock says {now}, {} s behind the last tap taken ({latest}): set the clock right; if it is right now and \
     ran ahead before, readers keep their taps until it has caught up",
    latest.since(*now).as_secs()
)]
pub(super) struct ClockBehind {
    now: Timestamp,
    latest: Timestamp,
}

/// What the writer thread knows of the last receipt, so that it need not ask every partition for each batch.
#[derive(Debug)]
pub(super) struct LatestReceipt {
    /// Not before the latest receipt in the log; [`Timestamp::MAX`] while it was not read yet.
    at_most_ms: AtomicI64,
    partitions: u32,
}

impl LatestReceipt {
    /// Of a log with so many `partitions`, nothing read yet.
    pub(super) fn new(partitions: u32) -> Self {
        Self { at_most_ms: AtomicI64::new(Timestamp::MAX.as_millis()), partitions }
    }

    /// Whether taps may be stamped `now`; if so, they count as received. For the writer thread, in a transaction.
    pub(super) fn advance(
        &self,
        connection: &Connection,
        now: Timestamp,
    ) -> rusqlite::Result<Result<(), ClockBehind>> {
        if is_behind(now, Timestamp::from_millis(self.at_most_ms.load(Ordering::Relaxed))) {
            // What is remembered may be of a batch that was never committed: only the log counts.
            let latest = rows::latest_receipt(connection, self.partitions)?.unwrap_or(Timestamp::MIN);
            self.at_most_ms.store(latest.as_millis(), Ordering::Relaxed);
            if is_behind(now, latest) {
                return Ok(Err(ClockBehind { now, latest }));
            }
        }
        self.at_most_ms.fetch_max(now.as_millis(), Ordering::Relaxed);
        Ok(Ok(()))
    }
}

fn is_behind(now: Timestamp, latest: Timestamp) -> bool {
    latest.since(now) > BEHIND_MAX
}
