//! A rejected log in memory.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Faults, locked};
use crate::ids::LogPosition;
use crate::ports::PortError;
use crate::ports::rejected::{RejectedLog, RejectedRecord, RejectedSummary};

/// See the module. Clones share what they hold.
#[derive(Clone)]
pub struct FakeRejectedLog {
    records: Arc<Mutex<Vec<RejectedRecord>>>,
    faults: Faults,
}

impl Default for FakeRejectedLog {
    fn default() -> Self {
        Self { records: Arc::default(), faults: Faults::none() }
    }
}

impl FakeRejectedLog {
    /// The same log, seen by a process with `faults`.
    pub fn connect(&self, faults: Faults) -> Self {
        Self { faults, ..self.clone() }
    }

    /// Every record, in the order in which it came first.
    pub fn records(&self) -> Vec<RejectedRecord> {
        locked(&self.records).clone()
    }
}

#[async_trait]
impl RejectedLog for FakeRejectedLog {
    async fn append(&self, records: Vec<RejectedRecord>) -> Result<(), PortError> {
        let shared = Arc::clone(&self.records);
        self.faults
            .call("rejected log", move || {
                let mut kept = locked(&shared);
                for record in records {
                    if kept.iter().all(|known| known.position != record.position) {
                        kept.push(record);
                    }
                }
            })
            .await
    }

    async fn list(&self, limit: usize) -> Result<Vec<RejectedSummary>, PortError> {
        let shared = Arc::clone(&self.records);
        self.faults
            .call("rejected log", move || {
                let kept = locked(&shared);
                kept.iter().skip(kept.len().saturating_sub(limit)).map(RejectedRecord::summary).collect()
            })
            .await
    }

    async fn read(&self, position: LogPosition) -> Result<Option<RejectedRecord>, PortError> {
        let shared = Arc::clone(&self.records);
        self.faults
            .call("rejected log", move || {
                locked(&shared).iter().find(|known| known.position == position).cloned()
            })
            .await
    }
}
