//! A receipt log in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Faults, locked};
use crate::ports::PortError;
use crate::ports::receipts::{LoggedReceipt, Receipt, ReceiptLog};

#[derive(Default)]
struct Partition {
    receipts: Vec<Receipt>,
    committed: u64,
    parked: BTreeMap<u64, Receipt>,
    parked_ever: u64,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<u32, Partition>,
}

impl State {
    fn partition(&mut self, number: u32) -> &mut Partition {
        self.partitions.entry(number).or_default()
    }
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
        locked(&self.state).partition(receipt.position.partition).receipts.push(receipt);
        self.appended.notify_waiters();
    }

    /// Every receipt that ever arrived, by partition.
    pub fn arrived(&self) -> Vec<Receipt> {
        locked(&self.state).partitions.values().flat_map(|partition| partition.receipts.clone()).collect()
    }

    /// Whether every receipt has been settled, and none is parked.
    pub fn is_settled(&self) -> bool {
        locked(&self.state).partitions.values().all(|partition| {
            partition.committed == partition.receipts.len() as u64 && partition.parked.is_empty()
        })
    }
}

#[async_trait]
impl ReceiptLog for FakeReceiptLog {
    async fn append(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        let log = self.clone();
        let faults = self.faults.clone();
        let arrive = move || {
            for receipt in receipts {
                faults.journal().reached("receipts learnt by asking");
                faults.note(|| format!("asked, and learnt of {}: {:?}", receipt.notice, receipt.status));
                log.arrive(receipt);
            }
        };
        self.faults.call("receipts", arrive).await
    }

    async fn read(&self, partition: u32, after: u64, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        loop {
            let appended = self.appended.notified();
            let shared = Arc::clone(&self.state);
            let found: Vec<LoggedReceipt> = self
                .faults
                .call("receipts", move || {
                    let mut state = locked(&shared);
                    let receipts = &state.partition(partition).receipts;
                    let start = usize::try_from(after).unwrap_or(usize::MAX);
                    (after + 1..)
                        .zip(receipts.iter().skip(start))
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

    async fn committed(&self, partition: u32) -> Result<u64, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults.call("receipts", move || locked(&shared).partition(partition).committed).await
    }

    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("receipts", move || {
                let mut state = locked(&shared);
                let partition = state.partition(partition);
                partition.committed = partition.committed.max(sequence);
            })
            .await
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        self.faults
            .call("receipts", move || {
                let mut state = locked(&shared);
                for receipt in receipts {
                    faults.journal().reached("receipts parked");
                    let partition = state.partition(receipt.position.partition);
                    partition.parked_ever += 1;
                    partition.parked.insert(partition.parked_ever, receipt);
                }
            })
            .await
    }

    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        let shared = Arc::clone(&self.state);
        self.faults
            .call("receipts", move || {
                locked(&shared)
                    .partition(partition)
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

    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError> {
        let (shared, faults) = (Arc::clone(&self.state), self.faults.clone());
        self.faults
            .call("receipts", move || {
                let mut state = locked(&shared);
                for sequence in sequences {
                    faults.journal().reached("parked receipts given up or settled");
                    state.partition(partition).parked.remove(&sequence);
                }
            })
            .await
    }

    fn release(&self, _partition: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::receipt_log_contract!(fake_receipt_log, || async { Arc::new(FakeReceiptLog::default()) });
}
