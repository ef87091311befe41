//! The writing side of the embedded log: a bounded queue before the writer thread.

use std::sync::Arc;

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::Clock;
use gatebell_engine::ports::tap_log::{IncomingTap, IntakeError, TapIntake, partition_of};

use super::super::room::Waiting;
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
        let waiting = Waiting::new(settings.queue_taps_max, settings.queue_bytes_max);
        let latest = Arc::new(LatestReceipt::new(shared.identity.partitions));
        Self { shared, waiting, clock, latest }
    }
}

#[async_trait]
impl TapIntake for EmbeddedTapIntake {
    fn waiting_taps(&self) -> usize {
        self.waiting.taps()
    }

    async fn append(&self, taps: Vec<IncomingTap>) -> Result<(), IntakeError> {
        if taps.is_empty() {
            return Ok(());
        }
        let room = self.waiting.reserve(&taps).ok_or(IntakeError::Full)?;
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
