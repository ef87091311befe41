//! The writing side of the embedded log: a bounded queue before the writer thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake, partition_of};

use super::intake_clock::LatestReceipt;
use super::{PORT, Shared, TapLogSettings, rows};
use crate::sqlite::Refused;

/// Takes taps into the log. Cheap to clone; clones share the queue.
#[derive(Clone, Debug)]
pub struct EmbeddedTapIntake {
    pub(super) shared: Arc<Shared>,
    waiting: Arc<Waiting>,
    clock: Arc<dyn Clock>,
    latest: Arc<LatestReceipt>,
}

impl EmbeddedTapIntake {
    pub(super) fn new(shared: Arc<Shared>, settings: &TapLogSettings, clock: Arc<dyn Clock>) -> Self {
        let waiting = Waiting {
            taps: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            taps_max: settings.queue_taps_max,
            bytes_max: settings.queue_bytes_max,
        };
        let latest = Arc::new(LatestReceipt::new(shared.identity.partitions));
        Self { shared, waiting: Arc::new(waiting), clock, latest }
    }
}

#[async_trait]
impl TapIntake for EmbeddedTapIntake {
    fn waiting_taps(&self) -> usize {
        self.waiting.taps.load(Ordering::Relaxed)
    }

    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        if taps.is_empty() {
            return Ok(());
        }
        let room = Waiting::reserve(&self.waiting, &taps).ok_or(IntakeError::Full)?;
        let (clock, latest) = (Arc::clone(&self.clock), Arc::clone(&self.latest));
        let partitions = self.shared.identity.partitions;
        let mut placed: Vec<_> =
            taps.into_iter().map(|tap| (partition_of(&tap.card, partitions), tap.value)).collect();
        placed.sort_by_key(|(partition, _)| *partition);
        let queued = self.shared.writer.try_write(move |connection| {
            let _room = room;
            let now = clock.now();
            match latest.advance(connection, now)? {
                Ok(()) => rows::append(connection, &placed, now).map(Ok),
                Err(behind) => Ok(Err(behind)),
            }
        });
        match queued {
            Ok(answer) => answer.wait().await?.map_err(|behind| PortError::new(PORT, behind).into()),
            Err(Refused::Full) => Err(IntakeError::Full),
            Err(Refused::Stopped) => Err(PortError::new(PORT, "the log is closed").into()),
        }
    }
}

/// What waits for the disk.
#[derive(Debug)]
struct Waiting {
    taps: AtomicUsize,
    bytes: AtomicUsize,
    taps_max: usize,
    bytes_max: usize,
}

impl Waiting {
    /// Room for `taps`, given back when dropped; `None` when there is not enough. A batch larger than the whole queue is
    /// taken when nothing else waits, or it could never be written.
    fn reserve(waiting: &Arc<Self>, taps: &[IncomingTap]) -> Option<Room> {
        let bytes = taps.iter().map(|tap| tap.value.len()).sum();
        let taps_before = waiting.taps.fetch_add(taps.len(), Ordering::Relaxed);
        let bytes_before = waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = Room { waiting: Arc::clone(waiting), taps: taps.len(), bytes };
        let fits = taps_before.saturating_add(taps.len()) <= waiting.taps_max
            && bytes_before.saturating_add(bytes) <= waiting.bytes_max;
        (fits || taps_before == 0).then_some(room)
    }
}

/// A batch's place among what waits.
#[derive(Debug)]
struct Room {
    waiting: Arc<Waiting>,
    taps: usize,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.taps.fetch_sub(self.taps, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
