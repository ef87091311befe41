//! How a new owner comes to know what the old one knew, without snapshots.
//!
//! The log is rewound to local midnight of the day of the record at the committed offset; records below that offset are
//! folded silently; what the ledger already has at or above it stands. Without a committed offset the partition is read
//! from its earliest record.

use super::shards::{SettledNotices, ShardContext, settled_from};
use super::status::Status;
use crate::ports::tap_log::TapLog;
use crate::time::Timestamp;

/// Where a tenure begins.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Records below this offset are folded silently, the others are decided.
    pub(crate) live_from: u64,
    /// Notices of records at or above it that are settled already.
    pub(crate) settled: SettledNotices,
}

/// Puts `log` where `partition` must be read from. Tries again until the ports answer.
pub(crate) async fn recover(
    log: &mut dyn TapLog,
    context: &ShardContext,
    partition: u32,
    committed: Option<u64>,
) -> Recovered {
    let Some(live_from) = committed else {
        let first = rewind(log, &context.status, partition, None).await;
        return Recovered { live_from: first, settled: settled_from(context, partition, first).await };
    };
    let received = loop {
        match log.received_at(partition, live_from).await {
            Ok(received) => break received,
            Err(cause) => wait_after(&context.status, &cause).await,
        }
    };
    // Nothing there yet: whatever comes will be received from now on.
    let received = received.unwrap_or_else(|| context.clock.now());
    let midnight = context.term.midnight(context.term.day_of(received));
    rewind(log, &context.status, partition, Some(midnight)).await;
    Recovered { live_from, settled: settled_from(context, partition, live_from).await }
}

async fn rewind(log: &mut dyn TapLog, status: &Status, partition: u32, from: Option<Timestamp>) -> u64 {
    loop {
        match log.rewind(partition, from).await {
            Ok(first) => {
                status.recovered("tap log");
                return first;
            }
            Err(cause) => wait_after(status, &cause).await,
        }
    }
}

async fn wait_after(status: &Status, cause: &(dyn std::fmt::Display + Sync)) {
    status.trouble("tap log", cause);
    tokio::time::sleep(super::PORT_RETRY).await;
}
