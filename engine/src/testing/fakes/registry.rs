//! A registry feed in memory.

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
    applied: u64,
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

    /// The version that a process last reported as applied.
    pub fn applied(&self) -> u64 {
        locked(&self.state).applied
    }

    /// A new process's connection.
    pub fn connect(&self, faults: Faults) -> FakeRegistryFeed {
        FakeRegistryFeed { registry: self.clone(), faults }
    }
}

/// One process's connection to a [`FakeRegistry`].
pub struct FakeRegistryFeed {
    registry: FakeRegistry,
    faults: Faults,
}

#[async_trait]
impl RegistryFeed for FakeRegistryFeed {
    async fn read(&mut self, version: u64, _horizon: Timestamp) -> Result<Vec<RegistryChange>, PortError> {
        self.faults
            .call("registry", || {
                let state = locked(&self.registry.state);
                state.changes.iter().filter(|change| change.version > version).take(1000).cloned().collect()
            })
            .await
    }

    async fn report_applied(&mut self, version: u64) -> Result<(), PortError> {
        self.faults.call("registry", || locked(&self.registry.state).applied = version).await
    }
}
