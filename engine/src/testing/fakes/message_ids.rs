//! A table of message ids in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use compact_str::CompactString;

use super::{Faults, locked};
use crate::ports::PortError;
use crate::ports::message_ids::{MessageIds, NoticePlace, ParkedReceipt, UnplacedReceipt};
use crate::time::Timestamp;

#[derive(Default)]
struct State {
    known: BTreeMap<CompactString, NoticePlace>,
    parked: BTreeMap<u64, UnplacedReceipt>,
    parked_ever: u64,
}

/// See the module. Clones share what they hold. Forgets no id.
#[derive(Clone)]
pub struct FakeMessageIds {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl Default for FakeMessageIds {
    fn default() -> Self {
        Self { state: Arc::default(), faults: Faults::none() }
    }
}

impl FakeMessageIds {
    /// The same table, seen by a process with `faults`.
    pub fn connect(&self, faults: Faults) -> Self {
        Self { faults, ..self.clone() }
    }

    /// Whether no receipt waits for its id.
    pub fn has_none_parked(&self) -> bool {
        locked(&self.state).parked.is_empty()
    }

    async fn call<T: Send + 'static>(
        &self,
        effect: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults.call("message ids", move || effect(&mut locked(&shared))).await
    }
}

#[async_trait]
impl MessageIds for FakeMessageIds {
    async fn remember(
        &self,
        gateway_id: &str,
        place: NoticePlace,
        _accepted_at: Timestamp,
    ) -> Result<(), PortError> {
        let gateway_id = CompactString::new(gateway_id);
        self.call(move |state| {
            state.known.insert(gateway_id, place);
        })
        .await
    }

    async fn find(&self, gateway_id: &str) -> Result<Option<NoticePlace>, PortError> {
        let gateway_id = CompactString::new(gateway_id);
        self.call(move |state| state.known.get(&gateway_id).copied()).await
    }

    async fn park(&self, receipt: UnplacedReceipt) -> Result<(), PortError> {
        self.call(move |state| {
            state.parked_ever += 1;
            state.parked.insert(state.parked_ever, receipt);
        })
        .await
    }

    async fn parked(&self, after: u64, limit: usize) -> Result<Vec<ParkedReceipt>, PortError> {
        self.call(move |state| {
            let above = state.parked.range(after + 1..).take(limit);
            above
                .map(|(sequence, receipt)| ParkedReceipt { sequence: *sequence, receipt: receipt.clone() })
                .collect()
        })
        .await
    }

    async fn unpark(&self, sequences: Vec<u64>) -> Result<(), PortError> {
        self.call(move |state| sequences.iter().for_each(|sequence| drop(state.parked.remove(sequence))))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::message_ids_contract!(fake_message_ids, || async { Arc::new(FakeMessageIds::default()) });
}
