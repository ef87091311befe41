//! The receipt log in a real topic: its contract, several processes, and partitions that come and go.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Mutex;

use futures::FutureExt;
use gatebell_engine::ports::receipts::ReceiptStatus;
use gatebell_engine::receipt_log_contract;
use gatebell_engine::testing::contract::receipts::{PARTITION, receipt};

use super::buffer::FETCHED_RECEIPTS_MAX;
use super::*;
use crate::kafka::fixture::OwnTopics;
use crate::kafka::prepare_topics;

/// Longer than anything here takes.
const SOME_TIME: Duration = Duration::from_secs(30);

/// The progress of a city whose store is this process's memory.
#[derive(Default)]
struct InMemory(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    committed: HashMap<u32, u64>,
    parked: HashMap<u32, BTreeMap<u64, Receipt>>,
    last_parked: u64,
}

#[async_trait]
impl ReceiptProgress for InMemory {
    async fn committed(&self, partition: u32) -> Result<u64, PortError> {
        Ok(self.0.lock().unwrap().committed.get(&partition).copied().unwrap_or(0))
    }

    async fn commit(&self, partition: u32, sequence: u64) -> Result<(), PortError> {
        let mut kept = self.0.lock().unwrap();
        let committed = kept.committed.entry(partition).or_default();
        *committed = sequence.max(*committed);
        Ok(())
    }

    async fn park(&self, receipts: Vec<Receipt>) -> Result<(), PortError> {
        let mut kept = self.0.lock().unwrap();
        for receipt in receipts {
            kept.last_parked += 1;
            let sequence = kept.last_parked;
            kept.parked.entry(receipt.position.partition).or_default().insert(sequence, receipt);
        }
        Ok(())
    }

    async fn parked(&self, partition: u32, limit: usize) -> Result<Vec<LoggedReceipt>, PortError> {
        let parked = self.0.lock().unwrap().parked.get(&partition).cloned().unwrap_or_default();
        let logged = |(sequence, receipt)| LoggedReceipt { sequence, receipt };
        Ok(parked.into_iter().take(limit).map(logged).collect())
    }

    async fn unpark(&self, partition: u32, sequences: Vec<u64>) -> Result<(), PortError> {
        let mut kept = self.0.lock().unwrap();
        let parked = kept.parked.entry(partition).or_default();
        sequences.iter().for_each(|sequence| drop(parked.remove(sequence)));
        Ok(())
    }
}

/// A process's log, with the city's topics.
struct City {
    log: KafkaReceiptLog,
    progress: Arc<InMemory>,
    topics: OwnTopics,
}

impl City {
    async fn new() -> Self {
        let mut topics = OwnTopics::new();
        // The contract's partition and another one.
        topics.settings.partitions = (PARTITION + 2).try_into().unwrap();
        prepare_topics(&topics.settings).await.unwrap();
        let progress = Arc::<InMemory>::default();
        let log = log_of(&topics, &progress);
        Self { log, progress, topics }
    }

    fn another_process(&self) -> KafkaReceiptLog {
        log_of(&self.topics, &self.progress)
    }
}

fn log_of(topics: &OwnTopics, progress: &Arc<InMemory>) -> KafkaReceiptLog {
    let progress: Arc<InMemory> = Arc::clone(progress);
    KafkaReceiptLog::new(&topics.settings, progress).unwrap()
}

impl Deref for City {
    type Target = KafkaReceiptLog;

    fn deref(&self) -> &KafkaReceiptLog {
        &self.log
    }
}

receipt_log_contract!(contract, City::new);

fn delivered(partition: u32, number: u64) -> Receipt {
    let mut receipt = receipt(number, ReceiptStatus::Delivered);
    receipt.position.partition = partition;
    receipt
}

async fn read(log: &KafkaReceiptLog, partition: u32, after: u64) -> Vec<LoggedReceipt> {
    let read = log.read(partition, after, 1_000);
    tokio::time::timeout(SOME_TIME, read).await.expect("something is read").unwrap()
}

