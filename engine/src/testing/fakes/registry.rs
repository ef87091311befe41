//! A registry feed in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Faults, locked};
use crate::ports::PortError;
use crate::ports::registry_feed::RegistryFeed;
use crate::registry::{Entry, RegistryChange};
use crate::time::Timestamp;

#[derive(Default)]
struct State {
    changes: Vec<RegistryChange>,
    /// By process: the version that it last reported as applied.
    applied: BTreeMap<u64, u64>,
}

/// What survives a crash. Clones share what they hold.
#[derive(Clone, Default)]
pub struct FakeRegistry {
    state: Arc<Mutex<State>>,
}

impl FakeRegistry {
    /// Adds a change that counts since `applied`.
    pub fn change(&self, applied: Timestamp, entry: Entry) {
        let mut state = locked(&self.state);
        let version = state.changes.len() as u64 + 1;
        state.changes.push(RegistryChange { version, applied, entry });
    }

    /// Every change so far.
    pub fn changes(&self) -> Vec<RegistryChange> {
        locked(&self.state).changes.clone()
    }

    /// The version that `process` last reported as applied; 0 when it never did.
    pub fn applied_by(&self, process: u64) -> u64 {
        locked(&self.state).applied.get(&process).copied().unwrap_or(0)
    }

    /// A new process's connection; no two processes have the same number.
    pub fn connect(&self, process: u64, faults: Faults) -> FakeRegistryFeed {
        FakeRegistryFeed { registry: self.clone(), process, faults }
    }
}

/// One process's connection to a [`FakeRegistry`].
pub struct FakeRegistryFeed {
    registry: FakeRegistry,
    process: u64,
    faults: Faults,
}

#[async_trait]
impl RegistryFeed for FakeRegistryFeed {
    async fn read(&mut self, version: u64, _horizon: Timestamp) -> Result<Vec<RegistryChange>, PortError> {
        let shared = Arc::clone(&self.registry.state);
        self.faults
            .call("registry", move || {
                let state = locked(&shared);
                state.changes.iter().filter(|change| change.version > version).take(1000).cloned().collect()
            })
            .await
    }

    async fn report_applied(&mut self, version: u64) -> Result<(), PortError> {
        let (shared, process) = (Arc::clone(&self.registry.state), self.process);
        self.faults
            .call("registry", move || {
                locked(&shared).applied.insert(process, version);
            })
            .await
    }
}
