//! The Kafka log against the port's contract, and against what a group and a broker can do to it.

#![allow(clippy::unwrap_used)]

mod broker;
mod group;

use std::sync::Arc;
use std::time::Duration;

use gatebell_engine::ports::PortError;
use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::ports::tap_log::{TapIntake, TapLog, TapLogEvent, TapRecord};
use gatebell_engine::tap_log_contract;
use gatebell_engine::testing::contract::tap_log::{TapLogUnderTest, tap};

use super::*;
use crate::kafka::fixture::OwnTopics;
use crate::kafka::{Cluster, KafkaSettings, prepare_topics};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

struct OnKafka {
    own: OwnTopics,
    cluster: Cluster,
}

impl OnKafka {
    async fn new() -> Self {
        Self::on(OwnTopics::new()).await
    }

    async fn with_partitions(partitions: u32) -> Self {
        let mut own = OwnTopics::new();
        own.settings.partitions = partitions.try_into().unwrap();
        Self::on(own).await
    }

    async fn on(own: OwnTopics) -> Self {
        let cluster = prepare_topics(&own.settings).await.unwrap();
        Self { own, cluster }
    }

    async fn join(&self) -> KafkaTapLog {
        self.try_join(None).await.unwrap()
    }

    async fn try_join(&self, copy: Option<Arc<dyn OffsetCopy>>) -> Result<KafkaTapLog, PortError> {
        KafkaTapLog::open(&self.own.settings, &self.cluster, Arc::new(SystemClock::new()), copy).await
    }

    fn intake(&self) -> KafkaTapIntake {
        KafkaTapIntake::new(&self.own.settings, IntakeLimits::default(), Arc::new(SystemClock::new()))
            .unwrap()
    }
}

impl TapLogUnderTest for OnKafka {
    type Log = KafkaTapLog;
    type Intake = KafkaTapIntake;

    fn partitions(&self) -> u32 {
        self.cluster.partitions
    }

    async fn open(&mut self) -> (KafkaTapLog, KafkaTapIntake) {
        (self.join().await, self.intake())
    }
}

tap_log_contract!(contract, OnKafka::new);

/// The next event of the kind that `pick` takes, whatever comes before.
async fn until<T>(
    log: &mut KafkaTapLog,
    mut pick: impl FnMut(Result<TapLogEvent, PortError>) -> Option<T>,
) -> T {
    let found = async {
        loop {
            if let Some(found) = pick(log.next().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it comes within a minute")
}

/// Takes `count` assignments over from their earliest records; what was committed, by partition.
async fn from_the_start(log: &mut KafkaTapLog, count: usize) -> Vec<(u32, Option<u64>)> {
    let mut assigned = Vec::new();
    while assigned.len() < count {
        let found = until(log, |event| match event {
            Ok(TapLogEvent::Assigned { partition, committed }) => Some((partition, committed)),
            _ => None,
        });
        assigned.push(found.await);
    }
    for (partition, _) in &assigned {
        log.rewind(*partition, None).await.unwrap();
    }
    assigned.sort_unstable();
    assigned
}

/// The next `count` records, with their partitions.
async fn records(log: &mut KafkaTapLog, count: usize) -> Vec<(u32, TapRecord)> {
    let mut found = Vec::new();
    while found.len() < count {
        let batch = until(log, |event| match event {
            Ok(TapLogEvent::Batch { partition, records, .. }) => Some((partition, records)),
            _ => None,
        });
        let (partition, records) = batch.await;
        found.extend(records.into_iter().map(|record| (partition, record)));
    }
    found
}

async fn append(intake: &KafkaTapIntake, numbers: std::ops::Range<u64>) {
    intake.append(numbers.map(tap).collect()).await.unwrap();
}