#[tokio::test]
async fn a_receipt_that_any_process_took_reaches_the_partitions_owner() {
    let city = City::new().await;
    let (one, other) = (city.another_process(), city.another_process());
    let mut waiting = std::pin::pin!(read(&city, 2, 0));
    assert!(waiting.as_mut().now_or_never().is_none());
    one.append(vec![delivered(2, 1), delivered(1, 2)]).await.unwrap();
    assert_eq!(waiting.await[0].receipt, delivered(2, 1));
    other.append(vec![delivered(2, 3)]).await.unwrap();
    let read = read(&city, 2, 1).await;
    assert_eq!((read[0].sequence, &read[0].receipt), (2, &delivered(2, 3)));
    assert_eq!(read.len(), 1);
}

#[tokio::test]
async fn a_partition_goes_to_another_process_where_it_was_settled() {
    let city = City::new().await;
    city.append((0..10).map(|number| delivered(0, number)).collect()).await.unwrap();
    let first = read(&city, 0, 0).await;
    city.commit(0, first[3].sequence).await.unwrap();
    city.release(0);

    let successor = city.another_process();
    let committed = successor.committed(0).await.unwrap();
    assert_eq!(read(&successor, 0, committed).await[0].receipt, delivered(0, 4));
    successor.commit(0, 7).await.unwrap();
    successor.release(0);

    // And back: what lies between is not read from what was fetched before.
    assert_eq!(read(&city, 0, 7).await[0].receipt, delivered(0, 7));
    city.append(vec![delivered(0, 10)]).await.unwrap();
    assert_eq!(read(&city, 0, 10).await[0].receipt, delivered(0, 10));
}

#[tokio::test]
async fn partitions_come_and_go_without_disturbing_each_other() {
    let city = City::new().await;
    for partition in 0..4 {
        city.append((0..5).map(|number| delivered(partition, number)).collect()).await.unwrap();
        assert_eq!(read(&city, partition, 0).await.len(), 5);
    }
    city.release(1);
    city.release(3);
    city.append((0..4).map(|partition| delivered(partition, 5)).collect()).await.unwrap();
    for partition in [0, 2, 1, 3] {
        assert_eq!(read(&city, partition, 5).await[0].receipt, delivered(partition, 5));
    }
}

#[tokio::test]
async fn more_receipts_than_are_kept_ready_come_whole_and_in_order() {
    let city = City::new().await;
    let count = 3 * FETCHED_RECEIPTS_MAX as u64;
    for batch in (0..count).collect::<Vec<_>>().chunks(4_096) {
        city.append(batch.iter().map(|number| delivered(0, *number)).collect()).await.unwrap();
    }
    let mut after = 0;
    while after < count {
        for logged in read(&city, 0, after).await {
            assert_eq!((logged.sequence, logged.receipt), (after + 1, delivered(0, after)));
            after += 1;
        }
    }
}

#[tokio::test]
async fn a_record_that_is_no_receipt_is_left_out() {
    let city = City::new().await;
    city.append(vec![delivered(0, 0)]).await.unwrap();
    let topic = city.topics.settings.receipts_topic();
    let foreign = FutureRecord::<(), _>::to(&topic).partition(0).payload("{\"lane\":1}");
    city.log.producer.send(foreign, SOME_TIME).await.unwrap();
    city.append(vec![delivered(0, 1)]).await.unwrap();
    let first = read(&city, 0, 0).await;
    let last = read(&city, 0, 1).await;
    assert_eq!(first[0].receipt, delivered(0, 0));
    assert_eq!((last[0].sequence, &last[0].receipt), (3, &delivered(0, 1)));
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_an_error() {
    let city = City::new().await;
    let error = city.append(vec![delivered(99, 0)]).await.unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}

#[tokio::test]
async fn no_phone_number_lies_in_the_topic() {
    // A receipt has no field for one; this holds whoever adds a field to the promise.
    let json = serde_json::to_value(receipt(PARTITION.into(), ReceiptStatus::Delivered)).unwrap();
    let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["arrived", "gateway_id", "lane", "notice", "position", "status"]);
}
