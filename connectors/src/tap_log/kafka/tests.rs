//! The Kafka log against the port's contract, and against what a group and a broker can do to it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use gatebell_engine::ports::clock::SystemClock;
use gatebell_engine::tap_log_contract;
use gatebell_engine::testing::contract::tap_log::TapLogUnderTest;

use super::*;
use crate::kafka::fixture::OwnTopics;
use crate::kafka::{Cluster, prepare_topics};

struct OnKafka {
    own: OwnTopics,
    cluster: Cluster,
}

impl OnKafka {
    async fn new() -> Self {
        let own = OwnTopics::new();
        let cluster = prepare_topics(&own.settings).await.unwrap();
        Self { own, cluster }
    }

    async fn join(&self) -> KafkaTapLog {
        KafkaTapLog::open(&self.own.settings, &self.cluster, Arc::new(SystemClock::new()), None)
            .await
            .unwrap()
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
