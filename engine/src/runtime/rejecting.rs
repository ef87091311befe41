//! Brings rejected records to the rejected log, beside the shards.
//!
//! A rejected record holds its offset back like an unsettled notice until the rejected log has it: a crash before that reads
//! the record again. So nothing is lost, and a rejected log that does not answer holds up commits, but no decision until
//! the queue is full.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::retrying;
use super::status::Status;
use super::tenure::Tenure;
use crate::ports::rejected::{RejectedLog, RejectedRecord};

/// Records that wait for the rejected log.
const QUEUE_RECORDS_MAX: usize = 4_096;
/// Records that are appended at once.
const BATCH_RECORDS_MAX: usize = 256;

/// A rejected record on its way.
pub(crate) struct Rejection {
    pub(crate) record: RejectedRecord,
    /// Whose offset it holds back.
    pub(crate) tenure: Arc<Tenure>,
}

/// The queue between the shards and the rejected log.
pub(crate) fn queue() -> (mpsc::Sender<Rejection>, mpsc::Receiver<Rejection>) {
    mpsc::channel(QUEUE_RECORDS_MAX)
}

/// Keeps what comes until `stop`, and what has come by then.
pub(crate) async fn run(
    log: Arc<dyn RejectedLog>,
    status: Arc<Status>,
    mut inbox: mpsc::Receiver<Rejection>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(BATCH_RECORDS_MAX);
    loop {
        let received = tokio::select! {
            biased;
            received = inbox.recv_many(&mut batch, BATCH_RECORDS_MAX) => received,
            () = stop.cancelled() => 0,
        };
        if received == 0 {
            return;
        }
        let records: Vec<RejectedRecord> =
            batch.iter().map(|rejection: &Rejection| rejection.record.clone()).collect();
        retrying(&status, "rejected log", || log.append(records.clone())).await;
        for rejection in batch.drain(..) {
            rejection.tenure.settle(rejection.record.position.offset);
        }
    }
}
