//! The partitions that this process owns just now, for whoever works through them one by one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::tenure::Tenure;

/// See the module. Written by the dispatcher alone.
#[derive(Debug)]
pub(crate) struct Holdings {
    tenures: Mutex<BTreeMap<u32, Arc<Tenure>>>,
    /// How many tenures have ended: lanes let go of what they hold for those.
    ended: watch::Sender<u64>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self { tenures: Mutex::default(), ended: watch::Sender::new(0) }
    }
}

impl Holdings {
    fn tenures(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Tenure>>> {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tenure begins.
    pub(crate) fn add(&self, tenure: &Arc<Tenure>) {
        self.tenures().insert(tenure.partition(), Arc::clone(tenure));
    }

    /// Ends the tenures of `partitions`, as far as there are any.
    pub(crate) fn end(&self, partitions: &[u32]) {
        let mut tenures = self.tenures();
        for partition in partitions {
            if let Some(tenure) = tenures.remove(partition) {
                tenure.end();
            }
        }
        drop(tenures);
        self.ended.send_modify(|ended| *ended += 1);
    }

    /// Every tenure of now, by partition.
    pub(crate) fn all(&self) -> Vec<Arc<Tenure>> {
        self.tenures().values().cloned().collect()
    }

    /// Changes whenever tenures end.
    pub(crate) fn endings(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }
}
