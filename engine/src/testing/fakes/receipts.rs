//! A receipt log in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Faults, locked};
use crate::ports::PortError;
use crate::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog};

#[derive(Default)]
struct State {
    receipts: Vec<Receipt>,
    committed: u64,
    parked: BTreeMap<u64, Receipt>,
    parked_ever: u64,
}

/// See the module. Clones share what they hold.
#[derive(Clone)]
pub struct FakeReceiptLog {
    state: Arc<Mutex<State>>,
    appended: Arc<Notify>,
    faults: Faults,
}

impl Default for FakeReceiptLog {
    fn default() -> Self {
        Self { state: Arc::default(), appended: Arc::default(), faults: Faults::none() }
    }
}

impl FakeReceiptLog {
    /// The same log, seen by a process with `faults`.
    pub fn connect(&self, faults: Faults) -> Self {
        Self { faults, ..self.clone() }
    }

    /// A gateway's callback arrives; durable at once.
    pub fn arrive(&self, receipt: Receipt) {
        locked(&self.state).receipts.push(receipt);
        self.appended.notify_waiters();
    }

    /// Every receipt that ever arrived.
    pub fn arrived(&self) -> Vec<Receipt> {
        locked(&self.state).receipts.clone()
    }

    /// Whether every receipt has been settled, and none is parked.
    pub fn is_settled(&self) -> bool {
        let state = locked(&self.state);
        state.committed == state.receipts.len() as u64 && state.parked.is_empty()
    }
}

#[async_trait]
impl ReceiptLog for FakeReceiptLog {
    async fn append(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        self.faults.call("receipts", || receipts.into_iter().for_each(|receipt| self.arrive(receipt))).await
    }

    async fn read(&self, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        loop {
            let appended = self.appended.notified();
            let found: Vec<LoggedReceipt> = self
                .faults
                .call("receipts", || {
                    let state = locked(&self.state);
                    let start = usize::try_from(after).unwrap_or(usize::MAX);
                    (after + 1..)
                        .zip(state.receipts.iter().skip(start))
                        .take(limit)
                        .map(|(sequence, receipt)| LoggedReceipt { sequence, receipt: receipt.clone() })
                        .collect()
                })
                .await?;
            if !found.is_empty() {
                return Ok(found);
            }
            // `notify_waiters` between the look and here is not missed: `appended` was made before.
            appended.await;
        }
    }

    async fn committed(&self) -> Result<u64, PortError> {
        self.faults.call("receipts", || locked(&self.state).committed).await
    }

    async fn commit(&self, sequence: u64) -> Result<(), PortError> {
        self.faults
            .call("receipts", || {
                let mut state = locked(&self.state);
                state.committed = state.committed.max(sequence);
            })
            .await
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        self.faults
            .call("receipts", || {
                let mut state = locked(&self.state);
                for receipt in receipts {
                    state.parked_ever += 1;
                    let sequence = state.parked_ever;
                    state.parked.insert(sequence, receipt);
                }
            })
            .await
    }

    async fn parked(&self, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        self.faults
            .call("receipts", || {
                locked(&self.state)
                    .parked
                    .iter()
                    .take(limit)
                    .map(|(sequence, receipt)| LoggedReceipt {
                        sequence: *sequence,
                        receipt: receipt.clone(),
                    })
                    .collect()
            })
            .await
    }

    async fn unpark(&self, sequences: Vec<u64>) -> Result<(), PortError> {
        self.faults
            .call("receipts", || {
                let mut state = locked(&self.state);
                for sequence in sequences {
                    state.parked.remove(&sequence);
                }
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::receipt_log_contract!(fake_receipt_log, || async { Arc::new(FakeReceiptLog::default()) });
}
