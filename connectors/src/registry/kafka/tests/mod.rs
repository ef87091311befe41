//! The registry in a real topic: the feed's contract, writers beside each other, and topics that are not as they should be.

#![allow(clippy::unwrap_used)]

mod commands;
mod following;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::{Clock, SystemClock};
use gatebell_engine::ports::registry_feed::RegistryFeed;
use gatebell_engine::registry::{CHANGE_LEAD, Entry, EntryKey, RegistryChange};
use gatebell_engine::registry_feed_contract;
use gatebell_engine::testing::contract::registry_feed::{RegistryUnderTest, card, one_of_each, read_on};
use gatebell_engine::time::Timestamp;
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

use super::super::{Applied, ChangeOrigin, ProcessReports, RegistryStore};
use super::record::{HEAD_KEY, Head, Value, key_of};
use super::store::Wanted;
use super::topic::TopicReader;
use super::writer::Writer;
use super::{KafkaRegistry, KafkaRegistryFeed, Processes};
use crate::kafka::fixture::{OwnTopics, admin};
use crate::kafka::{KafkaSettings, prepare_topics};
use crate::sealing::tests::key;

const SOME_TIME: Duration = Duration::from_secs(30);

/// Reports that live as long as the test.
#[derive(Default)]
struct Reported(Mutex<BTreeMap<String, u64>>);

impl Reported {
    fn forget(&self, owner: &str) {
        self.0.lock().unwrap().remove(owner);
    }
}

#[async_trait]
impl ProcessReports for Reported {
    async fn report(&self, owner: &str, version: u64) -> Result<(), PortError> {
        self.0.lock().unwrap().insert(owner.to_owned(), version);
        Ok(())
    }

    async fn live(&self) -> Result<Vec<(String, u64)>, PortError> {
        Ok(self.0.lock().unwrap().clone().into_iter().collect())
    }
}

/// A store that takes no reports.
struct NoReports;

#[async_trait]
impl ProcessReports for NoReports {
    async fn report(&self, _: &str, _: u64) -> Result<(), PortError> {
        Err(PortError::new("reports", "the store does not answer"))
    }

    async fn live(&self) -> Result<Vec<(String, u64)>, PortError> {
        Ok(Vec::new())
    }
}

/// A city's topics, with a registry.
struct City {
    topics: OwnTopics,
    reports: Arc<Reported>,
    registry: KafkaRegistry,
}

impl City {
    /// One whose changes count from when the writer says.
    async fn made_up() -> Self {
        Self::with(|settings| settings.made_up_city = true).await
    }

    /// One whose changes count from when the broker says.
    async fn real() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(set: impl FnOnce(&mut KafkaSettings)) -> Self {
        let mut topics = OwnTopics::new();
        set(&mut topics.settings);
        prepare_topics(&topics.settings).await.unwrap();
        Self::on(topics)
    }

    fn on(topics: OwnTopics) -> Self {
        let reports = Arc::new(Reported::default());
        let registry = registry_with(&topics.settings, Arc::clone(&reports));
        Self { topics, reports, registry }
    }

    fn another_registry(&self) -> KafkaRegistry {
        registry_with(&self.topics.settings, Arc::clone(&self.reports))
    }

    fn feed_with(&self, key_byte: u8, reports: Arc<dyn ProcessReports>) -> KafkaRegistryFeed {
        let clock = Arc::new(SystemClock::new());
        KafkaRegistryFeed::new(&self.topics.settings, key(key_byte), reports, "process-1", clock).unwrap()
    }

    fn new_feed(&self) -> KafkaRegistryFeed {
        let reports: Arc<Reported> = Arc::clone(&self.reports);
        self.feed_with(1, reports)
    }

    fn begin(&self) -> Writer {
        Writer::begin(&self.topics.settings).unwrap()
    }

    /// Commits, and waits until readers see it.
    fn commit(&self, writer: Writer) {
        let reader = TopicReader::new(&self.topics.settings).unwrap();
        let before = reader.bounds().unwrap().end;
        writer.commit().unwrap();
        let started = Instant::now();
        while reader.bounds().unwrap().end == before {
            assert!(started.elapsed() < SOME_TIME, "a committed transaction is not visible");
        }
    }
}

fn registry_with(settings: &KafkaSettings, reports: Arc<Reported>) -> KafkaRegistry {
    let processes = Processes { reports, runtime: tokio::runtime::Handle::current() };
    KafkaRegistry::new(settings, key(1), processes).unwrap()
}

impl RegistryUnderTest for City {
    type Feed = KafkaRegistryFeed;

    async fn write(&mut self, applied: Timestamp, entries: Vec<Entry>) -> u64 {
        self.registry.apply(entries, applied, "contract").unwrap()
    }

    async fn feed(&mut self) -> KafkaRegistryFeed {
        self.new_feed()
    }
}

registry_feed_contract!(contract, City::made_up);

fn write_value(writer: &Writer, version: u64, entry: Entry) {
    let name = key_of(&entry.key());
    let value = Value { version, since: Timestamp::MIN, who: "test".to_owned(), entry };
    writer.write(name.as_bytes(), Some(&value.encode(&key(1)).unwrap())).unwrap();
}

fn write_head(writer: &Writer, first: u64, last: u64, keys: u64) {
    let head = Head {
        first,
        last,
        keys,
        made_up: false,
        since: Timestamp::MIN,
        not_before: Timestamp::MIN,
        written_as: "test".into(),
    };
    writer.write(HEAD_KEY, Some(&head.encode().unwrap())).unwrap();
}

async fn all(feed: &mut KafkaRegistryFeed) -> Vec<RegistryChange> {
    read_on(feed, 0, Timestamp::MIN).await
}

fn entries(changes: &[RegistryChange]) -> Vec<Entry> {
    changes.iter().map(|change| change.entry.clone()).collect()
}

/// What a key holds after all of `changes`.
fn standing(changes: &[RegistryChange]) -> BTreeMap<EntryKey, Entry> {
    changes.iter().map(|change| (change.entry.key(), change.entry.clone())).collect()
}
